"""The Franka Hand through its actions, never waiting: widths are wanted, and what comes of them is noted.

Two interfaces: the vendor's own actions (`move` to open, `grasp` to close with a force) or control_msgs/GripperCommand,
whose position is half the width: the driver doubles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_msgs.action import GripperCommand
from franka_msgs.action import Grasp, Move
from rclpy.action import ActionClient

from instructvla_ros.control.franka import FULL_WIDTH_M
from instructvla_ros.nodes.settings_franka import GripperSettings

_PERIOD_S = 0.05


@dataclass(eq=False)
class _Request:
    """A width that was sent and not answered yet; one that was cancelled meanwhile ends with its acceptance."""

    width_m: float
    cancelled: bool = False


class FrankaGripper:
    """`want` and `cancel` are called by one thread and only store; a timer of the node does the rest.

    `notice` says what does not work; the arm may move nevertheless.
    """

    def __init__(self, node: Any, settings: GripperSettings) -> None:
        self._node, self._settings = node, settings
        self.notice = ""
        self._wanted_m: float | None = None
        self._sent_m: float | None = None
        self._sent_ns = 0
        self._failed = False  # refused, or ended in an error: the same width is sent again after the time-out
        self._waiting: _Request | None = None  # for its answer; given up after the time-out
        self._unanswered: list[_Request] = []
        self._handles: list[Any] = []  # of goals under way
        self._cancel = False
        self._clients: list[Any] = []
        if settings.interface == "franka_msgs":
            self._move = self._client(Move, "move")
            self._grasp = self._client(Grasp, "grasp")
        elif settings.interface == "gripper_command":
            self._command = self._client(GripperCommand, "gripper_action")
        self._timer = node.create_timer(_PERIOD_S, self._step)

    def _client(self, kind: Any, action: str) -> ActionClient:
        self._clients.append(ActionClient(self._node, kind, f"{self._settings.name}/{action}"))
        return self._clients[-1]

    def want(self, width_m: float) -> None:
        """The width (m) between the fingers to have; 0 closes on what is there."""
        self._wanted_m = width_m

    def cancel(self) -> None:
        """Want nothing, and cancel what is under way or still to be accepted. What is held already stays held."""
        self._wanted_m, self._cancel = None, True

    def cancel_now(self) -> None:
        """`cancel`, without waiting for the timer. Executor's thread."""
        self.cancel()
        self._step()

    def close(self) -> None:
        """Destroy timer and clients."""
        self._node.destroy_timer(self._timer)
        for client in self._clients:
            client.destroy()

    # Executor's thread.

    def _step(self) -> None:
        if self._cancel:
            self._cancel = False
            self._forget()
        wanted_m = self._wanted_m
        if not self._clients or wanted_m is None:
            return
        if self._waiting is not None:
            if self._age_s() > self._settings.timeout_s:
                self.notice = f"gripper {self._settings.name} does not answer within {self._settings.timeout_s} s (F23)"
                self._waiting, self._sent_m = None, None
            return
        again = self._failed and self._age_s() > self._settings.timeout_s
        if wanted_m != self._sent_m or again:
            self._send(wanted_m)

    def _forget(self) -> None:
        """Nothing was sent, as it were: after a stop the same width is sent again once it is asked for."""
        self._waiting, self._sent_m, self._failed = None, None, False
        for request in self._unanswered:
            request.cancelled = True
        self._cancel_goals()

    def _age_s(self) -> float:
        return float(self._node.get_clock().now().nanoseconds - self._sent_ns) * 1e-9

    def _send(self, width_m: float) -> None:
        client, goal = self._goal(width_m)
        if not client.server_is_ready():
            self.notice = f"no gripper action server at {self._settings.name}; set gripper.name (F23)"
            return
        self._cancel_goals()
        self._sent_m, self._sent_ns, self._failed = width_m, self._node.get_clock().now().nanoseconds, False
        request = self._waiting = _Request(width_m)
        self._unanswered.append(request)
        client.send_goal_async(goal).add_done_callback(lambda answer: self._on_answer(request, answer))

    def _goal(self, width_m: float) -> tuple[ActionClient, Any]:
        settings = self._settings
        width_m = min(max(width_m, 0.0), FULL_WIDTH_M)
        if settings.interface == "gripper_command":
            goal = GripperCommand.Goal()
            goal.command.position = 0.5 * width_m if settings.half_width else width_m
            goal.command.max_effort = settings.force_n
            return self._command, goal
        if width_m > 0.0:
            return self._move, Move.Goal(width=width_m, speed=settings.speed_m_s)
        goal = Grasp.Goal(width=0.0, speed=settings.speed_m_s, force=settings.force_n)
        goal.epsilon.inner, goal.epsilon.outer = settings.epsilon_inner_m, settings.epsilon_outer_m
        return self._grasp, goal

    def _on_answer(self, request: _Request, answer: Any) -> None:
        self._unanswered.remove(request)
        current = self._waiting is request
        if current:
            self._waiting = None
        handle = None if answer.exception() is not None else answer.result()
        if handle is None or not handle.accepted:
            if current:
                self._failed = True
                self.notice = f"gripper {self._settings.name} refused the width {request.width_m} m (F23)"
            return
        if request.cancelled:
            handle.cancel_goal_async()
            return
        if current:
            self.notice = ""
        self._handles.append(handle)  # a late one too: a stop must reach it
        handle.get_result_async().add_done_callback(lambda result: self._on_result(handle, current, result))

    def _on_result(self, handle: Any, current: bool, answer: Any) -> None:
        if handle not in self._handles:
            return
        self._handles.remove(handle)
        error = "" if answer.exception() is not None else getattr(answer.result().result, "error", "")
        if error:
            self._failed |= current
            self.notice = f"gripper: {error} (F23)"

    def _cancel_goals(self) -> None:
        for handle in self._handles:
            handle.cancel_goal_async()
        self._handles = []
