"""How fast batches are made and how fast they are trained on, each alone: the loader must never hold training up."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from .evaluation.tables import machine
from .parallel import moved, processes, use_threads
from .recipes import StageRecipe
from .run import place
from .stages.run import prepare
from .trainer import Trainer
from .workspace import Workspace

WARM_STEPS = 2


@dataclass(frozen=True)
class LoaderSpeed:
    """Samples (rows of the language batch's images and frames that a step is about) per second.

    ``loader``: batches made by the one thread that makes them; ``training``: steps on batches that are there already.
    ``run_s``: what all steps of the recipe take at that rate, without start, saves and samples.
    """

    recipe: str
    steps: int
    loader_samples_per_s: float
    training_samples_per_s: float
    run_s: float
    threads: int
    device: str
    machine: str
    date: str

    @property
    def ratio(self) -> float:
        return self.loader_samples_per_s / self.training_samples_per_s

    def line(self) -> str:
        return (
            f"{self.recipe}: loader {self.loader_samples_per_s:.1f} samples/s, training "
            f"{self.training_samples_per_s:.1f} samples/s, ratio {self.ratio:.1f}; all steps of the recipe "
            f"{self.run_s / 60:.0f} min; measured over {self.steps} steps, "
            f"{self.device} with {self.threads} threads, {self.machine}, {self.date}"
        )


def loader_speed(recipe: StageRecipe, space: Workspace, device: str, threads: int, steps: int) -> LoaderSpeed:
    """Measures both over ``steps`` steps after a few to warm up. Nothing is kept.

    Raises FileNotFoundError where the recipe's data or the checkpoint before it is missing.
    """
    use_threads(threads)
    with processes(device) as group, tempfile.TemporaryDirectory() as folder:
        prepared = prepare(recipe, space, group)
        place(prepared, recipe, group)
        stage = prepared.stage
        seeds = [[recipe.optimisation.seed, step] for step in range(WARM_STEPS + steps)]
        made = [moved(stage.make_batch(np.random.default_rng(seed)), group.device) for seed in seeds[:WARM_STEPS]]
        torch.set_num_threads(1)  # as in the thread that makes batches
        started = time.perf_counter()
        made += [moved(stage.make_batch(np.random.default_rng(seed)), group.device) for seed in seeds[WARM_STEPS:]]
        if group.device.type == "cuda":
            torch.cuda.synchronize(group.device)
        loader_s = time.perf_counter() - started
        use_threads(threads)
        rows = sum(len(batch.drawn.ids) for batch in made[WARM_STEPS:])
        parts = recipe.parts_for(group.count)
        ready = cycle(made)
        stage.make_batch = lambda rng: next(ready)
        stage.make_part = lambda rng, part: next(ready)
        trainer = Trainer(stage, recipe.optimisation, Path(folder), group, parts)
        trainer.run(until=WARM_STEPS)
        warm_s = trainer.seconds
        trainer.run(until=WARM_STEPS + steps)
        training_s = trainer.seconds - warm_s
        return LoaderSpeed(
            f"{recipe.preset}-{recipe.run_name}", steps, rows / loader_s, rows * parts / training_s,
            recipe.optimisation.steps * training_s / steps, threads, str(group.device), machine(),
            date.today().isoformat(),
        )  # fmt: skip


def write(found: LoaderSpeed, output: Path) -> None:
    """As JSON, with the ratio."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(asdict(found) | {"ratio": round(found.ratio, 2)}, indent=1) + "\n", encoding="utf-8")
