"""Fine-tuning a checkpoint on recorded datasets: checks, statistics, training, checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from instructvla_model import checkpoint
from instructvla_model.config import ConfigError
from instructvla_model.manifest import Manifest
from instructvla_model.trainable import check_adapters
from instructvla_ros.robots import arms

from . import recipes
from .data.episode_frames import Part
from .data.formats.episode import DataError, EpisodeDataset
from .data.formats.llava import LlavaDataset
from .data.formats.opening import Reading, open_dataset
from .data.lint import lint, lint_text, refuse_errors
from .data.pooling import pool
from .data.survey import survey
from .lock import check_free
from .parallel import Processes, processes, use_threads
from .recipes import StageRecipe
from .run import Prepared, place, train
from .stages.episode_text import EpisodePrompter
from .stages.recorded import recorded_stage
from .watch import require_wandb
from .workspace import builder_for, check_layout

logger = logging.getLogger(__name__)

MOVES = "expert"
"""What moves: the action adapter, the query rows and the expert. The language adapter keeps what it knows."""

FILES = ("datasets", "statistics", "annotations", "conversations")
"""Of what a run is of: all that goes with the files of its data."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """``datasets``: folder and weight. ``keep_statistics``: normalise as the checkpoint does, not by the new data.
    ``multimodal_images``: where their image paths start from, if not beside the file.
    ``parts``: of a step, computed one after the other or shared out among the processes. ``robot``: whose episodes they
    are, where neither the data nor the checkpoint says so, or says wrong. ``cache_images``: compute the image tokens of
    the frozen tower once for all frames, which then are those of pictures without augmentation. ``mended``: go on
    with a run although files of its datasets have changed since it began."""

    base: Path
    datasets: Sequence[tuple[Path, float]]
    reading: Reading
    run_dir: Path
    steps: int = 2_000
    learning_rate: float | None = None
    multimodal: Path | None = None
    multimodal_images: Path | None = None
    multimodal_ratio: float = recipes.MULTIMODAL_RATIO
    keep_statistics: bool = False
    parts: int = 1
    robot: str | None = None
    cache_images: bool = False
    mended: bool = False


def finetune(request: Request, device: str, threads: int, wandb_project: str | None = None) -> Path:
    """Trains and writes checkpoints into the run folder -> the last one; the same call goes on where it was stopped.

    Raises DataError where the linter finds errors in the data, or the datasets do not go together, and RunError where
    the run folder holds a run of something else.
    """
    use_threads(threads)
    if wandb_project is not None:
        require_wandb()
    with processes(device) as group:
        if group.is_first:
            check_free(request.run_dir)
        prepared, recipe = prepare(request, group)
        place(prepared, recipe, group)
        if request.mended:
            prepared = replace(prepared, may_differ=FILES)
        return train(prepared, recipe, request.run_dir, group, wandb_project=wandb_project)


def prepare(request: Request, group: Processes) -> tuple[Prepared, StageRecipe]:
    """The checked data and the policy of the checkpoint on it, drawing one part of a step; and the whole recipe."""
    policy, tokenizer, manifest = checkpoint.load_policy(request.base)
    if policy.stage == "base":
        raise DataError(
            f"{request.base}: found a checkpoint of stage base, expected one that acts: expert or generalist"
        )
    try:
        check_adapters(policy, MOVES)  # before the data are looked through
    except ConfigError as error:
        raise DataError(f"{request.base}: {error}") from error
    parts = _parts(request, manifest, group)
    robots = [_robot(request, part.dataset, manifest) for part in parts]
    if request.keep_statistics:
        if manifest.statistics is None:
            raise DataError(f"{request.base}: found no statistics to keep, expected some; leave --keep-statistics out")
        parts = [replace(part, survey=replace(part.survey, statistics=manifest.statistics)) for part in parts]
    else:
        parts = pool(parts, robots)
    policy.config = replace(policy.config, dt_s=parts[0].dataset.dt_s)
    conversations = LlavaDataset(request.multimodal, request.multimodal_images) if request.multimodal else None
    if conversations is not None:
        prompt = EpisodePrompter(builder_for(policy, tokenizer)).conversation
        refuse_errors(conversations.path, lint_text(conversations, group.rank, group.count, prompt))
    recipe = _recipe(request, manifest.preset, policy.stage)
    torch.manual_seed(recipe.optimisation.seed)
    one_part = recipe.part(recipe.parts_for(group.count))
    return recorded_stage(one_part, policy, tokenizer, parts, conversations, manifest, group, MOVES, robots[0]), recipe


def _recipe(request: Request, preset: str, stage: str) -> StageRecipe:
    ratio = request.multimodal_ratio if request.multimodal else 0.0
    recipe = recipes.finetune(preset, stage, request.steps, ratio)
    rate = request.learning_rate or recipe.optimisation.learning_rate
    return replace(
        recipe, parts=request.parts, cache_images=request.cache_images,
        optimisation=replace(recipe.optimisation, learning_rate=rate),
    )  # fmt: skip


def _robot(request: Request, dataset: EpisodeDataset, manifest: Manifest) -> str:
    """Whose episodes they are: as asked, else as the data says, else the checkpoint's.

    A graph compares the name with its arm's before anything moves: what the data calls an arm that nobody has is
    refused here already; one that was asked for may be an arm of elsewhere, and is warned of.
    """
    own, known, say_so = dataset.robot, arms(), "say whose episodes these are: --robot NAME"
    if request.robot and request.robot not in known:
        logger.warning("no arm here is called %s, only %s: no graph of these will run the checkpoint",
                       request.robot, ", ".join(known))  # fmt: skip
    if request.robot or own in known:
        return request.robot or own
    if own:
        raise DataError(f"{dataset.root}: found robot_type {own!r}, expected one of {', '.join(known)}; {say_so}")
    before = str(manifest.training.get("robot", ""))
    if not before:
        raise DataError(
            f"{request.base} and {dataset.root} name no robot, expected one; {say_so}, for instance one of "
            f"{', '.join(known)}"
        )
    logger.warning("%s names no robot, taken for the checkpoint's, %s; if it is not, %s", dataset.root, before, say_so)
    return before


def _parts(request: Request, manifest: Manifest, group: Processes) -> list[Part]:
    """Datasets that the linter, in the first process, lets pass, with their surveys; all have one rate and states that
    the policy knows."""
    parts: list[Part] = []
    for path, weight in request.datasets:
        dataset = open_dataset(path, request.reading)
        dt_s = parts[0].dataset.dt_s if parts else dataset.dt_s
        check_layout(manifest, dataset)
        if group.is_first:
            refuse_errors(path, lint(dataset, dt_s=dt_s, image_episodes=len(dataset)))
        parts.append(Part(dataset, group.first_on_node(partial(survey, dataset)), weight))
    return parts
