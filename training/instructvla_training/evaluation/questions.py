"""Question answering about scenes that training never saw: what is left of the language when actions are learnt?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from instructvla_model.runtime import PolicyRuntime
from instructvla_sim import World
from instructvla_training.data.observe import object_table, scene_view
from instructvla_training.stages.text import generator

from .closed_loop import RENDER, world_config
from .trials import FIRST_SEED

FAMILIES = ("pick", "place", "near", "stack")


@dataclass(frozen=True)
class Answered:
    """``expected``: the true answer in the wording of the training language."""

    seed: int
    question: str
    expected: str
    text: str

    @property
    def right(self) -> bool:
        """Word for word, but for case and the full stop."""
        return _plain(self.text) == _plain(self.expected)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def ask(checkpoint: Path, count: int, first_seed: int = FIRST_SEED, device: str = "cpu") -> list[Answered]:
    """One question about each of ``count`` scenes; which one, the scene's seed decides."""
    torch.set_num_threads(1)
    runtime = PolicyRuntime.load(checkpoint, device=device)
    language, world = generator("heldout"), World(RENDER, world_config(runtime.manifest))
    found: list[Answered] = []
    seed = first_seed
    while len(found) < count:
        task = world.reset(seed, [FAMILIES[seed % len(FAMILIES)]]).task
        view = scene_view(object_table(world.scene), task.family, task.target, task.place)
        item = language.qa(view, np.random.default_rng([seed, 37]))
        if item is not None:
            *_, thought = runtime.think(world.render("primary"), item.question, "answer")
            found.append(Answered(seed, item.question, item.answer, thought.text))
        seed += 1
    world.close()
    return found
