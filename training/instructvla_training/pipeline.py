"""Everything that a checkpoint needs, in order: data, the stages before it, the stage itself."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructvla_model import checkpoint
from instructvla_model.manifest import MANIFEST_FILE, read_manifest
from instructvla_model.presets import preset

from .data import corrections, demonstrations, stills
from .data.record import Recorder, missing_shards, record
from .data.record import seconds as recording_seconds
from .parallel import processes
from .recipes import RECIPES, DataRecipe, StageRecipe
from .refusals import RunError
from .report import plot_log
from .run import HEADS_FILE
from .stages.run import run_stage
from .watch import require_wandb
from .workspace import Workspace, robot_of

logger = logging.getLogger(__name__)

STILLS_PER_SHARD = 500
SEEDS_APART = 500_000
"""Stills, demonstrations and corrections draw their scenes from seed ranges this far apart."""


def workspace_of(recipe_name: str, root: Path) -> Workspace:
    """Where a recipe works: one that starts from a finished checkpoint has data of its own."""
    recipe = RECIPES[recipe_name]()
    return Workspace(root, recipe.preset, recipe.run_name if recipe.start else "")


def record_data(what: str, space: Workspace, data: DataRecipe, workers: int, driver: Path | None = None) -> None:
    """Records what is missing of ``what``: stills, demonstrations, or what the demonstrator makes of episodes that the
    checkpoint ``driver`` (by default of the run "expert") has begun: corrections, rehearsal.

    Under torchrun nothing is recorded: raises FileNotFoundError where it should have been.
    """
    folder, shard, seeds = space.dataset(what), data.shard_episodes, data.first_seed
    recorder: Recorder
    if what == "stills":
        recorder, total, shard = stills.record_shard, data.stills, STILLS_PER_SHARD
    elif what == "demonstrations":
        recorder, total, seeds = demonstrations.record_shard, data.episodes, seeds + SEEDS_APART
    else:
        recorder = corrections.recorder((driver or space.checkpoint("expert")).resolve())
        total, seeds = data.corrections, seeds + 2 * SEEDS_APART
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = len(missing_shards(folder, total, shard, seeds))
        if missing:
            raise FileNotFoundError(
                f"found {missing} shards of {folder} missing, expected recorded data, since under torchrun none are "
                f"recorded; {_how_to_record(what, space)}"
            )
        return
    record(recorder, folder, total, shard, seeds, preset(space.preset), data, workers)


def _how_to_record(what: str, space: Workspace) -> str:
    """A variant's data are of its own robot, which ``data record`` does not know of."""
    if what in ("stills", "demonstrations") and not space.variant:
        return f"run first: instructvla-train data record {what}"
    return "give the same make command once without torchrun: it records them and goes on"


def _notes(space: Workspace, name: str) -> dict[str, Any] | None:
    """What the checkpoint of a run says of its training; None where there is none."""
    folder = space.checkpoint(name)
    return read_manifest(folder).training if (folder / MANIFEST_FILE).exists() else None


def trained_steps(space: Workspace, name: str) -> int:
    """Steps behind the checkpoint of a run; 0 where there is none, and for one that was not trained here."""
    return int((_notes(space, name) or {}).get("step", 0))


def finished(space: Workspace, name: str, steps: int | None = None) -> bool:
    """Whether a run's checkpoint was written at its recipe's last step, or at step ``steps`` (one is written at every
    save too), or was brought from elsewhere: imported weights note no recipe that they were trained by."""
    notes, recipe = _notes(space, name), RECIPES.get(f"{space.preset}-{name}")
    if recipe is None or (notes is not None and "recipe" not in notes):
        return notes is not None
    return trained_steps(space, name) >= (steps or recipe().optimisation.steps)


def make(
    recipe_name: str, space: Workspace, device: str, threads: int, steps: int | None = None,
    wandb_project: str | None = None,
) -> Path:  # fmt: skip
    """The checkpoint of a recipe, made with all that it rests on; what exists already is used -> its folder."""
    if wandb_project is not None:
        require_wandb()
    with processes(device):
        folder = _make(recipe_name, space, device, threads, steps, wandb_project)
    for what, seconds in durations(recipe_name, space).items():
        logger.info("%-20s %s", what, "not noted" if seconds is None else f"{seconds / 60:.0f} min")
    return folder


