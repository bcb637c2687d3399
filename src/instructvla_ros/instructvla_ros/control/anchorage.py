"""When the target may be anchored where the arm is measured, and when it must be anchored anew."""

from __future__ import annotations

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.types import JointSample

# An arm that is so much farther from its goal than goals may lead it, for so long, was not led there by them.
_ASTRAY_RAD, _ASTRAY_S = 0.1, 0.2
# An arm that follows its goals as they are is at rest below this speed, measured over at least this time.
_REST_RAD_S, _REST_S = 0.05, 0.01


class Anchorage:
    """Looks at joint states alone; `lead_rad`: how far goals may lead the arm. One thread owns an object."""

    def __init__(self, arm: ArmModel, lead_rad: float) -> None:
        self._lead_rad = lead_rad
        self._smooth = arm.acceleration_rad_s2 is None  # the drives ease into their goals
        self.reset()

    def reset(self) -> None:
        """The target is to be anchored anew."""
        self._rest_from: JointSample | None = None
        self._astray_from_s: float | None = None

    def astray(self, goal_rad: np.ndarray, sample: JointSample) -> bool:
        """The arm has for a while been elsewhere than where goals may lead it: it has lost its torque, or was moved by
        hand. It would go back at once where it gets its torque again: its goal is to be where it is, or, of a stopped
        arm, none before the reset."""
        if float(np.max(np.abs(goal_rad - sample.arm_rad))) <= self._lead_rad + _ASTRAY_RAD:
            self._astray_from_s = None
            return False
        if self._astray_from_s is None:
            self._astray_from_s = sample.stamp_s
        return sample.stamp_s - self._astray_from_s >= _ASTRAY_S  # of new joint states: a single one may be wrong

    def rests(self, sample: JointSample) -> bool:
        """Whether the target can be anchored where the arm is: a goal at rest would stop a moving arm dead, unless its
        drives smooth their goals themselves."""
        if self._smooth:
            return True
        before = self._rest_from
        if before is None or before.stamp_s > sample.stamp_s:
            self._rest_from = sample
            return False
        seconds = sample.stamp_s - before.stamp_s
        if seconds < _REST_S:
            return False
        self._rest_from = sample
        return float(np.max(np.abs(sample.arm_rad - before.arm_rad))) <= _REST_RAD_S * seconds
