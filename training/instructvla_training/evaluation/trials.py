"""What is tried: scenes of seeds that training never uses, an instruction for each, and its ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructvla_sim import Task, World
from instructvla_training.data.observe import object_table, scene_view
from instructvla_training.language import SceneView
from instructvla_training.stages.text import generator

HELDOUT_VARIETIES = ("paraphrase", "attribute", "situated")
FIRST_SEED = 1_000
"""Evaluation seeds are below DataRecipe.first_seed."""


@dataclass(frozen=True)
class Trial:
    """One episode to run. ``kind``: atomic, shuffled, paraphrase, attribute or situated."""

    seed: int
    kind: str
    instruction: str
    task: Task


def _scenes(
    world: World, families: Sequence[str], count: int, first_seed: int
) -> list[tuple[int, SceneView, Task]]:
    scenes = []
    for number in range(count):
        seed = first_seed + number
        scene = world.reset(seed, [families[number % len(families)]])
        task = scene.task
        scenes.append((seed, scene_view(object_table(scene), task.family, task.target, task.place), task))
    return scenes


def atomic_trials(
    world: World, families: Sequence[str], count: int, first_seed: int = FIRST_SEED
) -> list[Trial]:
    """``count`` canonical instructions, the families in turn."""
    language = generator("heldout")
    return [
        Trial(seed, "atomic", language.atomic(view).instruction, task)
        for seed, view, task in _scenes(world, families, count, first_seed)
    ]


def shuffled_trials(
    world: World, families: Sequence[str], count: int, first_seed: int = FIRST_SEED
) -> list[Trial]:
    """The atomic trials, each with another one's instruction: success at the scene's own task tells chance."""
    trials = atomic_trials(world, families, count, first_seed)
    rng = np.random.default_rng(first_seed)
    shuffled = []
    for trial in trials:
        others = [other.instruction for other in trials if other.instruction != trial.instruction]
        shuffled.append(Trial(trial.seed, "shuffled", others[rng.integers(len(others))], trial.task))
    return shuffled


def heldout_trials(
    world: World, families: Sequence[str], count: int, first_seed: int = FIRST_SEED
) -> list[Trial]:
    """Instructions phrased in ways that training never contains, the three varieties in turn."""
    scenes = _scenes(world, families, 4 * count, first_seed)
    views = [view for _, view, _ in scenes]
    items = generator("heldout").instruct_set(views, count, seed=first_seed, varieties=HELDOUT_VARIETIES)
    return [
        Trial(
            scenes[item.view_index][0],
            item.annotated.variety,
            item.annotated.instruction,
            scenes[item.view_index][2],
        )
        for item in items
    ]
