"""Quantile normalisation of actions and states, with its inverse.

y = clip(2 (x - q01) / (q99 - q01 + 1e-8) - 1, -1, 1) where the mask is set; other dimensions (the
gripper, 0..1) pass unchanged. Dimensions that never move (min == max, or equal quantiles) become 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_EPS = 1e-8


class StatisticsError(ValueError):
    """Statistics that are incomplete or do not fit the data."""


@dataclass(frozen=True)
class FieldStatistics:
    """Statistics of one vector quantity; all tuples have its dimension."""

    q01: tuple[float, ...]
    q99: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mask: tuple[bool, ...]

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in dataclasses.fields(self)}
        if len(set(lengths.values())) != 1:
            raise StatisticsError(f"statistics have lengths {lengths}; expected one length; recompute them")
        numbers = [v for f in dataclasses.fields(self) for v in getattr(self, f.name)]
        if not np.isfinite(np.asarray(numbers, dtype=np.float64)).all():
            raise StatisticsError("statistics hold NaN or infinity; expected finite numbers; recompute them")

    @property
    def dim(self) -> int:
        return len(self.q01)

    def _check(self, x: np.ndarray) -> None:
        if x.shape[-1] != self.dim:
            raise StatisticsError(f"vector of {x.shape[-1]} for statistics of {self.dim}; expected equal lengths")

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """(..., dim) -> (..., dim) float32 in [-1, 1] where masked."""
        x = np.asarray(x, dtype=np.float64)
        self._check(x)
        q01, q99 = np.asarray(self.q01), np.asarray(self.q99)
        y = np.clip(2.0 * (x - q01) / (q99 - q01 + _EPS) - 1.0, -1.0, 1.0)
        still = (np.asarray(self.min) == np.asarray(self.max)) | (q01 == q99)
        y = np.where(still, 0.0, y)
        return np.where(np.asarray(self.mask), y, x).astype(np.float32)

    def unnormalize(self, y: np.ndarray) -> np.ndarray:
        """Inverse of `normalize` inside the quantiles; input clipped to [-1, 1] where masked. float32."""
        y = np.asarray(y, dtype=np.float64)
        self._check(y)
        q01, q99 = np.asarray(self.q01), np.asarray(self.q99)
        x = 0.5 * (np.clip(y, -1.0, 1.0) + 1.0) * (q99 - q01) + q01
        return np.where(np.asarray(self.mask), x, y).astype(np.float32)

    def to_dict(self) -> dict[str, list[Any]]:
        return {f.name: list(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class Statistics:
    """Normalisation of one data set: actions, and states where the policy takes one."""

    action: FieldStatistics
    state: FieldStatistics | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"action": self.action.to_dict(), "state": self.state.to_dict() if self.state else None}


def compute(
    values_XD: np.ndarray, *, mask: Sequence[bool] | None = None, span_floor: Sequence[float] | None = None
) -> FieldStatistics:
    """Statistics over rows. `span_floor` widens q99 - q01 about its middle to at least that much.

    The floor keeps a dimension that hardly moves in the data from blowing its noise up to full scale.
    """
    x = np.asarray(values_XD, dtype=np.float64)
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise StatisticsError(f"data of shape {x.shape}; expected finite (rows, dimensions)")
    q01, q99 = np.quantile(x, 0.01, axis=0), np.quantile(x, 0.99, axis=0)
    if span_floor is not None:
        middle, half = (q01 + q99) / 2, np.maximum(q99 - q01, np.asarray(span_floor, dtype=np.float64)) / 2
        q01, q99 = middle - half, middle + half
    chosen = tuple(bool(v) for v in (mask if mask is not None else [True] * x.shape[1]))
    return FieldStatistics(
        q01=_row(q01), q99=_row(q99), min=_row(x.min(0)), max=_row(x.max(0)),
        mean=_row(x.mean(0)), std=_row(x.std(0)), mask=chosen,
    )  # fmt: skip


def _row(values_D: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values_D)


def field_from_dict(values: dict[str, Any]) -> FieldStatistics:
    """Inverse of FieldStatistics.to_dict; min, max, mean, std and mask may be absent."""
    if not isinstance(values, dict) or "q01" not in values or "q99" not in values:
        raise StatisticsError("statistics lack q01 or q99; expected both; recompute them")
    q01, q99 = tuple(values["q01"]), tuple(values["q99"])
    filled = {"min": q01, "max": q99, "mean": q01, "std": (1.0,) * len(q01), "mask": (True,) * len(q01)}
    rest = {key: tuple(values.get(key) or default) for key, default in filled.items()}
    return FieldStatistics(q01=q01, q99=q99, **rest)


def statistics_from_dict(values: dict[str, Any]) -> Statistics:
    """Inverse of Statistics.to_dict. Raises StatisticsError."""
    if not isinstance(values, dict) or "action" not in values:
        raise StatisticsError("statistics lack 'action'; expected action and state; recompute them")
    state = values.get("state")
    return Statistics(field_from_dict(values["action"]), field_from_dict(state) if state else None)
