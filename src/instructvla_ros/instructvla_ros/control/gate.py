"""The last check of every joint goal, whatever rule, mode or robot it comes from: nothing is sent that has not passed.

The rules of safety.py shape what the policy asks for; the gate trusts none of that. It looks only at the goal, at what
was sent before and at what is measured, and refuses instead of repairing: the arm then keeps the last goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.safety import GOOD, SafetyConfig, Verdict
from instructvla_ros.control.types import Mode

_ROUNDING = 1e-6
_STILL_RAD = 1e-9
_SAME_TIME_S = 1e-4
# Between two targets inside the box the way is straight in joint space: its arc may leave the box by this much.
_ARC_M = 0.01
# A first goal this far from the measured posture is no anchor.
_ANCHOR_RAD = 0.1
_LATCHED = (Mode.STOPPED, Mode.FAULT)


@dataclass(frozen=True)
class Passage:
    """A goal at the gate. `previous_rad` (n,) was sent `elapsed_s` ago, or is the measured posture when `anchored` is
    False: then nothing was sent since the last start, reset or jump of the clock."""

    goal_rad: np.ndarray
    previous_rad: np.ndarray
    measured_rad: np.ndarray
    elapsed_s: float
    mode: Mode
    anchored: bool


class KeepOut:
    """Boxes of the base frame that the end effector may not enter. A box without volume keeps nothing out."""

    def __init__(self, corners_m: tuple[float, ...]) -> None:
        boxes = np.asarray(corners_m, dtype=float).reshape(-1, 2, 3)
        self._boxes = [(lower, upper) for lower, upper in boxes if (lower < upper).all()]

    def depth_m(self, position_m: np.ndarray) -> float:
        """How deep a point is inside the deepest box; 0 outside all."""
        depths = [float(np.min(np.minimum(position_m - lower, upper - position_m))) for lower, upper in self._boxes]
        return max([0.0, *depths])


class MotionGate:
    """One thread owns an object. `check` is called once for every goal that is to be sent.

    `longest_s`: a goal moves by no more than is allowed in this time, however late it comes.
    """

    def __init__(self, arm: ArmModel, config: SafetyConfig, period_s: float, longest_s: float) -> None:
        self._arm, self._config, self._period_s, self._longest_s = arm, config, period_s, longest_s
        self._lower_m, self._upper_m = np.array(config.workspace_lower_m), np.array(config.workspace_upper_m)
        self._keep_out = KeepOut(config.keep_out_m)
        self._speed = arm.velocity_rad_s * config.velocity_fraction
        self.anchor()

    def anchor(self) -> None:
        """The arm rests somewhere: what was sent before does not count any more."""
        self._outside_m: np.ndarray | None = None
        self._rest()

    def _rest(self) -> None:
        self._velocity = np.zeros(self._arm.joints)
        self._elapsed_s = self._period_s

    def check(self, passage: Passage) -> Verdict:
        """GOOD, or why the goal must not be sent. A refused goal leaves the arm at rest on the one before."""
        verdict = self._judge(passage)
        if verdict.ok:
            if passage.elapsed_s < _SAME_TIME_S and self._still(passage.goal_rad - passage.previous_rad):
                return verdict  # a clock that was read twice: nothing was moved, and nothing was braked
            elapsed_s = max(passage.elapsed_s, _ROUNDING)
            self._velocity = (passage.goal_rad - passage.previous_rad) / elapsed_s
            # How late this goal was says nothing about the time that the next may take to speed up.
            self._elapsed_s = min(elapsed_s, self._longest_s)
        else:
            self._rest()
        return verdict

    @staticmethod
    def _still(change_rad: np.ndarray) -> bool:
        return float(np.max(np.abs(change_rad))) < _STILL_RAD

    def _judge(self, passage: Passage) -> Verdict:
        goal, previous = passage.goal_rad, passage.previous_rad
        if goal.shape != (self._arm.joints,) or not np.isfinite(goal).all():
            return Verdict(False, "F06", f"joint goal {goal} is not {self._arm.joints} finite numbers")
        change = goal - previous
        if not passage.anchored and float(np.max(np.abs(goal - passage.measured_rad))) > _ANCHOR_RAD:
            return Verdict(False, "F22", "the first goal does not begin at the measured posture")
        if self._still(change):
            return GOOD  # staying is always allowed
        return (
            self._limits(goal, previous, change, passage)
            or self._lead(goal, previous, passage)
            or self._region(goal, previous, passage.mode)
            or GOOD
        )

    def _lead(self, goal: np.ndarray, previous: np.ndarray, passage: Passage) -> Verdict | None:
        """A goal may not run away from an arm that does not follow; the way back to it is open. What brakes a stopped
        arm is let through."""
        lead, before = np.abs(goal - passage.measured_rad), np.abs(previous - passage.measured_rad)
        runaway = (lead > self._config.max_joint_lead_rad) & (lead > before + _ROUNDING)
        if passage.mode in _LATCHED or not runaway.any():
            return None
        joint = int(np.argmax(lead * runaway))
        ahead = f"goal of {self._arm.joint_names[joint]} would be {lead[joint]:.2f} rad ahead of the measured joint"
        limit = f"limit {self._config.max_joint_lead_rad} rad"
        return Verdict(False, "F10", f"{ahead}, {limit}; is the arm blocked, or without power?")

    def _limits(self, goal: np.ndarray, previous: np.ndarray, change: np.ndarray, passage: Passage) -> Verdict | None:
        beyond = np.maximum(self._arm.lower_rad - goal, goal - self._arm.upper_rad)
        before = np.maximum(self._arm.lower_rad - previous, previous - self._arm.upper_rad)
        if (beyond > np.maximum(before, 0.0) + _ROUNDING).any():
            joint = self._arm.joint_names[int(np.argmax(beyond - before))]
            return Verdict(False, "F10", f"goal of {joint} is beyond its position limit")
        elapsed_s = max(passage.elapsed_s, _ROUNDING)
        speed = np.abs(change) / min(elapsed_s, self._longest_s)
        if (speed > self._speed * (1.0 + 1e-3) + _ROUNDING).any():
            joint = self._arm.joint_names[int(np.argmax(speed / self._speed))]
            return Verdict(False, "F10", f"goal of {joint} moves at {np.max(speed):.2f} rad/s, too fast")
        velocity = change / elapsed_s
        if passage.mode in _LATCHED and (np.abs(velocity) > np.abs(self._velocity) + 1e-3).any():
            return Verdict(False, "F22", "a goal moves although the arm is stopped")
        if self._arm.acceleration_rad_s2 is not None:
            # Mean velocities of neighbouring intervals lie half of both apart. All of a late interval counts: in it the
            # arm has braked by itself, and the goal goes on from there.
            allowed = self._arm.acceleration_rad_s2 * 0.5 * (elapsed_s + self._elapsed_s) * (1.0 + 1e-3)
            if (np.abs(velocity - self._velocity) > allowed + _ROUNDING).any():
                return Verdict(False, "F10", "a joint's goal speeds up or brakes beyond its acceleration limit")
        return None

    def _region(self, goal: np.ndarray, previous: np.ndarray, mode: Mode) -> Verdict | None:
        """Keep-out boxes always; the workspace box, whose floor is the table, except on the way to a fixed posture."""
        here_m, there_m = self._arm.forward(previous)[1], self._arm.forward(goal)[1]
        if self._keep_out.depth_m(there_m) > self._keep_out.depth_m(here_m) + _ROUNDING:
            return Verdict(False, "F08", "goal leads into a keep-out box")
        if self._outside_m is None or mode is Mode.HOMING:
            # go_to has looked at the whole way: a sleep posture may lie lower than the policy may go.
            self._outside_m = self._excess_m(here_m)
        if mode is Mode.HOMING:
            return None
        # From outside only the way in is open: what has been gained is kept, but for the arc of the way.
        outside_m = self._excess_m(there_m)
        if (outside_m > self._outside_m + _ARC_M).any():
            axis = "xyz"[int(np.argmax(outside_m - self._outside_m))]
            return Verdict(False, "F08", f"goal leaves the workspace box along {axis}")
        self._outside_m = np.minimum(self._outside_m, outside_m)
        return None

    def _excess_m(self, position_m: np.ndarray) -> np.ndarray:
        """How far a point is outside the workspace box, per axis; 0 inside."""
        return np.maximum(np.maximum(self._lower_m - position_m, position_m - self._upper_m), 0.0)
