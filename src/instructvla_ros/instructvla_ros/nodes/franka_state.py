"""What a Franka says of itself: its mode and its errors, and whether the arm may be told where to go.

In any mode but MOVE the arm's controllers take no goals, or take them up at once when the mode returns. So nothing is
streamed then, and the target is anchored anew before anything is sent again. A robot that says nothing for long has
lost its driver, although joint states may go on: joint_state_publisher, which gathers them, repeats what it heard last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from franka_msgs.msg import FrankaRobotState

from instructvla_ros.control.silence import Silence
from instructvla_ros.control.watch import Holdable

FAULT_ID = "F22"
MOVE = FrankaRobotState.ROBOT_MODE_MOVE
STOPPING = {
    FrankaRobotState.ROBOT_MODE_GUIDING: "is guided by hand",
    FrankaRobotState.ROBOT_MODE_REFLEX: "is in a reflex",
    FrankaRobotState.ROBOT_MODE_USER_STOPPED: "is stopped by the user stop",
    FrankaRobotState.ROBOT_MODE_AUTOMATIC_ERROR_RECOVERY: "recovers from an error by itself",
}
"""Modes that latch a stop."""
_CEASED_AGES = 4.0  # so many of the age at which it holds: a driver that is started anew is away for longer


@dataclass(frozen=True)
class RobotReport:
    """The last robot state: its mode, its errors in words, and when it was heard on a steady clock."""

    mode: int
    errors: str
    heard_s: float


class Ceasing(Holdable, Protocol):
    """A controller that can also be told that the robot has fallen silent."""

    def cease(self, why: str) -> None:
        """Latch F24; once until the reset."""


class RobotWatch:
    """`note` is called by the executor's thread, which replaces the report as a whole, `apply` and `streams` by the
    control thread. A robot that was never heard holds nothing: fake hardware has no robot state."""

    def __init__(self, topic: str, max_age_s: float) -> None:
        self._topic, self._max_age_s = topic, max_age_s
        self._ceased_s = _CEASED_AGES * max_age_s
        self._report: RobotReport | None = None
        self._held = False
        self._counted: RobotReport | None = None
        self._silence = Silence()

    def note(self, mode: int, errors: str, steady_s: float) -> None:
        """A robot state was heard."""
        self._report = RobotReport(mode, errors, steady_s)

    @property
    def mode(self) -> int | None:
        """The mode heard last, or None before the first."""
        return None if self._report is None else self._report.mode

    @property
    def problem(self) -> str:
        """Why the arm must be stopped until a reset, or ""."""
        report = self._report
        if report is None or report.mode not in STOPPING:
            return ""
        return f"the robot {STOPPING[report.mode]}" + (f": {report.errors}" if report.errors else "")

    def outdated(self, steady_s: float) -> bool:
        """Whether the robot was heard once, and not lately."""
        report = self._report
        return report is not None and steady_s - report.heard_s > self._max_age_s

    def why_held(self, steady_s: float) -> str:
        """Why nothing may be streamed now, or ""."""
        report = self._report
        if report is None:
            return ""
        age_s = steady_s - report.heard_s
        if age_s > self._max_age_s:
            return (
                f"robot state on {self._topic} is {age_s:.1f} s old, limit {self._max_age_s:g} s: a reflex or the user "
                "stop would not be noticed; is its broadcaster active?"
            )
        if report.mode == MOVE:
            return ""
        if report.mode == FrankaRobotState.ROBOT_MODE_IDLE:
            return "no controller drives the arm (robot mode idle, expected move); activate one, or call reset"
        return self.problem or f"the robot is in mode {report.mode}, expected {MOVE} (move); see Franka Desk"

    def forgive(self) -> None:
        """The silence so far does not count."""
        self._silence.forgive()

    def _ceased(self, now_s: float) -> bool:
        """Counted as with joint states."""
        report, before = self._report, self._counted
        self._counted = report
        if report is not before:
            self._silence.note()
        return self._silence.look(now_s) > self._ceased_s

    def apply(self, controller: Ceasing, now_s: float, steady_s: float) -> None:
        """Let the controller hold, or not any more, or cease. Before each tick."""
        why = self.why_held(steady_s)
        if why or self._held:
            controller.hold_for(FAULT_ID, why)
        if self._held and not why:
            controller.reanchor(now_s)  # the arm may stand anywhere by now
        self._held = bool(why)
        if self._ceased(now_s):
            controller.cease(f"no robot state on {self._topic} for {self._ceased_s:g} s")

    def streams(self, steady_s: float) -> bool:
        """Whether what was ticked may be sent: the mode was MOVE at the tick, and is so still."""
        return not self._held and not self.why_held(steady_s)
