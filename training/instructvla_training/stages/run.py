"""The stages of a recipe, built from a workspace: its data, and the checkpoint that it starts from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from instructvla_model import checkpoint
from instructvla_model.manifest import Manifest, read_manifest
from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import TOKENIZER_FILE, PolicyTokenizer, load_tokenizer
from instructvla_sim.robots import robot_spec
from instructvla_training.data.episode_frames import Part
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.data.lint import lint, lint_text, refuse_errors
from instructvla_training.data.pooling import pool
from instructvla_training.data.shards import Frames, joined, read_frames
from instructvla_training.data.survey import action_statistics, survey
from instructvla_training.lock import check_free
from instructvla_training.parallel import Processes, processes, use_threads
from instructvla_training.recipes import StageRecipe
from instructvla_training.refusals import RunError
from instructvla_training.run import HEADS_FILE, Prepared, place, train
from instructvla_training.workspace import Workspace, builder_for, new_policy, new_tokenizer, robot_of

from .ablation import switched
from .action import ActionStage
from .base import BaseStage
from .draw import SOURCES
from .episode_text import EpisodePrompter
from .identity import recipe_identity, recordings_identity
from .recorded import recorded_stage
from .text import Prompter

LINTED_EPISODES = 256
"""Of each dataset as released: all of one would take as long as to read it."""

logger = logging.getLogger(__name__)


def run_stage(
    recipe: StageRecipe, space: Workspace, device: str, threads: int, until: int | None = None,
    wandb_project: str | None = None, of: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Trains ``recipe`` (up to step ``until``) -> its checkpoint folder. Under ``torchrun`` every process calls this.
    ``of``: what the run is of; one that was of something else is not gone on with.

    Raises FileNotFoundError where the stage before or the data is missing.
    """
    use_threads(threads)
    with processes(device) as group:
        if group.is_first:
            check_free(space.run(recipe.run_name))
        prepared = prepare(recipe, space, group)
        if of is not None:
            prepared = replace(prepared, of={**prepared.of, **of})
        place(prepared, recipe, group)
        return train(prepared, recipe, space.run(recipe.run_name), group, until, wandb_project)


def prepare(recipe: StageRecipe, space: Workspace, group: Processes) -> Prepared:
    """Builds the stage, drawing one part of a step at a time."""
    torch.manual_seed(recipe.optimisation.seed)
    part = recipe.part(recipe.parts_for(group.count))
    if recipe.stage == "base":
        return _base_stage(part, space, group)
    folder = _before(recipe, space)
    policy, tokenizer, manifest = checkpoint.load_policy(folder)
    policy = switched(policy, recipe.switches)
    policy.set_stage(recipe.stage)
    if all(name in SOURCES for name, _ in recipe.datasets):
        statistics = manifest.statistics
        if statistics is not None:
            statistics = seen_from(statistics, base_moved(robot_of(manifest), recipe.data.robot))
        prepared = _simulated_stage(part, space, policy, tokenizer, statistics, robot_of(manifest))
        _load_heads(prepared.stage, folder if recipe.start else folder.parent)
        return prepared
    return _recorded_stage(part, space, policy, tokenizer, manifest, group)


def _before(recipe: StageRecipe, space: Workspace) -> Path:
    """The checkpoint that a stage starts from."""
    if recipe.start:
        return space.root / recipe.start
    if recipe.after is None:
        raise RunError(f"recipe {recipe.run_name}: found no checkpoint to start from, expected after or start")
    return space.checkpoint(recipe.after)


def _base_stage(recipe: StageRecipe, space: Workspace, group: Processes) -> Prepared:
    if recipe.after is not None:
        policy, tokenizer, _ = checkpoint.load_policy(space.checkpoint(recipe.after))
    else:
        tokenizer = _tokenizer(recipe, space, group)
        policy = new_policy(recipe.preset, tokenizer)
    frames = read_frames([space.stills])
    stage = BaseStage(policy, Prompter(builder_for(policy, tokenizer)), frames, recipe)
    if recipe.after is not None:
        _load_heads(stage, space.run(recipe.after))
    return Prepared(stage, tokenizer, None, _notes(recipe, frames), of=_identity(recipe, space, [space.stills]))


def _tokenizer(recipe: StageRecipe, space: Workspace, group: Processes) -> PolicyTokenizer:
    """The run's own, made when it is first started."""
    file = space.run(recipe.run_name) / TOKENIZER_FILE
    if group.is_first and not file.exists():
        partial = file.parent / "tokenizer.partial"
        partial.mkdir(parents=True, exist_ok=True)
        new_tokenizer(recipe.preset).save(partial)
        os.replace(partial / TOKENIZER_FILE, file)
        partial.rmdir()
    group.wait()
    return load_tokenizer(file)


def _simulated_stage(
    recipe: StageRecipe,
    space: Workspace,
    policy: InstructVLA,
    tokenizer: PolicyTokenizer,
    known: Statistics | None,
    before: str,
) -> Prepared:
    folders = [space.dataset(name) for name, _ in recipe.datasets]
    statistics = known or _statistics(folders[0])
    frames = read_frames([f for f in folders if f.exists()] + ([space.stills] if recipe.still_groups else []))
    if recipe.rehearsal:
        frames = joined([frames, _rehearsed(recipe, space, frames, base_moved(before, recipe.data.robot))])
    stage = ActionStage(policy, Prompter(builder_for(policy, tokenizer)), frames, recipe, statistics)
    recorded = [*folders, space.stills, *([space.dataset("rehearsal")] if recipe.rehearsal else [])]
    return Prepared(stage, tokenizer, statistics, _notes(recipe, frames), of=_identity(recipe, space, recorded))