def durations(recipe_name: str, space: Workspace) -> dict[str, float | None]:
    """Data and runs that a recipe rests on, in order, and the recipe -> seconds that each took; None: not noted."""
    recipe = RECIPES[recipe_name]()
    found: dict[str, float | None] = {}
    if recipe.after is not None and f"{recipe.preset}-{recipe.after}" in RECIPES:
        found |= durations(f"{recipe.preset}-{recipe.after}", space)
    data = [name for name, _ in recipe.datasets] if recipe.stage != "base" else []
    for name in ["stills", *data, *(["rehearsal"] if recipe.rehearsal else [])]:
        if space.dataset(name).exists():
            found[name] = recording_seconds(space.dataset(name))
    notes = _notes(space, recipe.run_name)
    return found | {recipe_name: notes.get("seconds") if notes is not None else None}


def _make(
    recipe_name: str, space: Workspace, device: str, threads: int, steps: int | None, wandb_project: str | None
) -> Path:
    recipe = RECIPES[recipe_name]()
    if finished(space, recipe.run_name, steps):
        logger.info("%s is made already", recipe_name)
        return space.checkpoint(recipe.run_name)
    before = recipe.after
    if before is not None and not finished(space, before):
        if f"{recipe.preset}-{before}" not in RECIPES:
            raise FileNotFoundError(
                f"found no {space.checkpoint(before)}, expected pre-trained weights that {recipe_name} starts from; "
                "import them there (instructvla checkpoint import): see docs/how-to/released-checkpoints.md"
            )
        _make(f"{recipe.preset}-{before}", space, device, threads, None, wandb_project)
    if recipe.stage == "base" or recipe.still_groups:
        record_data("stills", space, recipe.data, threads)
    if recipe.stage != "base" and "demonstrations" in dict(recipe.datasets):
        record_data("demonstrations", space, recipe.data, threads)
    if recipe.rehearsal:
        start = space.root / recipe.start
        data = replace(recipe.data, robot=robot_of(read_manifest(start)), corrections=recipe.rehearsal)
        record_data("rehearsal", space, data, threads, start)
    if steps is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, steps=steps))
    logger.info("training %s", recipe_name)
    _refuse_corrections_of_another_run(recipe, space)
    rounds = [step for step in recipe.corrections_at if step < recipe.optimisation.steps]
    for number, step in enumerate(rounds, 1):
        if trained_steps(space, recipe.run_name) < step:
            run_stage(recipe, space, device, threads, until=step, wandb_project=wandb_project)
        so_far = replace(recipe.data, corrections=recipe.data.corrections * number // len(recipe.corrections_at))
        record_data("corrections", space, so_far, threads)
    return run_stage(recipe, space, device, threads, wandb_project=wandb_project)


def _refuse_corrections_of_another_run(recipe: StageRecipe, space: Workspace) -> None:
    if recipe.corrections_at and not space.run(recipe.run_name).exists() and any(space.corrections.glob("shard-*")):
        raise RunError(
            f"found corrections in {space.corrections} before the run {space.run(recipe.run_name)} began, expected to "
            f"record them at the steps {list(recipe.corrections_at)} of its own driving; delete that folder"
        )


def ship(space: Workspace, folder: Path, names: Sequence[str]) -> list[Path]:
    """Copies the finished checkpoints of the recipes ``names``, stored as bfloat16, with auxiliary heads, log and loss
    curves -> their new folders. Raises RunError for a name that is no recipe of the preset, and where none is finished.
    """
    known = [name for name, make_recipe in RECIPES.items() if make_recipe().preset == space.preset]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RunError(f"found {', '.join(unknown)}, expected recipes of {', '.join(known)}; correct the name")
    shipped = []
    for name in names:
        recipe = RECIPES[name]()
        if not finished(space, recipe.run_name):
            logger.warning("no finished %s checkpoint", name)
            continue
        policy, tokenizer, manifest = checkpoint.load_policy(space.checkpoint(recipe.run_name))
        target = folder / name
        checkpoint.save(target, policy, tokenizer, manifest, dtype="bfloat16")
        shutil.copy(space.run(recipe.run_name) / HEADS_FILE, target / HEADS_FILE)
        shutil.copy(space.run(recipe.run_name) / "log.jsonl", target / "training_log.jsonl")
        plot_log(space.run(recipe.run_name), target / "training_losses.png", name)
        shipped.append(target)
    if not shipped:
        raise RunError(
            f"found no finished checkpoint of {', '.join(names)} in {space.root / 'runs'}, expected one at least; make "
            f"it: instructvla-train make {names[0]}"
        )
    return shipped
