"""The Franka Hand: moves to a width at a speed, or closes with a force and says whether something is held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

FULL_WIDTH_M = 0.08
MAX_SPEED_M_S, MAX_FORCE_N = 0.1, 70.0
_MOVE_FORCE_N = 40.0
_STIFFNESS_N_M, _DAMPING_NS_M = 9000.0, 60.0
_STALLED_M_S, _STALLED_S = 0.002, 0.15
_REACHED_M = 0.0015

Kind = Literal["idle", "move", "grasp"]


@dataclass(frozen=True)
class HandMotion:
    """What the hand is told. `width_m` and `speed_m_s` are those between the fingers; a grasp counts if the width in
    the end is within `inner_m` below and `outer_m` above. `number` tells a motion from those before and after it."""

    kind: Kind = "idle"
    width_m: float = FULL_WIDTH_M
    speed_m_s: float = MAX_SPEED_M_S
    force_n: float = _MOVE_FORCE_N
    inner_m: float = 0.005
    outer_m: float = 0.005
    done: bool = True
    success: bool = True
    number: int = 0


class FrankaHand:
    """Drive of both fingers. `force_n(...)` is called at every update of the set-points."""

    def __init__(self) -> None:
        self._number = 0
        self.reset(FULL_WIDTH_M)

    def reset(self, width_m: float) -> None:
        """Hold this width."""
        self._take(HandMotion(width_m=width_m))
        self._set_point_m = width_m

    def move(self, width_m: float, speed_m_s: float) -> str:
        """Begin to move. Returns "" or why it was refused."""
        return self._begin(HandMotion("move", width_m, speed_m_s, done=False, success=False))

    def grasp(self, width_m: float, speed_m_s: float, force_n: float, inner_m: float, outer_m: float) -> str:
        """Begin to grasp. Returns "" or why it was refused."""
        return self._begin(HandMotion("grasp", width_m, speed_m_s, force_n, inner_m, outer_m, False, False))

    def stop(self, width_m: float) -> None:
        """Stay at the present width, without the force of a grasp."""
        self.reset(width_m)

    def _begin(self, motion: HandMotion) -> str:
        numbers = (motion.width_m, motion.speed_m_s, motion.force_n)
        if not np.isfinite(numbers).all() or not 0.0 <= motion.width_m <= FULL_WIDTH_M + 1e-6:
            return f"width {motion.width_m} m, expected 0..{FULL_WIDTH_M}"
        if not 0.0 < motion.speed_m_s <= MAX_SPEED_M_S + 1e-9 or not 0.0 < motion.force_n <= MAX_FORCE_N:
            found = f"speed {motion.speed_m_s} m/s and force {motion.force_n} N"
            return f"{found}, expected up to {MAX_SPEED_M_S} m/s and {MAX_FORCE_N} N"
        self._take(motion)
        return ""

    def _take(self, motion: HandMotion) -> None:
        self._number += 1
        self.motion = replace(motion, number=self._number)
        self._still_since_s: float | None = None

    def finger_force_n(self, width_m: float, width_speed_m_s: float, now_s: float, elapsed_s: float) -> float:
        """Opening force on each finger now; updates whether the motion is done."""
        motion = self.motion
        reach = motion.speed_m_s * elapsed_s
        self._set_point_m += float(np.clip(motion.width_m - self._set_point_m, -reach, reach))
        if not motion.done:
            self._judge(motion, width_m, width_speed_m_s, now_s)
        error_m = 0.5 * (self._set_point_m - width_m)
        force = _STIFFNESS_N_M * error_m - _DAMPING_NS_M * 0.5 * width_speed_m_s
        limit = motion.force_n
        if motion.kind == "grasp" and width_m > motion.width_m + 1e-4 and self._set_point_m <= motion.width_m + 1e-6:
            force = -limit  # arrived at something: keep pressing
        return float(np.clip(force, -limit, limit))

    def _judge(self, motion: HandMotion, width_m: float, speed_m_s: float, now_s: float) -> None:
        """Done when the width is reached, or when something stops the fingers."""
        arrived = self._set_point_m == motion.width_m
        reached = abs(width_m - motion.width_m) < _REACHED_M
        if abs(speed_m_s) > _STALLED_M_S or not arrived:
            self._still_since_s = None
        elif self._still_since_s is None:
            self._still_since_s = now_s
        stalled = self._still_since_s is not None and now_s - self._still_since_s >= _STALLED_S
        if not (stalled or (motion.kind == "move" and reached and arrived)):
            return
        if motion.kind == "move":
            success = reached
        else:
            success = motion.width_m - motion.inner_m <= width_m <= motion.width_m + motion.outer_m
        self.motion = replace(motion, done=True, success=success)

    def copy_state(self) -> tuple[HandMotion, float, float | None]:
        """For World.snapshot."""
        return self.motion, self._set_point_m, self._still_since_s

    def restore_state(self, state: tuple[HandMotion, float, float | None]) -> None:
        """Inverse of copy_state."""
        self.motion, self._set_point_m, self._still_since_s = state
