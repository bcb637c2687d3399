"""dataset_statistics.json of a released run -> the statistics of one data set."""

from __future__ import annotations

from pathlib import Path

from instructvla_model.manifest import CheckpointError
from instructvla_model.normalization import Statistics, StatisticsError, field_from_dict
from instructvla_model.released.sources import read_json

STATISTICS_FILE = "dataset_statistics.json"


def find_statistics(source: str | Path) -> Path | None:
    """The statistics of the run that a `.pt` lies in (`<run>/checkpoints/x.pt`), if they are there."""
    path = Path(source).resolve().parent.parent / STATISTICS_FILE
    return path if Path(source).parent.name == "checkpoints" and path.is_file() else None


def read_statistics(path: str | Path, dataset: str | None = None) -> Statistics:
    """Action and state statistics of `dataset`, which may be left out if the file has one. Raises CheckpointError."""
    values = read_json(Path(path))
    if dataset is None and len(values) == 1:
        dataset = next(iter(values))
    if dataset not in values:
        raise CheckpointError(f"{path} has statistics of {sorted(values)}; expected {dataset or 'the name of one'}")
    entry = values[dataset]
    if not isinstance(entry, dict) or "action" not in entry:
        raise CheckpointError(f"{path}: {dataset!r} has no 'action'; expected statistics of actions")
    try:
        state = entry.get("proprio")
        return Statistics(field_from_dict(entry["action"]), field_from_dict(state) if state else None)
    except (StatisticsError, TypeError) as error:
        raise CheckpointError(f"{path}: {dataset!r}: {error}") from error
