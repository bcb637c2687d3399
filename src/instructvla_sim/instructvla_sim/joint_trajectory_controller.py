"""ros2_control's joint trajectory controller as far as a sender notices: checks, replacement, splines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Knot:
    """A trajectory point: seconds from the start, positions (n,), velocities (n,) or None."""

    time_s: float
    positions: np.ndarray
    velocities: np.ndarray | None = None


class JointTrajectoryController:
    """Interpolates from its desired state, which a new trajectory takes over with its velocity, or from another that
    `accept` is given.

    Like the original it checks names, sizes and times, and does not look whether a number is finite.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        self._names = tuple(joint_names)
        self.reset(np.zeros(len(self._names)))

    def reset(self, positions: np.ndarray) -> None:
        """Hold a posture: on activation, and where a goal is cancelled."""
        self._knots = [Knot(0.0, positions.copy(), np.zeros(len(self._names)))]
        self.trajectories = getattr(self, "trajectories", 0)

    def accept(
        self,
        names: Sequence[str],
        knots: Sequence[Knot],
        now_s: float,
        start_s: float | None = None,
        begin: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> str:
        """Begin a trajectory at `start_s` (default: now). Returns "" or why it was refused.

        `begin`: positions and velocities (n,) to lead on from, instead of the desired ones.
        """
        if set(names) != set(self._names) or len(names) != len(self._names):
            return f"joints are {list(names)}, expected {list(self._names)} in any order"
        sizes = {len(k.positions) for k in knots} | {len(k.velocities) for k in knots if k.velocities is not None}
        if not knots or sizes != {len(self._names)}:
            return f"a point has another size than the {len(self._names)} joints, or there is none"
        if knots[0].time_s < 0.0 or any(b.time_s <= a.time_s for a, b in pairwise(knots)):
            return "the times of the points do not increase"
        begin_s = now_s if start_s is None else start_s
        if begin_s + knots[-1].time_s <= now_s:
            return "the trajectory ends in the past"
        last = knots[-1].velocities
        if last is not None and np.any(last != 0.0):  # true for NaN as well
            return "the velocity of the last point is not zero"
        order = [list(names).index(name) for name in self._names]
        positions, velocities = self.sample(now_s) if begin is None else begin
        made = [Knot(now_s, positions, velocities)]
        for knot in knots:
            if begin_s + knot.time_s > now_s:
                speed = None if knot.velocities is None else knot.velocities[order]
                made.append(Knot(begin_s + knot.time_s, knot.positions[order], speed))
        self._knots = made
        self.trajectories += 1
        return ""

    @property
    def end_s(self) -> float:
        """When the present trajectory is over."""
        return self._knots[-1].time_s

    @property
    def goal(self) -> np.ndarray:
        """Where the present trajectory ends (n,)."""
        return self._knots[-1].positions.copy()

    def sample(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Desired positions and velocities (n,) at a time."""
        while len(self._knots) > 1 and now_s >= self._knots[1].time_s:
            self._knots.pop(0)
        first = self._knots[0]
        still = np.zeros(len(self._names))
        if len(self._knots) == 1:
            return first.positions, still
        second = self._knots[1]
        duration = second.time_s - first.time_s
        u = (now_s - first.time_s) / duration
        change = second.positions - first.positions
        if second.velocities is None:
            return first.positions + u * change, change / duration
        v0 = (still if first.velocities is None else first.velocities) * duration
        v1 = second.velocities * duration
        a, b = 3.0 * change - 2.0 * v0 - v1, v0 + v1 - 2.0 * change
        return first.positions + u * (v0 + u * (a + u * b)), (v0 + u * (2.0 * a + 3.0 * u * b)) / duration

    def copy_state(self) -> list[Knot]:
        """For World.snapshot: knots are never changed in place."""
        return list(self._knots)

    def restore_state(self, knots: list[Knot]) -> None:
        """Inverse of copy_state."""
        self._knots = list(knots)
