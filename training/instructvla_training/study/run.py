"""Runs the study, cell by cell; what is there already is used."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructvla_model.manifest import MANIFEST_FILE, read_manifest
from instructvla_training import scoreboard, state
from instructvla_training.evaluation import MAX_STEPS
from instructvla_training.evaluation.run import evaluate, evaluate_questions
from instructvla_training.pipeline import finished, make, record_data, trained_steps
from instructvla_training.recipes import DataRecipe, StageRecipe
from instructvla_training.stages.run import run_stage
from instructvla_training.trainer import check_same
from instructvla_training.workspace import Workspace

from .plan import CELLS, SHIPPED, VARIANTS, Budget, Cell, Recipes, nano, run_name, training

logger = logging.getLogger(__name__)

FAMILIES = ("pick", "place")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the study works. ``shipped``: folder of the checkpoints ``<preset>-<stage>`` trained in full."""

    space: Workspace
    shipped: Path
    budget: Budget = field(default_factory=Budget)
    data: DataRecipe = field(default_factory=DataRecipe)
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    recipes: Recipes = nano

    @property
    def outcomes(self) -> Path:
        """Of every trial, a file for each cell and training seed."""
        return self.space.root / "runs" / f"{self.space.preset}-study"

    def seeds(self, cell: Cell) -> range:
        return range(1 if cell.model == SHIPPED else self.budget.training_seeds)

    def checkpoint(self, cell: Cell, seed: int) -> Path:
        if cell.model == SHIPPED:
            return self.shipped / f"{self.space.preset}-{cell.stage}"
        variant = next(variant for variant in VARIANTS if variant.name == cell.model)
        return self.space.checkpoint(run_name(variant, cell.stage, seed))

    def outcome(self, cell: Cell, seed: int) -> Path:
        return self.outcomes / (cell.name + (f"_seed{seed}" if seed else "") + ".json")

    def count(self, cell: Cell) -> int:
        return self.budget.questions if cell.kind == "questions" else self.budget.episodes


def measured(setting: Setting, cell: Cell, seed: int) -> bool:
    """Whether a cell was measured, with as many trials, on the checkpoint that is there now, trained at the budget."""
    outcome, folder = setting.outcome(cell, seed), setting.checkpoint(cell, seed)
    if not outcome.exists() or not (folder / MANIFEST_FILE).exists():
        return False
    if cell.model != SHIPPED and read_manifest(folder).training.get("step") != setting.budget.steps(cell.stage):
        return False
    about = json.loads(outcome.read_text(encoding="utf-8"))["about"]
    return about["checkpoint"] == read_manifest(folder).checkpoint_id and about["episodes"] == setting.count(cell)


def run(setting: Setting, models: tuple[str, ...]) -> Iterator[Cell]:
    """Trains and measures what is missing of ``models``, and yields each cell when it is there.

    Stopped at any moment, the next call loses one cell's trials or some steps of one training run.
    """
    for cell in CELLS:
        if cell.model not in models:
            continue
        for seed in setting.seeds(cell):
            if cell.model != SHIPPED:
                _train(setting, cell, seed)
            if not measured(setting, cell, seed):
                logger.info("measuring %s", setting.outcome(cell, seed).stem)
                _measure(setting, cell, seed)
        yield cell


def _train(setting: Setting, cell: Cell, seed: int) -> None:
    """The variant's stage, with the stage before it; also what both rest on."""
    space = setting.space
    variant = next(variant for variant in VARIANTS if variant.name == cell.model)
    for stage in ("expert", "generalist") if cell.stage == "generalist" else ("expert",):
        recipe = training(variant, stage, seed, setting.budget, setting.recipes)
        if not finished(space, "base"):
            make(f"{space.preset}-base", space, setting.device, setting.threads)
        for what in ("stills", "demonstrations"):
            record_data(what, space, setting.data, setting.workers)
        rests_on = _rests_on(space, recipe)
        run = space.run(recipe.run_name)
        if saved := state.newest(run / "state"):
            check_same(run, state.read_facts(saved).of, rests_on)
        if trained_steps(space, recipe.run_name) < recipe.optimisation.steps:
            logger.info("training %s for %d steps", recipe.run_name, recipe.optimisation.steps)
            run_stage(recipe, space, setting.device, setting.threads, of=rests_on)


def _rests_on(space: Workspace, recipe: StageRecipe) -> dict[str, Any]:
    """What must be the same in all variants for their comparison to be one, but for what they leave out."""
    names = [name for name, _ in recipe.datasets] + ["stills"]
    return {
        "steps": recipe.optimisation.steps,
        "rate": recipe.optimisation.learning_rate,
        "seed": recipe.optimisation.seed,
        "base": read_manifest(space.checkpoint("base")).checkpoint_id,
        "shards": {name: len(list(space.dataset(name).glob("shard-*"))) for name in names},
    }


def _measure(setting: Setting, cell: Cell, seed: int) -> None:
    folder, outcome, count = setting.checkpoint(cell, seed), setting.outcome(cell, seed), setting.count(cell)
    shown = setting.shipped / "results" / scoreboard.Row(cell.title, cell.stage, cell.kind, cell.think).file
    if cell.model == SHIPPED and scoreboard.measured(shown, folder, count, MAX_STEPS, exactly=True):
        outcome.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shown, outcome)  # the README's rows are the same trials
    elif cell.kind == "questions":
        evaluate_questions(folder, count, outcome)
    else:
        evaluate(folder, cell.kind, FAMILIES, count, cell.think, setting.workers, outcome)


def rounds(setting: Setting, cell: Cell, grounded: bool = False) -> list[np.ndarray]:
    """For each training seed, which trials of a measured cell went well; or, with ``grounded``, in which the object
    that the gripper came down to first was the one that is meant."""
    key = "right" if cell.kind == "questions" else "success"
    found = []
    for seed in setting.seeds(cell):
        content = json.loads(setting.outcome(cell, seed).read_text(encoding="utf-8"))
        found.append(np.array([_named_first(row) if grounded else bool(row[key]) for row in content["outcomes"]]))
    return found


def _named_first(row: dict[str, Any]) -> bool:
    return row["first_approached"] == row["trial"]["task"]["target"]
