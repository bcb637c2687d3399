"""lifecycle_manager_node: configures all managed nodes at once, then activates them in the order given.

Works the same under `ros2 launch` and under `instructvla up`. A transition that fails is tried again a few
times, because a driver or camera may come up later; what the node said about it is repeated in /diagnostics
and by the service `~/is_active` (std_srvs/Trigger: success means that all are active).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from std_srvs.srv import Trigger

from instructvla_ros.control.watch import Bond
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import OwnerThread, main_of
from instructvla_ros.nodes.parameters import declare, read
from instructvla_ros.nodes.settings import MANAGER

_LABELS = {
    State.PRIMARY_STATE_UNCONFIGURED: "unconfigured",
    State.PRIMARY_STATE_INACTIVE: "inactive",
    State.PRIMARY_STATE_ACTIVE: "active",
    State.PRIMARY_STATE_FINALIZED: "finalized",
}
_TRANSITIONS = {
    "inactive": Transition.TRANSITION_CONFIGURE,
    "active": Transition.TRANSITION_ACTIVATE,
}
_QUERY_TIMEOUT_S = 5.0
_BOND_S = 4.0
_SILENT_S = 2.0  # a node silent for so long is not asked how it is
_POLL_S = 0.2  # how soon the end of this node is noticed while it waits for others


class LifecycleManagerNode(Node):
    """Thread rule: callbacks store or read; transitions are made one after another in the owner thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__("lifecycle_manager_node", **options)
        declare(self, MANAGER)
        values = read(self, MANAGER)
        self._names: list[str] = list(values["node_names"])
        self._retry_s = float(values["retry_period_s"])
        self._timeout_s = float(values["transition_timeout_s"])
        self._attempts_left = dict.fromkeys(self._names, int(values["attempts"]))
        self._attempts = int(values["attempts"])
        self._bonds = {name: Bond() for name in self._names}
        self._states = dict.fromkeys(self._names, "unknown")
        self._said: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self.failed = False
        self._ending = threading.Event()
        self._change = {name: self.create_client(ChangeState, f"{name}/change_state") for name in self._names}
        self._query = {name: self.create_client(GetState, f"{name}/get_state") for name in self._names}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.create_subscription(DiagnosticStatus, "heartbeat", self._on_heartbeat, qos.HEARTBEAT)
        self.create_service(Trigger, "~/is_active", self._on_is_active)
        self.create_timer(1.0, self._publish_diagnostics)
        self._thread: OwnerThread | None = None
        if values["autostart"]:
            self._thread = OwnerThread("bring-up", self._step, self._on_failure)

    def destroy_node(self) -> None:
        """End the owner thread before its clients go."""
        self._ending.set()
        if self._thread is not None:
            self._thread.stop(_QUERY_TIMEOUT_S)
        super().destroy_node()

    # Owner thread.

    def _step(self) -> float:
        """One round: configure what is unconfigured; when nothing is, activate. Afterwards only watch."""
        for name in self._names:
            answer = None if self._silent(name, _SILENT_S) else self._call(name, GetState.Request(), _QUERY_TIMEOUT_S)
            self._states[name] = "not running" if answer is None else _LABELS.get(answer.current_state.id, "busy")
        # All at once: loading a model takes long, and the nodes do not wait for each other to be configured.
        self._transition([n for n in self._names if self._states[n] == "unconfigured"], "inactive")
        if all(state in ("inactive", "active") for state in self._states.values()):
            for name in self._names:
                if self._states[name] == "inactive":
                    self._transition([name], "active")
                    if self._states[name] != "active":
                        break
        return self._retry_s

    def _transition(self, names: Sequence[str], goal: str) -> None:
        """Ask all these nodes at once, then take their answers."""
        transition = Transition(id=_TRANSITIONS[goal])
        names = [name for name in names if self._attempts_left[name] > 0]
        asked = {name: self._ask(self._change[name], ChangeState.Request(transition=transition)) for name in names}
        deadline_s = time.monotonic() + self._timeout_s
        for name in names:
            answer = self._answer(name, asked[name], deadline_s)
            if answer is not None and answer.success:
                self._states[name] = goal
                self.get_logger().info(f"{name} is {goal}")
            else:
                self._explain(name, goal, answered=answer is not None)
        if names and all(state == "active" for state in self._states.values()):
            self.get_logger().info("all nodes are active")

    def _explain(self, name: str, goal: str, *, answered: bool) -> None:
        self._attempts_left[name] -= 1
        why = self._said.get(name, "see its log") if answered else "no answer in time"
        if self._attempts_left[name] == 0:
            self.get_logger().error(f"{name} did not become {goal}: {why}; giving up")
        elif self._told.get(name) != why:
            self.get_logger().warning(f"{name} did not become {goal}: {why}; trying again")
            self._told[name] = why

    def _ask(self, client: Any, request: Any) -> Any:
        """Send a request; None when nobody offers the service. The executor's thread delivers the answer."""
        end_s = time.monotonic() + _QUERY_TIMEOUT_S
        while not client.wait_for_service(_POLL_S):
            if self._ending.is_set() or time.monotonic() >= end_s:
                return None
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        return client, future, answered

    def _silent(self, name: str, limit_s: float) -> bool:
        return self._bonds[name].silent_s(time.monotonic()) > limit_s

    def _answer(self, name: str, asked: Any, deadline_s: float) -> Any:
        """The answer to a request, or None when there is none in time."""
        if asked is None:
            return None
        client, future, answered = asked
        while not answered.wait(_POLL_S):
            if self._ending.is_set() or self._silent(name, _BOND_S) or time.monotonic() >= deadline_s:
                client.remove_pending_request(future)
                return None
        return future.result()

    def _call(self, name: str, request: GetState.Request, timeout_s: float) -> Any:
        return self._answer(name, self._ask(self._query[name], request), time.monotonic() + timeout_s)

    def _on_failure(self, trace: str) -> None:
        self.get_logger().fatal(trace)
        self.failed = True

    # Executor's thread.

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            namespace, _, name = status.name.rpartition("/")
            if namespace == self.get_namespace().lstrip("/") and name in self._states:
                self._said[name] = status.message if status.level != DiagnosticStatus.OK else ""

    def _summary(self) -> tuple[bool, str]:
        parts = []
        for name, state in self._states.items():
            said = self._said.get(name, "") if state != "active" else ""
            parts.append(f"{name} {state}" + (f" ({said})" if said else ""))
        return all(state == "active" for state in self._states.values()), "; ".join(parts)

    def _on_heartbeat(self, message: DiagnosticStatus) -> None:
        bond = self._bonds.get(message.name)
        if bond is None:
            return
        bond.heard(message.hardware_id, time.monotonic())
        if bond.restarted:
            bond.restarted = False
            self._attempts_left[message.name] = self._attempts
            self.get_logger().warning(f"{message.name} was started again; bringing it up")
            if self._thread is not None:
                self._thread.wake()

    def _on_is_active(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._summary()
        return response

    def _publish_diagnostics(self) -> None:
        active, text = self._summary()
        gave_up = [n for n, left in self._attempts_left.items() if left <= 0 and self._states[n] != "active"]
        status = DiagnosticStatus(name=self.get_fully_qualified_name().lstrip("/"), hardware_id="instructvla")
        status.level = DiagnosticStatus.OK if active else DiagnosticStatus.WARN
        silent = [name for name in self._names if self._silent(name, _BOND_S)]
        if gave_up or silent:
            status.level = DiagnosticStatus.ERROR
        if silent:
            active, text = False, f"no heartbeat of {', '.join(silent)} for {_BOND_S:g} s (F12); {text}"
        status.message = "all nodes are active" if active else text
        status.values = [KeyValue(key=name, value=state) for name, state in self._states.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point."""
    main_of(LifecycleManagerNode)


if __name__ == "__main__":
    main()
