"""Fine-tuning a checkpoint on recorded datasets: checks, statistics, training, checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from instructvla_model import checkpoint
from instructvla_model.config import ConfigError, PolicyConfig
from instructvla_model.manifest import Manifest
from instructvla_model.trainable import check_adapters
from instructvla_sim.robots import ROBOTS

from . import recipes
from .data.episode_frames import Part
from .data.formats.episode import DataError
from .data.formats.llava import LlavaDataset
from .data.formats.opening import Reading, open_dataset
from .data.lint import Finding, lint, lint_text
from .data.survey import survey
from .parallel import Processes, processes, use_threads
from .recipes import StageRecipe
from .run import Prepared, place, train
from .stages.recorded import recorded_stage
from .workspace import check_layout

logger = logging.getLogger(__name__)

TOKENS_BYTES = 2**30
"""Image tokens of the frozen tower are computed once where those of all frames fit into so much memory."""
MOVES = "expert"
"""What moves: the action adapter, the query rows and the expert. The language adapter keeps what it knows."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """``datasets``: folder and weight. ``keep_statistics``: normalise as the checkpoint does, not by the new data.
    ``parts``: of a step, computed one after the other or shared out among the processes. ``robot``: whose episodes they
    are, where neither the data nor the checkpoint says so, or says wrong."""

    base: Path
    datasets: Sequence[tuple[Path, float]]
    reading: Reading
    run_dir: Path
    steps: int = 2_000
    learning_rate: float | None = None
    multimodal: Path | None = None
    multimodal_ratio: float = recipes.MULTIMODAL_RATIO
    keep_statistics: bool = False
    parts: int = 1
    robot: str | None = None


def finetune(request: Request, device: str, threads: int, wandb_project: str | None = None) -> Path:
    """Trains and writes checkpoints into the run folder -> the last one; the same call goes on where it was stopped.

    Raises DataError where the linter finds errors in the data, or the datasets do not go together, and RunError where
    the run folder holds a run of something else.
    """
    use_threads(threads)
    with processes(device) as group:
        prepared, recipe = prepare(request, group)
        place(prepared, recipe, group)
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
    parts = _parts(request, manifest)
    robot = _robot(request, parts[0], manifest)
    if request.keep_statistics:
        if manifest.statistics is None:
            raise DataError(f"{request.base}: found no statistics to keep, expected some; leave --keep-statistics out")
        parts = [replace(part, survey=replace(part.survey, statistics=manifest.statistics)) for part in parts]
    policy.config = replace(policy.config, dt_s=parts[0].dataset.dt_s)
    conversations = LlavaDataset(request.multimodal) if request.multimodal else None
    if conversations is not None:
        _refuse_errors(conversations.path, lint_text(conversations))
    frames = sum(part.survey.n_steps for part in parts) + (len(conversations) if conversations is not None else 0)
    recipe = _recipe(request, manifest.preset, policy.stage, frames * _token_bytes(policy.config))
    torch.manual_seed(recipe.optimisation.seed)
    one_part = recipe.part(recipe.parts_for(group.count))
    return recorded_stage(one_part, policy, tokenizer, parts, conversations, manifest, MOVES, robot), recipe


def _recipe(request: Request, preset: str, stage: str, tokens_bytes: int) -> StageRecipe:
    ratio = request.multimodal_ratio if request.multimodal else 0.0
    recipe = recipes.finetune(preset, stage, request.steps, ratio)
    rate = request.learning_rate or recipe.optimisation.learning_rate
    return replace(
        recipe, parts=request.parts, cache_images=tokens_bytes <= TOKENS_BYTES,
        optimisation=replace(recipe.optimisation, learning_rate=rate),
    )  # fmt: skip


def _token_bytes(config: PolicyConfig) -> int:
    """Of one frame's image tokens, in bfloat16."""
    return config.vision.tokens_per_image * config.language.hidden_size * 2


def _robot(request: Request, first: Part, manifest: Manifest) -> str:
    """Whose episodes they are: as asked, as the data says if that robot is known here, else the checkpoint's."""
    own = first.dataset.robot if first.dataset.robot in ROBOTS else ""
    found = request.robot or own or manifest.training.get("robot")
    if not found:
        raise DataError(
            f"{request.base} and {first.dataset.root} name no robot, expected whose episodes these are; "
            f"say so: --robot NAME, for instance one of {', '.join(ROBOTS)}"
        )
    return str(found)


def _parts(request: Request, manifest: Manifest) -> list[Part]:
    """Datasets that the linter lets pass, with their surveys; all have one rate and states that the policy knows."""
    parts: list[Part] = []
    for path, weight in request.datasets:
        dataset = open_dataset(path, request.reading)
        dt_s = parts[0].dataset.dt_s if parts else dataset.dt_s
        check_layout(manifest, dataset)
        _refuse_errors(path, lint(dataset, dt_s=dt_s))
        parts.append(Part(dataset, survey(dataset), weight))
    return parts


def _refuse_errors(path: Path, findings: Sequence[Finding]) -> None:
    """Warnings are logged."""
    errors = [finding for finding in findings if finding.error]
    if errors:
        raise DataError("\n".join([f"{path}: {len(errors)} errors, expected none:", *map(str, errors)]))
    for finding in findings:
        logger.warning("%s: %s", path, finding)
