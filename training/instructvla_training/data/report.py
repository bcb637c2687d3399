"""What the data commands print, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instructvla_model.normalization import FieldStatistics

from .formats.annotated import AnnotatedDataset
from .formats.episode import ACTION_NAMES, EpisodeDataset
from .lint import Finding
from .survey import Survey, action_floor, survey

EXAMPLES = 3


def describe(dataset: EpisodeDataset) -> list[str]:
    """Size, rate, cameras and words of a dataset."""
    made = survey(dataset)
    lengths = np.array(made.lengths)
    span = f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}"
    first = dataset[0]
    cameras = [
        f"{view} {images[0].shape[1]}x{images[0].shape[0]}" for view, images in first.images.items() if len(images)
    ]
    spoken = np.flatnonzero(made.spoken)
    some = spoken[np.linspace(0, len(spoken) - 1, EXAMPLES).astype(int)] if len(spoken) else []
    shown = dict.fromkeys(made.instructions[number] for number in some)
    annotated = "none"
    if isinstance(dataset, AnnotatedDataset):
        annotated = f"{dataset.joined(made.keys)} episodes, of {len(dataset.annotations())} in the file"
    return [
        f"{dataset.root}",
        f"  format        {dataset.reading}",
        f"  episodes      {len(dataset)}, {len(spoken)} with an instruction, {made.n_steps} steps",
        f"  lengths       {span} steps of {dataset.dt_s:.3f} s",
        f"  cameras       {', '.join(cameras) or 'none'}",
        f"  robot         {dataset.robot or 'not said'}",
        f"  state         {' '.join(dataset.layout.value)}",
        f"  annotations   {annotated}",
        *(f"  instruction   {text}" for text in shown),
    ]


def statistics_table(dataset: EpisodeDataset, made: Survey) -> list[str]:
    """One line for each number of action and state."""
    lines = [f"{made.name}: {len(made.lengths)} episodes, {made.n_steps} steps, hash {made.fingerprint}"]
    lines.append("".join(f"{head:>12}" for head in ("", "q01", "q99", "mean", "std", "min", "max", "scaled")))
    lines += _rows("action", ACTION_NAMES, made.statistics.action)
    if made.statistics.state is not None:
        lines += _rows("state", dataset.layout.value, made.statistics.state)
    spans = action_floor(dataset.dt_s)
    text = ", ".join(f"{name} {spans[d]:.4g}" for d, name in enumerate(ACTION_NAMES) if spans[d])
    narrow = [name for d, name in enumerate(ACTION_NAMES) if _widened(made.statistics.action, d, spans[d])]
    lines.append(f"least spans of an action in {dataset.dt_s:.3f} s: {text}; taken for {', '.join(narrow) or 'none'}")
    return lines


def _widened(found: FieldStatistics, d: int, span: float) -> bool:
    """Whether the data moves less than the least span that it is scaled by."""
    return span > 0 and found.q99[d] - found.q01[d] <= span * (1 + 1e-6)


def _rows(what: str, names: Sequence[str], found: FieldStatistics) -> list[str]:
    columns = (found.q01, found.q99, found.mean, found.std, found.min, found.max)
    return [
        f"{what + ' ' + name:>12}" + "".join(f"{column[d]:12.4f}" for column in columns) + f"{found.mask[d]!s:>12}"
        for d, name in enumerate(names)
    ]


def verdict(path: Path, findings: Sequence[Finding]) -> str:
    errors = sum(found.error for found in findings)
    return f"{path}: {errors} errors, {len(findings) - errors} warnings"
