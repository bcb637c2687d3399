"""What a Franka says of itself: its mode and its errors, and whether the arm may be told where to go.

In any mode but MOVE the arm's controllers take no goals, or take them up at once when the mode returns. So nothing is
streamed then, and the target is anchored anew before anything is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass

from franka_msgs.msg import FrankaRobotState

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


@dataclass(frozen=True)
class RobotReport:
    """The last robot state: its mode, its errors in words, and when it was heard on a steady clock."""

    mode: int
    errors: str
    heard_s: float


class RobotWatch:
    """`note` is called by the executor's thread, which replaces the report as a whole, `apply` and `streams` by the
    control thread. A robot that was never heard holds nothing: fake hardware has no robot state."""

    def __init__(self, topic: str, max_age_s: float) -> None:
        self._topic, self._max_age_s = topic, max_age_s
        self._report: RobotReport | None = None
        self._held = False

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

    def apply(self, controller: Holdable, now_s: float, steady_s: float) -> None:
        """Let the controller hold, or not any more. Before each tick."""
        why = self.why_held(steady_s)
        if why or self._held:
            controller.hold_for(FAULT_ID, why)
        if self._held and not why:
            controller.reanchor(now_s)  # the arm may stand anywhere by now
        self._held = bool(why)

    def streams(self, steady_s: float) -> bool:
        """Whether what was ticked may be sent: the mode was MOVE at the tick, and is so still."""
        return not self._held and not self.why_held(steady_s)
