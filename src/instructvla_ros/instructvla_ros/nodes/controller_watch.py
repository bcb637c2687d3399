"""The controller node's ears for its watchdogs: heartbeats of the policy's nodes, and who else commands or plans."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType

from instructvla_ros.control.watch import Watch, WatchConfig
from instructvla_ros.nodes import qos

POLICY_NODES = ("reasoning_node", "action_expert_node")
PLANNER = "action_expert_node"
_COUNT_PERIOD_S = 0.5
_GHOST_S = 30.0  # DDS still counts the publishers of a process that was killed, 20 s by default


class ControllerWatch:
    """Made in the configure transition. `post` hands an action to the control thread, which owns the watch.

    `commanders` says how many others command the arm, `chunk_topic` is the resolved name of the chunks.
    """

    def __init__(
        self,
        node: Any,
        config: WatchConfig,
        post: Callable[[Callable[[], None]], None],
        commanders: Callable[[], int],
        chunk_topic: str,
    ) -> None:
        self._node, self._post = node, post
        self._commanders, self._chunk_topic = commanders, chunk_topic
        self._watch = Watch(config, POLICY_NODES, PLANNER)
        self._planners, self._changed_s = set[str](), -_GHOST_S
        self._subscription = node.create_subscription(DiagnosticStatus, "heartbeat", self._on_heartbeat, qos.HEARTBEAT)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_COUNT_PERIOD_S, self._count, clock=steady)

    def close(self) -> None:
        """Destroy subscription and timer. Executor's thread."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)

    def on_chunk(self) -> None:
        """A chunk has arrived. Control thread."""
        self._watch.on_chunk(time.monotonic())

    def apply(self, controller: Any, now_s: float) -> None:
        """Let the controller hold, or not any more. Control thread, before each tick."""
        self._watch.apply(controller, now_s, time.monotonic())

    def _on_heartbeat(self, message: DiagnosticStatus) -> None:
        name, process, heard_s = message.name, message.hardware_id, time.monotonic()
        if name == PLANNER and process not in self._planners:
            self._changed_s = heard_s if self._planners else self._changed_s
            self._planners.add(process)
        self._post(lambda: self._watch.on_heartbeat(name, process, heard_s))

    def _count(self) -> None:
        number = self._commanders()
        commanders = f"{number} other publisher(s) command the same joints; stop them (F14)" if number > 0 else ""
        planners = self._other_planners()
        self._post(lambda: self._watch.on_others(commanders, planners))

    def _other_planners(self) -> str:
        if time.monotonic() - self._changed_s < _GHOST_S:
            return ""
        planners = self._node.count_publishers(self._chunk_topic)
        if planners > 1:
            return f"{planners} publishers of {self._chunk_topic}, expected one; stop the others (F14)"
        return ""
