"""dataset_statistics.json of a released run <-> the statistics of one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.normalization import Statistics, field_from_dict
from instructvla_model.released.sources import read_json

STATISTICS_FILE = "dataset_statistics.json"


def find_statistics(source: str | Path) -> Path | None:
    """The statistics of the run that a `.pt` lies in (`<run>/checkpoints/x.pt`), if they are there."""
    path = Path(source).resolve().parent.parent / STATISTICS_FILE
    return path if Path(source).parent.name == "checkpoints" and path.is_file() else None


def choose_dataset(path: str | Path, dataset: str | None = None) -> str:
    """`dataset` if the file has it, or the only one that the file has. Raises CheckpointError."""
    names = sorted(read_json(Path(path)))
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset is None:
        raise CheckpointError(
            f"{path} has statistics of {names}; expected the name of one: say whose actions the policy shall give "
            "(--dataset NAME)"
        )
    if dataset not in names:
        raise CheckpointError(f"{path} has statistics of {names}; expected {dataset} (--dataset); choose one of these")
    return dataset


def read_statistics(path: str | Path, dataset: str | None = None) -> Statistics:
    """Action and state statistics of `dataset`, which may be left out if the file has one. Raises CheckpointError."""
    dataset = choose_dataset(path, dataset)
    entry = read_json(Path(path))[dataset]
    if not isinstance(entry, dict) or "action" not in entry:
        raise CheckpointError(f"{path}: {dataset!r} has no 'action'; expected statistics of actions")
    try:
        state = entry.get("proprio")
        return Statistics(field_from_dict(entry["action"]), field_from_dict(state) if state else None)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {dataset!r}: {error}") from error


def check_statistics(statistics: Statistics | None, config: PolicyConfig) -> None:
    """Raise CheckpointError unless the statistics have the policy's dimensions; None is none at all."""
    if statistics is None:
        return
    if statistics.action.dim != config.expert.action_dim:
        raise CheckpointError(
            f"statistics of actions of {statistics.action.dim} numbers; expected {config.expert.action_dim}, as the "
            "policy's actions have; give the statistics that it was trained with"
        )
    found = statistics.state.dim if statistics.state is not None else None
    if config.expert.state_dim and found != config.expert.state_dim:
        raise CheckpointError(
            f"statistics of states of {found or 'no'} numbers; expected {config.expert.state_dim}, as the policy's "
            "state has; give the statistics that it was trained with"
        )


def released_statistics(statistics: Statistics) -> dict[str, Any]:
    """One data set's entry of dataset_statistics.json, without the numbers of transitions and trajectories."""
    entry = {"action": statistics.action.to_dict()}
    if statistics.state is not None:
        entry["proprio"] = statistics.state.to_dict()
    return entry
