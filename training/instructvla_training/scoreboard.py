"""The figures that the README shows: the shipped checkpoints on every set, measured and printed by one command."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructvla_model.manifest import read_manifest

from .evaluation import MAX_STEPS
from .evaluation.run import evaluate
from .evaluation.tables import when_and_where

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One evaluation of the checkpoint ``nano-<made>``. ``column``: which count of the summary the row is about."""

    name: str
    made: str
    kind: str
    think: bool = False
    families: tuple[str, ...] = ("pick", "place")
    column: str = "success"
    max_steps: int = MAX_STEPS
    episodes: int = 200

    @property
    def file(self) -> str:
        parts = [self.made, self.kind, "think" if self.think else "act"]
        if self.families != ("pick", "place"):
            parts.append("-".join(self.families))
        if self.max_steps == 1:
            parts.append("text")
        return "_".join(parts) + ".json"


ROWS = (
    Row("Expert, atomic instructions, success", "expert", "atomic"),
    Row("Expert, atomic, first object approached is the named one", "expert", "atomic",
        column="named_object_first_of_all"),
    Row("Expert, shuffled instructions (chance), success", "expert", "shuffled", episodes=100),
    Row("Expert, near and stack, success", "expert", "atomic", families=("near", "stack"), episodes=100),
    Row("Generalist, atomic, success", "generalist", "atomic"),
    Row("Expert, held-out phrasing, success", "expert", "heldout"),
    Row("Generalist, held-out phrasing, reasoning off, success", "generalist", "heldout"),
    Row("Generalist, held-out phrasing, reasoning on, success", "generalist", "heldout", think=True),
    Row("Generalist, held-out phrasing, reasoning names object and place", "generalist", "heldout", think=True,
        column="text_right", max_steps=1),
    Row("Franka FR3 after 50 demonstrations, atomic instructions, success", "franka", "atomic", episodes=50),
)  # fmt: skip


def measure(checkpoints: Path, results: Path, episodes: int | None, workers: int) -> None:
    """Runs what ``results`` does not hold, in as many trials (of each row, its own number), for the checkpoints that
    there are now. Raises FileNotFoundError where there is none."""
    names = dict.fromkeys(f"nano-{row.made}" for row in ROWS)
    missing = [name for name in names if not (checkpoints / name).exists()]
    if missing:
        told = (
            f"found no {', '.join(missing)} in {checkpoints}, expected these checkpoints; make each with "
            "instructvla-train make NAME, then give instructvla-train ship"
        )
        if len(missing) == len(names):
            raise FileNotFoundError(told)
        logger.warning("%s; their rows are left out", told)
    for row in ROWS:
        output, folder, count = results / row.file, checkpoints / f"nano-{row.made}", episodes or row.episodes
        if folder.exists() and not measured(output, folder, count, row.max_steps):
            evaluate(folder, row.kind, row.families, count, row.think, workers, output, row.max_steps)


def measured(outcome: Path, checkpoint: Path, episodes: int, max_steps: int, exactly: bool = False) -> bool:
    """Whether ``outcome`` holds at least (or exactly) so many trials, so long, of the checkpoint that is there now."""
    if not outcome.exists():
        return False
    about = json.loads(outcome.read_text(encoding="utf-8"))["about"]
    same = about["checkpoint"] == read_manifest(checkpoint).checkpoint_id and about["max_steps"] == max_steps
    return same and (about["episodes"] == episodes if exactly else about["episodes"] >= episodes)


def table(results: Path) -> list[str]:
    """Markdown rows of what was measured. Raises FileNotFoundError where nothing was."""
    lines = ["| what | measured | 95 % interval |", "|---|---|---|"]
    measurements: list[dict[str, Any]] = []
    for row in ROWS:
        path = results / row.file
        if not path.exists():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        counted = content["summary"][row.column]
        measurements.append(content["about"])
        if counted["n"]:
            interval = f"{100 * counted['low']:.0f}..{100 * counted['high']:.0f} %"
            share = f"{100 * counted['rate']:.0f} % ({counted['k']}/{counted['n']})"
            lines.append(f"| {row.name} | {share} | {interval} |")
    if not measurements:
        raise FileNotFoundError(f"found no results in {results}; expected JSON files: run instructvla-train measure")
    return [*lines, "", when_and_where(measurements)]
