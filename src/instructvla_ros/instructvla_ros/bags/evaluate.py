"""Recordings and checkpoints in, a report's folder out: what `instructvla replay` and the replay node share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.comparison import Regression, gate, read_baseline
from instructvla_ros.bags.replay import ReplayOptions, replay
from instructvla_ros.bags.report import content
from instructvla_ros.bags.report import files as report_files
from instructvla_ros.graph import files

Progress = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Given a bag's name: something that hears the share that is done."""


@dataclass(frozen=True)
class Evaluation:
    """What was made. `regressions` is empty without a baseline; `took_s` is not part of the report."""

    folder: Path
    report: Mapping[str, Any]
    regressions: tuple[Regression, ...]
    took_s: float

    @property
    def regressed(self) -> bool:
        """Whether the gate failed."""
        return any(row.failed for row in self.regressions)


def load_checkpoints(given: Sequence[str], device: str = "auto") -> dict[str, Any]:
    """Name -> PolicyRuntime, for folders or names that ship with the project; none given: the shipped default.

    Raises FileNotFoundError or ValueError (also CheckpointError) for what cannot be used.
    """
    from instructvla_model.runtime import PolicyRuntime

    runtimes: dict[str, Any] = {}
    for text in given or [""]:
        folder = files.resolve_checkpoint(text)
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"no checkpoint {text or '(none ships with this installation)'}; give its folder")
        name = Path(folder).name
        while name in runtimes:
            name += "'"
        runtimes[name] = PolicyRuntime.load(folder, device=device)
        if runtimes[name].manifest.statistics is None:
            raise ValueError(f"checkpoint {folder} has no action statistics; give one of stage expert or generalist")
    return runtimes


def evaluate(
    paths: Sequence[Path],
    runtimes: Mapping[str, Any],
    options: ReplayOptions,
    folder: Path | None = None,
    *,
    baseline: Path | None = None,
    limit: float = 0.05,
    progress: Progress = lambda name: nullcontext(lambda done: None),
) -> Evaluation:
    """Replay every bag through every checkpoint and write the report; the folder's default is beside the first bag.

    `limit` is the share by which the first checkpoint may be worse than the baseline (a report.json). Raises BagError
    for a bag of which nothing can be read, ValueError for a baseline that does not fit.
    """
    older = None if baseline is None else read_baseline(baseline)
    began_s = time.monotonic()
    replays = []
    for path in paths:
        with Bag(path) as bag, progress(bag.name) as on_progress:
            replays.append(content.collect(bag, replay(bag, runtimes, options, on_progress)))
    took_s = time.monotonic() - began_s
    report = content.build(replays, options.seed)
    rows = gate(report, older, limit) if older is not None else ()
    where = folder or Path(f"{Path(paths[0]).resolve()}_report")
    report_files.write(where, paths, replays, report, rows, limit)
    return Evaluation(where, report, rows, took_s)
