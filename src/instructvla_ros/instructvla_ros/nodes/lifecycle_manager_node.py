"""lifecycle_manager_node: configures all managed nodes at once, then activates them in the order given.

Works the same under `ros2 launch` and under `instructvla up`. A transition that fails is tried again a few
times, because a driver or camera may come up later; what the node said about it is repeated in /diagnostics
and by the service `~/is_active` (std_srvs/Trigger: success means that all are active). A node is brought up once in
the life of its process: one that was deactivated by hand stays so (control/bring_up.py).
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

from instructvla_ros.control.bring_up import NOT_RUNNING, SILENT_S, BringUp
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
_OFFER_TIMEOUT_S = 5.0
_QUERY_TIMEOUT_S = 1.0  # a request is lost when DDS does not know the new process yet: ask again rather than wait
_BOND_S = 4.0
_POLL_S = 0.05  # how soon it is noticed, while others are waited for, that they are gone or that this node ends
_AGAIN_S = 0.2  # until the next round when somebody has not answered


class LifecycleManagerNode(Node):
    """Thread rule: callbacks store or read; transitions are made one after another in the owner thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__("lifecycle_manager_node", **options)
        declare(self, MANAGER)
        values = read(self, MANAGER)
        self._names: list[str] = list(values["node_names"])
        self._retry_s = float(values["retry_period_s"])
        self._timeout_s = float(values["transition_timeout_s"])
        self._bring_up = BringUp(self._names, int(values["attempts"]))
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
            self._thread.stop(_OFFER_TIMEOUT_S)
        super().destroy_node()

    # Owner thread.

    def _step(self) -> float:
        """One round: configure what is to be configured; when all are, activate. Afterwards only watch."""
        again = False
        for name, member in self._bring_up.members.items():
            asked = member.process_id
            running = not member.silent(time.monotonic())
            answer = self._answer(name, self._ask(self._query[name], GetState.Request()), asked) if running else None
            again = again or answer is None
            member.found(NOT_RUNNING if answer is None else _LABELS.get(answer.current_state.id, "busy"), asked)
        self._transition(self._bring_up.to_configure(), "inactive")
        while (ready := self._bring_up.to_activate()) is not None and self._transition([ready], "active"):
            pass
        return _AGAIN_S if again else self._retry_s

    def _transition(self, names: Sequence[str], goal: str) -> bool:
        """Ask all these nodes at once, then take their answers; whether all have made it."""
        transition = Transition(id=_TRANSITIONS[goal])
        members = {name: self._bring_up.members[name] for name in names}
        processes = {name: member.process_id for name, member in members.items()}
        asked = {name: self._ask(self._change[name], ChangeState.Request(transition=transition)) for name in names}
        end_s, made = time.monotonic() + self._timeout_s, True
        for name, member in members.items():
            answer = self._answer(name, asked[name], processes[name], end_s - time.monotonic(), _BOND_S)
            if answer is not None and answer.success:
                member.found(goal, processes[name])
                self.get_logger().info(f"{name} is {goal}")
            else:
                made = False
                member.failed(processes[name])
                self._explain(name, goal, answered=answer is not None)
        if names and self._bring_up.done():
            self.get_logger().info("all nodes are active")
        return made

    def _explain(self, name: str, goal: str, *, answered: bool) -> None:
        why = self._said.get(name, "see its log") if answered else "no answer in time"
        if self._bring_up.members[name].attempts_left == 0:
            self.get_logger().error(f"{name} did not become {goal}: {why}; giving up")
        elif self._told.get(name) != why:
            self.get_logger().warning(f"{name} did not become {goal}: {why}; trying again")
            self._told[name] = why

    def _ask(self, client: Any, request: Any) -> Any:
        """Send a request; None when nobody offers the service. The executor's thread delivers the answer."""
        end_s = time.monotonic() + _OFFER_TIMEOUT_S
        while not client.wait_for_service(_POLL_S):
            if self._ending.is_set() or time.monotonic() >= end_s:
                return None
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        return client, future, answered

    def _answer(
        self, name: str, asked: Any, process_id: str, timeout_s: float = _QUERY_TIMEOUT_S, silent_s: float = SILENT_S
    ) -> Any:
        """The answer to a request, or None when there is none in time or the process that was asked is gone.

        DDS lists the services of a process that was killed for many seconds more, so only heartbeats tell.
        """
        if asked is None:
            return None
        client, future, answered = asked
        member, end_s = self._bring_up.members[name], time.monotonic() + timeout_s
        while not answered.wait(_POLL_S):
            now_s = time.monotonic()
            if self._ending.is_set() or member.gone(process_id, now_s, silent_s) or now_s >= end_s:
                client.remove_pending_request(future)
                return None
        return future.result()

    def _on_failure(self, trace: str) -> None:
        self.get_logger().fatal(trace)
        self.failed = True

    # Executor's thread.

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            namespace, _, name = status.name.rpartition("/")
            if namespace == self.get_namespace().lstrip("/") and name in self._bring_up.members:
                self._said[name] = status.message if status.level != DiagnosticStatus.OK else ""

    def _summary(self) -> tuple[bool, str]:
        now_s, parts = time.monotonic(), []
        for name, member in self._bring_up.members.items():
            state = member.state(now_s)
            said = self._said.get(name, "") if state != "active" else ""
            if member.left_alone:
                said = f"it was active and is left alone: ros2 lifecycle set {self._full_name(name)} activate"
            parts.append(f"{name} {state}" + (f" ({said})" if said else ""))
        return self._bring_up.all_active(now_s), "; ".join(parts)

    def _full_name(self, name: str) -> str:
        return f"{self.get_namespace().rstrip('/')}/{name}"

    def _on_heartbeat(self, message: DiagnosticStatus) -> None:
        member = self._bring_up.members.get(message.name)
        if member is not None and member.heard(message.hardware_id, time.monotonic()):
            self.get_logger().warning(f"{message.name} was started again; bringing it up")
            if self._thread is not None:
                self._thread.wake()

    def _on_is_active(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._summary()
        return response

    def _publish_diagnostics(self) -> None:
        active, text = self._summary()
        now_s, members = time.monotonic(), self._bring_up.members
        status = DiagnosticStatus(name=self.get_fully_qualified_name().lstrip("/"), hardware_id="instructvla")
        status.level = DiagnosticStatus.OK if active else DiagnosticStatus.WARN
        silent = [name for name, member in members.items() if member.silent(now_s, _BOND_S)]
        if self._bring_up.gave_up() or silent:
            status.level = DiagnosticStatus.ERROR
        if silent:
            active, text = False, f"no heartbeat of {', '.join(silent)} for {_BOND_S:g} s (F12); {text}"
        status.message = "all nodes are active" if active else text
        status.values = [KeyValue(key=name, value=member.state(now_s)) for name, member in members.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point."""
    main_of(LifecycleManagerNode)


if __name__ == "__main__":
    main()
