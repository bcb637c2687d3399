"""Recordings and checkpoints in, a report's folder out: what `instructvla replay` and the replay node share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructvla_ros.bags import parameters
from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.comparison import Regression, check_baseline, gate, read_baseline
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

    `limit` is the share by which the first checkpoint may be worse than the baseline (a report.json). A bag of
    which nothing can be read is named in the report; BagError is raised where no other is left. Raises ValueError for
    parameters that the nodes would refuse and for a baseline that does not fit, as far as can be told before replaying.
    """
    parameters.check(options.parameters)
    if not 0 <= options.seed < 2**31:
        raise ValueError(f"seed {options.seed}; expected a number from 0 to {2**31 - 1}")
    older = None if baseline is None else read_baseline(baseline)
    if older is not None:
        check_baseline(older, options.seed, content.options_of(options))
    where = folder or Path(f"{Path(paths[0]).resolve()}_report")
    report_files.prepare(where)
    began_s = time.monotonic()
    try:
        used, replays, unreadable = _replay_all(paths, runtimes, options, progress)
    except BaseException:
        report_files.discard(where)
        raise
    took_s = time.monotonic() - began_s
    report = content.build(replays, options, unreadable)
    rows: tuple[Regression, ...] = ()
    refused: ValueError | None = None
    try:
        rows = gate(report, older, limit) if older is not None else ()
    except ValueError as error:  # told when the report, which took long, is safe
        refused = error
    report_files.write(where, used, replays, report, rows, limit)
    if refused is not None:
        raise ValueError(f"{refused}; the report is in {where}") from refused
    return Evaluation(where, report, rows, took_s)


def _replay_all(
    paths: Sequence[Path], runtimes: Mapping[str, Any], options: ReplayOptions, progress: Progress
) -> tuple[list[Path], list[content.BagReplay], dict[str, str]]:
    """The bags that could be replayed, their replays, and by name why others could not. Raises where none could."""
    used: list[Path] = []
    replays: list[content.BagReplay] = []
    unreadable: dict[str, str] = {}
    first: ValueError | OSError | None = None
    for path, name in zip(paths, unique_names(paths), strict=True):
        try:
            with Bag(path) as bag, progress(name) as on_progress:
                replays.append(content.collect(bag, replay(bag, runtimes, options, on_progress), name))
            used.append(path)
        except (ValueError, OSError) as error:
            first, unreadable[name] = first or error, str(error)
    if first is not None and not replays:
        raise first
    return used, replays, unreadable


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each bag: that of its file or folder, with so many of the folders above as tell it from the others,
    and a number where the same bag is given again."""
    full = [Path(path).resolve() for path in paths]
    found: list[str] = []
    for path in full:
        others = {other for other in full if other != path}
        parts = 1
        while parts < len(path.parts) and any(other.parts[-parts:] == path.parts[-parts:] for other in others):
            parts += 1
        name = number = "/".join(path.parts[-parts:]).replace("//", "/")
        again = 1
        while number in found:
            again += 1
            number = f"{name} ({again})"
        found.append(number)
    return found
