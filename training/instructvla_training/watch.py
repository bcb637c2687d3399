"""What a person sees of a run: a log line and a JSON row each time, TensorBoard, a progress bar, W&B where asked."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .refusals import RunError

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
AXES = ("step", "seconds")


class Watch:
    """Writes beside the run; with ``shown`` False (all processes but the first) it does nothing.

    ``wandb_project``: also log there; the package ``wandb`` must be installed. The bar appears on a terminal only.
    """

    def __init__(
        self, run_dir: Path, steps: int, *, shown: bool = True, tensorboard: bool = True,
        wandb_project: str | None = None,
    ):  # fmt: skip
        self.run_dir, self.steps, self.shown = Path(run_dir), steps, shown
        self._bar: Progress | None = None
        self._step = 0
        self._tensorboard: Any = None
        self._wandb: Any = None
        self._use_tensorboard, self._wandb_project = tensorboard, wandb_project
        if shown:
            self.run_dir.mkdir(parents=True, exist_ok=True)

    @property
    def log_path(self) -> Path:
        return self.run_dir / LOG_FILE

    def rewind(self, step: int) -> None:
        """Forgets rows after ``step`` (they will come again) and a line that a kill cut in two."""
        self._step = step
        if not self.shown or not self.log_path.exists():
            return
        kept = [line for line in self.log_path.read_text(encoding="utf-8").splitlines() if _row_step(line) <= step]
        partial = self.log_path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.log_path)

    def __enter__(self) -> Watch:
        if not self.shown:
            return self
        if self._use_tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self._step + 1)
        if self._wandb_project is not None:
            self._wandb = start_wandb(self._wandb_project, self.run_dir)
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.2f} steps/s  loss {task.fields[loss]:.4g}"),
                TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True),
            )  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task(self.run_dir.name, total=self.steps, completed=self._step, rate=0.0, loss=float("nan"))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def advance(self, step: int) -> None:
        """One more step is done."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, completed=step, rate=task.speed or 0.0)

    def row(self, row: Mapping[str, float]) -> None:
        """The means since the last row; "step" and "seconds" are the axes."""
        if not self.shown:
            return
        with self.log_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        if self._bar is None:
            logger.info(" ".join(f"{k}={v:.4g}" for k, v in row.items() if not k.startswith("share/")))
        else:
            self._bar.update(self._bar.tasks[0].id, loss=row.get("loss", float("nan")))
        values = {name: value for name, value in row.items() if name not in AXES}
        step = int(row["step"])
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def flush(self) -> None:
        """What was written so far outlives a kill; called when the state is saved."""
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def samples(self, step: int, text: str, picture: np.ndarray | None) -> None:
        """Texts that the policy wrote and, where it can act, a picture (H, W, 3) uint8 of its chunks."""
        if self._tensorboard is not None:
            self._tensorboard.add_text("samples/text", text.replace("\n", "  \n"), step)
            if picture is not None:
                self._tensorboard.add_image("samples/chunks", picture, step, dataformats="HWC")


def _row_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def start_wandb(project: str, run_dir: Path) -> Any:
    """A Weights & Biases run that goes on where one of this folder stopped."""
    wandb = require_wandb()
    where = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]  # two folders of one name are two runs
    return wandb.init(
        project=project, name=run_dir.name, id=f"{run_dir.name}-{where}", dir=str(run_dir), resume="allow"
    )


def require_wandb() -> Any:
    """The package. Raises RunError with what to install."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise RunError(
            "found no package wandb, expected it for --wandb; install it (pip install wandb) or leave the option out"
        ) from error
