"""A joint trajectory as the driver plays it: each point is sent as a plain command when its time comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from instructvla_sim.arm_types import Vector


@dataclass(frozen=True)
class Trajectory:
    """Points still to be sent: (simulated time, values)."""

    name: str = ""
    cmd_type: str = "group"
    left: tuple[tuple[float, tuple[float, ...]], ...] = ()

    def busy(self, now_s: float) -> bool:
        """Whether points are still to come."""
        return bool(self.left) and now_s <= self.left[-1][0]

    def advance(self, now_s: float) -> tuple[Trajectory, list[tuple[float, ...]]]:
        """The remaining trajectory and the points due by now."""
        due = [point for time_s, point in self.left if time_s <= now_s + 1e-9]
        return replace(self, left=self.left[len(due) :]), due


IDLE = Trajectory()


def make(
    name: str,
    cmd_type: str,
    joints: Sequence[str],
    times_s: Sequence[float],
    points: Sequence[Vector],
    now_s: float,
) -> tuple[Trajectory, str]:
    """A trajectory that begins now, or what is wrong with it."""
    if len(points) < 2 or len(points) != len(times_s):
        return (
            IDLE,
            f"it has {len(points)} points and {len(times_s)} times, expected as many and at least two.",
        )
    if any(b <= a for a, b in pairwise(times_s)):
        return IDLE, "its times do not increase."
    if any(len(point) != len(joints) for point in points):
        return IDLE, f"a point has another length than the {len(joints)} joints of {name!r}."
    left = tuple((now_s + float(t), tuple(float(v) for v in p)) for t, p in zip(times_s, points, strict=True))
    return Trajectory(name, cmd_type, left), ""
