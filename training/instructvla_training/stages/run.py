"""One stage from start (or from where it was stopped) to its checkpoint."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from instructvla_model import checkpoint
from instructvla_model.manifest import new_manifest
from instructvla_model.normalization import Statistics, compute
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import TOKENIZER_FILE, PolicyTokenizer, load_tokenizer
from instructvla_sim.robots import robot_spec
from instructvla_training.data.shards import Frames, read_frames
from instructvla_training.recipes import StageRecipe
from instructvla_training.report import plot_log
from instructvla_training.trainer import Trainer
from instructvla_training.workspace import Workspace, builder_for, new_policy, new_tokenizer, robot_of

from .action import ActionStage
from .base import BaseStage
from .text import Prompter

logger = logging.getLogger(__name__)

PREVIOUS = {"expert": "base", "generalist": "expert"}
HEADS_FILE = "heads.safetensors"
"""The auxiliary heads of training, beside the checkpoint; the next stage goes on with them."""
SPAN_FLOOR_ACTION = (0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.0)
"""Metres and radians: a dimension that hardly moves must not have its tremble blown up to full scale."""
SPAN_FLOOR_STATE = (0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.0, 0.1)


def run_stage(recipe: StageRecipe, space: Workspace, device: str, threads: int, until: int | None = None) -> Path:
    """Trains ``recipe`` (up to step ``until``) -> its checkpoint folder; log and picture of the log lie beside it.

    Raises FileNotFoundError where the stage before or the data is missing.
    """
    torch.set_num_threads(threads)
    chosen = (
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device == "auto"
        else torch.device(device)
    )
    run_dir = space.run(recipe.stage)
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.optimisation.seed)
    if recipe.stage == "base":
        stage, tokenizer, statistics = _base_stage(recipe, space)
    else:
        stage, tokenizer, statistics = _action_stage(recipe, space)
    stage.trainable()
    stage.to(chosen)
    if isinstance(stage, ActionStage):
        stage.encode_frames(chosen, lambda done, total: None)
    trainer = Trainer(stage, recipe.optimisation, run_dir, chosen)
    trainer.resume()

    def write(step: int) -> None:
        with trainer.averaged():
            _write_checkpoint(stage, tokenizer, statistics, recipe, space, step, trainer.seconds)

    trainer.run(stage.make_batch, stage.losses, on_save=write, until=until)
    if not space.checkpoint(recipe.stage).exists():
        write(trainer.step)
    plot_log(run_dir, run_dir / "losses.png", run_dir.name)
    return space.checkpoint(recipe.stage)


def _base_stage(recipe: StageRecipe, space: Workspace) -> tuple[BaseStage, PolicyTokenizer, None]:
    file = space.run("base") / TOKENIZER_FILE
    if not file.exists():
        new_tokenizer(recipe.preset).save(file.parent)
    tokenizer = load_tokenizer(file)
    policy = new_policy(recipe.preset, tokenizer)
    prompter = Prompter(builder_for(policy, tokenizer))
    return BaseStage(policy, prompter, read_frames([space.stills]), recipe), tokenizer, None


def _action_stage(recipe: StageRecipe, space: Workspace) -> tuple[ActionStage, PolicyTokenizer, Statistics]:
    previous = space.root / recipe.start if recipe.start else space.checkpoint(PREVIOUS[recipe.stage])
    policy, tokenizer, manifest = checkpoint.load_policy(previous)
    policy.set_stage(recipe.stage)
    folders = [space.demonstrations] + ([space.corrections] if space.corrections.exists() else [])
    statistics = manifest.statistics or action_statistics(read_frames([space.demonstrations]))
    if recipe.start:  # another arm: the same units, seen from another base
        moved = np.subtract(robot_spec(robot_of(manifest)).base_m, robot_spec(recipe.data.robot).base_m)
        statistics = seen_from(statistics, moved)
    frames = read_frames(folders + ([space.stills] if recipe.still_groups else []))
    stage = ActionStage(policy, Prompter(builder_for(policy, tokenizer)), frames, recipe, statistics)
    heads = load_file((previous if recipe.start else previous.parent) / HEADS_FILE)
    for name in ("vlm_pointing", "location"):
        own = {key.removeprefix(f"{name}."): value for key, value in heads.items() if key.startswith(f"{name}.")}
        if own:
            getattr(stage, name).load_state_dict(own)
    return stage, tokenizer, statistics


def action_statistics(frames: Frames) -> Statistics:
    """Normalisation of the recorded actions and states; the gripper stays an opening of 0..1."""
    action = compute(frames.action, mask=[True] * 6 + [False], span_floor=SPAN_FLOOR_ACTION)
    return Statistics(action, compute(frames.state, span_floor=SPAN_FLOOR_STATE))


def seen_from(statistics: Statistics, moved_m: np.ndarray) -> Statistics:
    """The statistics of the same states when the base stands ``moved_m`` (3,) further back: a place on the bench keeps
    its normalised state, so what was learnt of it still holds."""
    if statistics.state is None:
        return statistics
    names = ("q01", "q99", "min", "max", "mean")
    old = {name: getattr(statistics.state, name) for name in names}
    new = {name: (*(np.array(row[:3]) + moved_m).tolist(), *row[3:]) for name, row in old.items()}
    return replace(statistics, state=replace(statistics.state, **new))


def _write_checkpoint(
    stage: BaseStage | ActionStage, tokenizer: PolicyTokenizer, statistics: Statistics | None, recipe: StageRecipe,
    space: Workspace, step: int, seconds: float,
) -> None:  # fmt: skip
    policy: InstructVLA = stage.policy
    notes = {
        "recipe": space.recipe(recipe.stage), "robot": recipe.data.robot, "step": step, "seconds": round(seconds),
        "episodes": len(stage.frames.episodes), "frames": len(stage.frames),
    }  # fmt: skip
    manifest = new_manifest(policy.config, recipe.stage, statistics, notes)
    folder = space.checkpoint(recipe.stage)
    checkpoint.save(folder, policy, tokenizer, manifest)
    heads = {k: v.contiguous() for k, v in stage.state_dict().items() if not k.startswith("policy.")}
    save_file(heads, folder.parent / HEADS_FILE)
    logger.info("wrote %s: %s", folder, json.dumps(notes))
