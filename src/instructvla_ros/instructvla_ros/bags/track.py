"""Joint positions over time, and the runs of a recording in which a clock goes steadily against the recorder's."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.state import state_vector
from instructvla_ros.control.wx250s import WX250S

MAX_HOLE_S = 0.25
"""Between two samples further apart than this nothing is known."""
MAX_CLOCK_JUMP_S = 0.5
"""Stamps that move by more than this against the recorder's clock are of another clock from there on (F16)."""
MAX_LAG_S = 5.0
"""Images that come later than this after the joint states of their moment are of another clock."""


class Rows:
    """Rows of numbers, all of one length, at eight bytes each: joint states of hours are kept."""

    def __init__(self) -> None:
        self._data, self._count = array("d"), 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Iterable[float]) -> None:
        """One more; raises nothing: rows of different lengths are the caller's mistake."""
        self._data.extend(row)
        self._count += 1

    def table(self, width: int) -> np.ndarray:
        """(n, width), a copy; (0, width) where there are none."""
        return np.array(self._data, float).reshape(self._count, -1) if self._count else np.empty((0, width))


class Spans:
    """Samples cut where their clock jumps, and which part a camera image belongs to.

    `stamps_s` and `received_s` (n,) are in the order of reception; `labels` (n,) says of which part each is, `parts`
    which samples each has, `offsets_s` how far its stamps are ahead of the recorder's clock. A clock that comes back
    goes on with its part.
    """

    def __init__(self, stamps_s: np.ndarray, received_s: np.ndarray) -> None:
        ahead_s = stamps_s - received_s
        self.labels = _labels(stamps_s, ahead_s)
        order = np.argsort(self.labels, kind="stable")
        self.parts = tuple(np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)) if len(order) else ()
        self.offsets_s = np.array([float(np.median(ahead_s[part])) for part in self.parts])
        self.begins_s = np.array([received_s[part[0]] for part in self.parts])
        self._ends_s = np.array([received_s[part[-1]] for part in self.parts])
        self._lag_s = 0.0

    def __len__(self) -> int:
        return len(self.parts)

    def hang_on(self, cameras: Sequence[tuple[float, float]]) -> None:
        """Learn how late the camera's images come: (receive time, how far ahead its stamps are) from there on."""
        if not cameras or not len(self):
            return
        anchor_s = max(cameras[0][0], float(self.begins_s[0]))
        ahead_s = [ahead for received_s, ahead in cameras if received_s <= anchor_s][-1]
        there = np.flatnonzero((self.begins_s <= anchor_s) & (anchor_s <= self._ends_s))
        part = int(there[np.argmin(np.abs(self.offsets_s[there] - ahead_s))]) if len(there) else 0
        lag_s = ahead_s - float(self.offsets_s[part])
        self._lag_s = lag_s if -MAX_LAG_S <= lag_s <= MAX_CLOCK_JUMP_S else 0.0

    def find(self, stamp_s: float, received_s: float) -> int | None:
        """The part whose clock stamped an image; None where no clock of the samples agrees with its own."""
        apart = np.abs(stamp_s - received_s - self._lag_s - self.offsets_s)
        away = np.maximum(np.maximum(self.begins_s - received_s, received_s - self._ends_s), 0.0)
        away[apart > MAX_CLOCK_JUMP_S] = np.inf
        return int(np.argmin(away)) if len(self) and np.isfinite(away.min()) else None


def _labels(stamps_s: np.ndarray, ahead_s: np.ndarray) -> np.ndarray:
    """The part of each sample, given its stamp and how far that is ahead of its reception."""
    labels: list[int] = []
    first_ahead: list[float] = []  # of each part
    last_stamp: list[float] = []
    now, reference = -1, math.inf
    for stamp, ahead in zip(stamps_s.tolist(), ahead_s.tolist(), strict=True):
        if abs(ahead - reference) > MAX_CLOCK_JUMP_S:
            known = (
                part
                for part in range(len(first_ahead))
                if abs(first_ahead[part] - ahead) <= MAX_CLOCK_JUMP_S and last_stamp[part] <= stamp
            )
            now, reference = next(known, len(first_ahead)), ahead
            if now == len(first_ahead):
                first_ahead.append(ahead)
                last_stamp.append(stamp)
        last_stamp[now] = stamp
        labels.append(now)
    return np.array(labels, int)


def allowed_for(offset_s: float) -> float:
    """A constant offset between two clocks as it is reckoned with: late by no more than a delay counts as none."""
    return offset_s if offset_s > 0.0 or offset_s < -MAX_CLOCK_JUMP_S else 0.0


class Track:
    """Joint positions (n, J) and finger positions (n,) at times (s), ascending; states are interpolated."""

    def __init__(
        self,
        times_s: Sequence[float] | np.ndarray,
        arm_rad: Sequence[np.ndarray] | np.ndarray,
        finger_m: Sequence[float] | np.ndarray,
        model: ArmModel = WX250S,
    ) -> None:
        self._model = model
        self.times_s = np.asarray(times_s, float)
        self._arm, self._finger = np.asarray(arm_rad, float), np.asarray(finger_m, float)
        if np.any(np.diff(self.times_s) < 0.0):
            order = np.argsort(self.times_s, kind="stable")
            self.times_s, self._arm, self._finger = self.times_s[order], self._arm[order], self._finger[order]
        self._state = lru_cache(maxsize=65_536)(self._state_at)

    def __len__(self) -> int:
        return len(self.times_s)

    def state(self, time_s: float) -> np.ndarray | None:
        """(8,) state at a time; None outside of the track or in a hole of it."""
        return self._state(round(time_s * 1e6)) if len(self) else None

    def finger_at(self, times_s: np.ndarray) -> np.ndarray:
        """Finger positions (m) at times, held at the ends; 0 where none is known."""
        return np.interp(times_s, self.times_s, self._finger) if len(self) else np.zeros(len(times_s))

    def _state_at(self, time_us: int) -> np.ndarray | None:
        time_s = time_us * 1e-6
        after = int(np.searchsorted(self.times_s, time_s))
        if after == len(self.times_s):
            after -= 1
        before = max(0, after - 1) if self.times_s[after] > time_s else after
        span_s = self.times_s[after] - self.times_s[before]
        outside = max(self.times_s[0] - time_s, time_s - self.times_s[-1])
        if span_s > MAX_HOLE_S or outside > 0.02:
            return None
        share = min(1.0, max(0.0, (time_s - self.times_s[before]) / span_s)) if span_s > 0.0 else 0.0
        arm = self._arm[before] + share * (self._arm[after] - self._arm[before])
        finger = self._finger[before] + share * (self._finger[after] - self._finger[before])
        return state_vector(arm, float(finger), self._model)