def _identity(recipe: StageRecipe, space: Workspace, recorded: Sequence[Path]) -> dict[str, Any]:
    """What a run on recordings of the simulation is of; corrections come in while it goes on."""
    start = read_manifest(_before(recipe, space)).checkpoint_id if recipe.after or recipe.start else ""
    constant = [folder for folder in recorded if folder != space.corrections]
    return {**recipe_identity(recipe), "starts from": start, "recordings": recordings_identity(constant)}


def _recorded_stage(
    recipe: StageRecipe, space: Workspace, policy: InstructVLA, tokenizer: PolicyTokenizer, base: Manifest,
    group: Processes,
) -> Prepared:  # fmt: skip
    """Datasets as released, with annotations and conversations where the workspace has them.

    Raises DataError where the linter finds errors in some of the episodes or in a conversation, before a run begins.
    """
    datasets = []
    for name, _ in recipe.datasets:
        annotations = space.annotations(name)
        reading = Reading(annotations=annotations if annotations.exists() else None)
        datasets.append(open_dataset(space.dataset(name), reading))
    conversations = LlavaDataset(space.conversations) if recipe.multimodal_ratio else None
    if not space.checkpoint(recipe.run_name).exists():
        for dataset in datasets if group.is_first else ():
            refuse_errors(dataset.root, lint(dataset, episodes=LINTED_EPISODES))
        if conversations is not None:  # millions: the processes share them out
            prompt = EpisodePrompter(builder_for(policy, tokenizer)).conversation
            refuse_errors(conversations.path, lint_text(conversations, group.rank, group.count, prompt))
    group.wait()
    weights = [weight for _, weight in recipe.datasets]
    surveys = [group.first_on_node(partial(survey, dataset)) for dataset in datasets]
    parts = [Part(*each) for each in zip(datasets, surveys, weights, strict=True)]
    parts = pool(parts, [dataset.robot for dataset in datasets])
    if recipe.stage == "generalist" and base.statistics is not None:
        parts = [_as_learnt(part, base) for part in parts]
    return recorded_stage(recipe, policy, tokenizer, parts, conversations, base, group)


def _as_learnt(part: Part, base: Manifest) -> Part:
    """A frozen expert speaks in the scale that it learnt: an imported one's, told for one dataset, is kept for that."""
    if part.survey.name != base.training.get("dataset") or part.survey.statistics == base.statistics:
        return part
    logger.warning("%s is normalised as %s was, not by the episodes in %s", part.survey.name, base.checkpoint_id,
                   part.dataset.root)  # fmt: skip
    assert base.statistics is not None
    return replace(part, survey=replace(part.survey, statistics=base.statistics))


def _statistics(folder: Path) -> Statistics:
    """Of one dataset's recorded actions and states."""
    frames = read_frames([folder])
    return action_statistics(frames.action, frames.state)


def _notes(recipe: StageRecipe, frames: Frames) -> dict[str, Any]:
    return {"robot": recipe.data.robot, "episodes": len(frames.episodes), "frames": len(frames)}


def base_moved(before: str, now: str) -> np.ndarray:
    """(3,) metres from the base of one robot to that of another on the bench, against the axes."""
    return np.subtract(robot_spec(before).base_m, robot_spec(now).base_m)


def _rehearsed(recipe: StageRecipe, space: Workspace, frames: Frames, moved_m: np.ndarray) -> Frames:
    """Corrected episodes of the start's robot as seen from the new base; drawn as often as the new ones."""
    old = read_frames([space.dataset("rehearsal")])
    acting = np.array([episode.source != "still" for episode in frames.episodes])[frames.episode]
    weight = old.weight * (frames.weight[acting].sum() / old.weight.sum())
    state = old.state + np.concatenate([moved_m, np.zeros(old.state.shape[1] - 3)]).astype(old.state.dtype)
    return replace(old, columns={**old.columns, "state": state, "weight": weight.astype(old.weight.dtype)})


def seen_from(statistics: Statistics, moved_m: np.ndarray) -> Statistics:
    """The statistics of the same states when the base stands ``moved_m`` (3,) further back: a place on the bench keeps
    its normalised state, so what was learnt of it still holds."""
    if statistics.state is None or not moved_m.any():
        return statistics
    names = ("q01", "q99", "min", "max", "mean")
    old = {name: getattr(statistics.state, name) for name in names}
    new = {name: (*(np.array(row[:3]) + moved_m).tolist(), *row[3:]) for name, row in old.items()}
    return replace(statistics, state=replace(statistics.state, **new))


def _load_heads(stage: nn.Module, folder: Path) -> None:
    """The auxiliary heads that the stage before had too."""
    file = folder / HEADS_FILE
    heads = load_file(file) if file.exists() else {}
    for name, module in stage.named_children():
        own = {key.removeprefix(f"{name}."): value for key, value in heads.items() if key.startswith(f"{name}.")}
        if own:
            module.load_state_dict(own)
