"""Everything that a checkpoint needs, in order: data, the stages before it, the stage itself."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from instructvla_model import checkpoint
from instructvla_model.manifest import MANIFEST_FILE, read_manifest
from instructvla_model.presets import preset

from .data import corrections, demonstrations, stills
from .data.record import record
from .recipes import RECIPES, DataRecipe
from .report import plot_log
from .stages.run import HEADS_FILE, PREVIOUS, run_stage
from .workspace import Workspace

logger = logging.getLogger(__name__)

STILLS_PER_SHARD = 500
SEEDS_APART = 500_000
"""Stills, demonstrations and corrections draw their scenes from seed ranges this far apart."""


def workspace_of(recipe_name: str, root: Path) -> Workspace:
    """Where a recipe works: one that starts from a finished checkpoint has folders of its own."""
    recipe = RECIPES[recipe_name]()
    variant = recipe_name.removeprefix(f"{recipe.preset}-") if recipe.start else ""
    return Workspace(root, recipe.preset, variant)


def record_data(what: str, space: Workspace, data: DataRecipe, workers: int) -> None:
    """Records what is missing of ``what``: stills, demonstrations or corrections."""
    config = preset(space.preset)
    first, shard = data.first_seed, data.shard_episodes
    if what == "stills":
        record(stills.record_shard, space.stills, data.stills, STILLS_PER_SHARD, first, config, data, workers)
    elif what == "demonstrations":
        recorder = demonstrations.record_shard
        record(recorder, space.demonstrations, data.episodes, shard, first + SEEDS_APART, config, data, workers)
    else:
        recorder = corrections.recorder(space.checkpoint("expert").resolve())
        record(recorder, space.corrections, data.corrections, shard, first + 2 * SEEDS_APART, config, data, workers)


def finished(space: Workspace, stage: str) -> bool:
    """Whether the stage's checkpoint was written at the recipe's last step; one is written at every save too."""
    return trained_steps(space, stage) >= RECIPES[space.recipe(stage)]().optimisation.steps


def trained_steps(space: Workspace, stage: str) -> int:
    """Steps behind the stage's checkpoint; 0 where there is none."""
    folder = space.checkpoint(stage)
    return int(read_manifest(folder).training.get("step", 0)) if (folder / MANIFEST_FILE).exists() else 0


def make(recipe_name: str, space: Workspace, device: str, threads: int, steps: int | None = None) -> Path:
    """The checkpoint of a recipe, made with all that it rests on; what exists already is used -> its folder."""
    recipe = RECIPES[recipe_name]()
    before = None if recipe.start else PREVIOUS.get(recipe.stage)
    if before is not None and not finished(space, before):
        make(f"{recipe.preset}-{before}", space, device, threads)
    record_data("stills", space, recipe.data, threads)
    if recipe.stage != "base":
        record_data("demonstrations", space, recipe.data, threads)
    if steps is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, steps=steps))
    logger.info("training %s", recipe_name)
    first_part = recipe.corrections_at
    if first_part is not None and first_part < recipe.optimisation.steps:
        if trained_steps(space, recipe.stage) < first_part:
            run_stage(recipe, space, device, threads, until=first_part)
        record_data("corrections", space, recipe.data, threads)
    return run_stage(recipe, space, device, threads)


def ship(space: Workspace, folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Copies the checkpoints of the recipes ``names`` (all, where none is named), stored as bfloat16, with auxiliary
    heads, log and loss curves -> their new folders."""
    shipped = []
    for name, recipe in ((name, make_recipe()) for name, make_recipe in RECIPES.items()):
        if recipe.preset != space.preset or (names and name not in names):
            continue
        stage, space = recipe.stage, workspace_of(name, space.root)
        if not finished(space, stage):
            logger.info("no finished %s checkpoint", name)
            continue
        policy, tokenizer, manifest = checkpoint.load_policy(space.checkpoint(stage))
        target = folder / name
        checkpoint.save(target, policy, tokenizer, manifest, dtype="bfloat16")
        shutil.copy(space.run(stage) / HEADS_FILE, target / HEADS_FILE)
        shutil.copy(space.run(stage) / "log.jsonl", target / "training_log.jsonl")
        plot_log(space.run(stage), target / "training_losses.png", name)
        shipped.append(target)
    return shipped
