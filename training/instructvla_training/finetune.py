"""Fine-tuning a checkpoint on recorded datasets: checks, statistics, training, checkpoint."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from instructvla_model import checkpoint
from instructvla_model.image import recipe as image_recipe
from instructvla_model.manifest import new_manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import PolicyTokenizer

from . import recipes
from .data.episode_frames import EpisodeFrames, Part
from .data.formats.episode import DataError
from .data.formats.llava import LlavaDataset
from .data.formats.opening import Reading, open_dataset
from .data.lint import lint
from .data.survey import STATISTICS_FILE, survey, write_published
from .report import plot_log
from .stages.episode_text import EpisodePrompter
from .stages.episodes import EpisodeStage
from .trainer import Trainer
from .workspace import builder_for

logger = logging.getLogger(__name__)

TOKENS_BYTES = 2**30
"""Image tokens of the frozen tower are computed once where those of all frames fit into so much memory."""
MOVES = "expert"
"""What moves: the action adapter, the query rows and the expert. The language adapter keeps what it knows."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """``datasets``: folder and weight. ``keep_statistics``: normalise as the checkpoint does, not by the new data."""

    base: Path
    datasets: Sequence[tuple[Path, float]]
    reading: Reading
    run_dir: Path
    steps: int = 2_000
    learning_rate: float | None = None
    multimodal: Path | None = None
    multimodal_ratio: float = recipes.MULTIMODAL_RATIO
    keep_statistics: bool = False


def finetune(request: Request, device: str, threads: int) -> Path:
    """Trains and writes checkpoints into the run folder -> the last one; the same call goes on where it was stopped.

    Raises DataError where the linter finds errors in the data, or the datasets do not go together.
    """
    torch.set_num_threads(threads)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    stage, tokenizer = prepare(request)
    stage.trainable()
    stage.to(chosen)
    config = stage.policy.config
    tokens_bytes = len(stage.frames) * config.vision.tokens_per_image * config.language.hidden_size * 2
    if tokens_bytes <= TOKENS_BYTES:
        stage.encode_frames(chosen, lambda done, total: None)
    trainer = Trainer(stage, stage.recipe.optimisation, request.run_dir, chosen)
    trainer.resume()
    folder = request.run_dir / "checkpoint"

    def write(step: int) -> None:
        with trainer.averaged():
            _write(stage, tokenizer, folder, step, trainer.seconds)

    trainer.run(stage.make_batch, stage.losses, on_save=write)
    if not folder.exists():
        write(trainer.step)
    plot_log(request.run_dir, request.run_dir / "losses.png", request.run_dir.name)
    return folder


def prepare(request: Request) -> tuple[EpisodeStage, PolicyTokenizer]:
    """The checked data, and the policy of the checkpoint on it."""
    policy, tokenizer, manifest = checkpoint.load_policy(request.base)
    if policy.stage == "base":
        raise DataError(
            f"{request.base}: found a checkpoint of stage base, expected one that acts: expert or generalist"
        )
    parts = _parts(request)
    if request.keep_statistics:
        if manifest.statistics is None:
            raise DataError(f"{request.base}: found no statistics to keep, expected some; leave --keep-statistics out")
        parts = [replace(part, survey=replace(part.survey, statistics=manifest.statistics)) for part in parts]
    policy.config = config = replace(policy.config, dt_s=parts[0].dataset.dt_s)
    conversations = LlavaDataset(request.multimodal) if request.multimodal else None
    ratio = request.multimodal_ratio if conversations is not None else 0.0
    recipe = recipes.finetune(manifest.preset, policy.stage, request.steps, ratio)
    if request.learning_rate is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, learning_rate=request.learning_rate))
    data = EpisodeFrames(
        parts, conversations, config.views, image_recipe(config.expert_recipe, config.film.image_size),
        image_recipe(config.vlm_recipe, config.vision.image_size),
    )  # fmt: skip
    torch.manual_seed(recipe.optimisation.seed)
    return EpisodeStage(policy, EpisodePrompter(builder_for(policy, tokenizer)), data, recipe, MOVES), tokenizer


def _parts(request: Request) -> list[Part]:
    """Datasets that the linter lets pass, with their surveys; all have one rate."""
    parts: list[Part] = []
    for path, weight in request.datasets:
        dataset = open_dataset(path, request.reading)
        dt_s = parts[0].dataset.dt_s if parts else dataset.dt_s
        errors = [finding for finding in lint(dataset, dt_s=dt_s) if finding.error]
        if errors:
            raise DataError("\n".join([f"{path}: {len(errors)} errors, expected none:", *map(str, errors)]))
        parts.append(Part(dataset, survey(dataset), weight))
    return parts


def _write(stage: EpisodeStage, tokenizer: PolicyTokenizer, folder: Path, step: int, seconds: float) -> None:
    """A new checkpoint in place of the one before; a kill leaves one of them."""
    policy: InstructVLA = stage.policy
    surveys = [part.survey for part in stage.data.parts]
    notes = {
        "recipe": f"{policy.config.name}-finetune", "step": step, "seconds": round(seconds),
        "datasets": {made.name: made.fingerprint for made in surveys}, "shares": stage.data.shares,
    }  # fmt: skip
    partial, previous = folder.with_suffix(".partial"), folder.with_suffix(".previous")
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint.save(partial, policy, tokenizer, new_manifest(policy.config, policy.stage, surveys[0].statistics, notes))
    write_published(partial / STATISTICS_FILE, surveys)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)
    logger.info("wrote %s at step %d", folder, step)
