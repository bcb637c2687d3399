"""One run: a prepared stage trained to its checkpoint, in one process or many, however often it is stopped."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from instructvla_model import checkpoint
from instructvla_model.manifest import MANIFEST_FILE, new_manifest, read_manifest
from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import PolicyTokenizer

from . import state
from .compiled import compile_layers
from .lock import only_run
from .number_type import number_type
from .parallel import Processes, shard, whole_state
from .recipes import StageRecipe
from .refusals import RunError
from .report import write_about, write_report
from .samples import TrainedStage, write_samples
from .trainer import Trainer
from .watch import Watch

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 16
"""On a processor: less memory goes through a layer at a time, and rows of like length waste less on padding."""

HEADS_FILE = "heads.safetensors"
"""The auxiliary heads of training, beside the checkpoint; the next stage goes on with them."""


@dataclass(frozen=True)
class Prepared:
    """A stage ready to train, and what its checkpoint needs beside the weights."""

    stage: TrainedStage
    tokenizer: PolicyTokenizer
    statistics: Statistics | None
    notes: Mapping[str, Any] = field(default_factory=dict)  # for the manifest
    add_files: Callable[[Path], None] = lambda folder: None  # to the checkpoint folder, before it gets its name
    of: Mapping[str, Any] = field(default_factory=dict)  # what a run must be of to be gone on with
    may_differ: Sequence[str] = ()  # of these things


def place(prepared: Prepared, recipe: StageRecipe, group: Processes) -> None:
    """Brings the stage to its device, with what is frozen encoded and what is trained sharded."""
    stage = prepared.stage
    stage.trainable()
    stage.to(group.device)
    if recipe.stage != "base" and recipe.cache_images:
        stage.encode_frames(group.device)
    if group.device.type == "cpu" and group.count == 1:  # sharded processes must come to each layer equally often
        stage.rows_at_once = ROWS_AT_ONCE
    if recipe.optimisation.checkpoint_activations:
        stage.policy.vlm.language_model.activation_checkpointing_enable()
    if recipe.optimisation.compile_layers and group.count == 1:
        compile_layers(stage.policy, group.device)
    in_bfloat16 = number_type(group.device, recipe.optimisation.autocast) == "bfloat16"  # else nothing would cast to it
    shard(stage, group, recipe.optimisation.gather if in_bfloat16 else "float32")


def train(
    prepared: Prepared, recipe: StageRecipe, run_dir: Path, group: Processes, until: int | None = None,
    wandb_project: str | None = None,
) -> Path:  # fmt: skip
    """Trains the placed stage (up to step ``until``) -> its checkpoint folder; log, samples and report lie beside it.

    Every process of the group must call. Raises RunError where a checkpoint would be lost, another run is at work in
    the folder, or the one that was stopped there is of something else.
    """
    with only_run(run_dir) if group.is_first else nullcontext():
        return _train(prepared, recipe, run_dir, group, until, wandb_project)


def _train(
    prepared: Prepared, recipe: StageRecipe, run_dir: Path, group: Processes, until: int | None,
    wandb_project: str | None,
) -> Path:  # fmt: skip
    folder = run_dir / "checkpoint"
    if group.is_first:
        _restore(folder)
    group.wait()
    parts = recipe.parts_for(group.count)
    watch = Watch(run_dir, recipe.optimisation.steps, shown=group.is_first, wandb_project=wandb_project)
    trainer = Trainer(prepared.stage, recipe.optimisation, run_dir, group, parts, watch, prepared.of)
    if folder.exists() and state.newest(trainer.state_dir) is None:
        raise RunError(
            f"{folder}: found a checkpoint without the state to go on from, expected both or neither; "
            "move it away, or name another run folder"
        )
    trainer.resume(prepared.may_differ)
    if group.is_first:
        write_about(run_dir, recipe, group.count, parts)

    def write(step: int) -> None:
        _write_checkpoint(prepared, recipe, trainer, folder, step)
        if group.is_first:
            write_samples(folder, prepared.stage, watch, step, group.device)
        group.wait()

    trainer.run(on_save=write, until=until)
    if written_step(folder) != trainer.step:  # a kill or a full disk after the state's save and before the checkpoint's
        write(trainer.step)
    if group.is_first:
        write_report(run_dir)
    return folder


def written_step(folder: Path) -> int | None:
    """The step that a checkpoint was written at; None where there is none."""
    if not (folder / MANIFEST_FILE).exists():
        return None
    return int(read_manifest(folder).training.get("step", 0))


def _write_checkpoint(prepared: Prepared, recipe: StageRecipe, trainer: Trainer, folder: Path, step: int) -> None:
    """Writes the averaged weights as a checkpoint. A kill leaves the one before."""
    stage = prepared.stage
    with trainer.averaged():
        weights = whole_state(stage, trainer.group)
    if not trainer.group.is_first:
        return
    notes = {"recipe": f"{recipe.preset}-{recipe.run_name}", "step": step, "seconds": round(trainer.seconds)}
    notes |= prepared.notes
    policy = _unsharded(stage.policy, weights)
    partial, previous = folder.with_suffix(".partial"), folder.with_suffix(".previous")
    shutil.rmtree(partial, ignore_errors=True)
    manifest = new_manifest(policy.config, recipe.stage, prepared.statistics, notes)
    checkpoint.save(partial, policy, prepared.tokenizer, manifest)
    prepared.add_files(partial)
    state.to_disk(partial)
    heads = {name: value.contiguous() for name, value in weights.items() if not name.startswith("policy.")}
    partial_heads = folder.parent / f"{HEADS_FILE}.partial"
    save_file(heads, partial_heads)
    state.sync(partial_heads)
    os.replace(partial_heads, folder.parent / HEADS_FILE)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    state.sync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)
    logger.info("wrote %s: %s", folder, json.dumps(notes))


def _restore(folder: Path) -> None:
    """Takes the checkpoint back that a kill has caught between two names."""
    previous = folder.with_suffix(".previous")
    if previous.exists() and not folder.exists():
        os.replace(previous, folder)


def _unsharded(policy: InstructVLA, weights: dict[str, Tensor]) -> InstructVLA:
    """A plain policy on the CPU that holds the stage's whole ``weights``."""
    with torch.device("meta"):
        plain = InstructVLA(policy.config, policy.vlm.image_token_id, policy.stage)
    own = {name.removeprefix("policy."): value for name, value in weights.items() if name.startswith("policy.")}
    plain.load_state_dict(own, assign=True)
    plain.vlm.finish_loading("cpu")
    return plain
