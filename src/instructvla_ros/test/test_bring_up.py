"""What the lifecycle manager does with whom, on an injected clock; and its questions, with services that are played."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from instructvla_ros.control.bring_up import NOT_RUNNING, SILENT_S, BringUp

REASONING, EXPERT, CONTROLLER = NAMES = ("reasoning_node", "action_expert_node", "controller_node")


class Plan(BringUp):
    """Processes 1-a, 1-b and so on, all heard at 10 s."""

    def __init__(self) -> None:
        super().__init__(NAMES, attempts=3)
        self.hear(10.0)

    def hear(self, now_s: float, but: str = "", life: str = "a") -> None:
        for name in NAMES:
            if name != but:
                self.members[name].heard(f"1-{life}", now_s)

    def told(self, *states: str, life: str = "a") -> None:
        for name, state in zip(NAMES, states, strict=True):
            self.members[name].found(state, f"1-{life}")

    def restart(self, name: str, now_s: float = 11.0) -> bool:
        return self.members[name].heard("1-b", now_s)


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
def active(plan: Plan) -> Plan:
    plan.told("active", "active", "active")
    return plan


def test_nodes_are_configured_at_once_and_activated_in_their_order(plan: Plan) -> None:
    plan.told("unconfigured", "unconfigured", "inactive")
    assert plan.to_configure() == [REASONING, EXPERT] and plan.to_activate() is None
    plan.told("inactive", "inactive", "inactive")
    assert plan.to_configure() == [] and plan.to_activate() == REASONING
    plan.told("active", "inactive", "inactive")
    assert plan.to_activate() == EXPERT
    plan.told("active", "active", "active")
    assert plan.to_activate() is None and plan.done() and plan.all_active(10.0)


@pytest.mark.parametrize("state", ["inactive", "unconfigured"])
def test_what_was_taken_out_by_hand_is_left_alone_and_reported(active: Plan, state: str) -> None:
    active.members[EXPERT].found(state, "1-a")
    assert active.to_configure() == [] and active.to_activate() is None
    assert active.members[EXPERT].left_alone and active.members[EXPERT].state(10.0) == state
    assert not active.all_active(10.0)


def test_what_was_taken_out_by_hand_comes_back_by_hand(active: Plan) -> None:
    active.members[EXPERT].found("inactive", "1-a")
    active.members[EXPERT].found("active", "1-a")
    assert not active.members[EXPERT].left_alone and active.all_active(10.0)


def test_a_node_that_came_back_as_a_new_process_is_brought_up_beside_one_that_was_taken_out(active: Plan) -> None:
    active.members[REASONING].found("inactive", "1-a")
    assert active.restart(EXPERT) and not active.restart(EXPERT)
    active.members[EXPERT].found("unconfigured", "1-b")
    assert active.to_configure() == [EXPERT]
    active.members[EXPERT].found("inactive", "1-b")
    assert active.to_activate() == EXPERT


def test_f12_a_new_process_with_the_same_process_id_is_another(active: Plan) -> None:
    assert active.restart(EXPERT), "1-b and 1-a have the id 1 both"
    assert active.members[EXPERT].state(11.0) == "unknown" and not active.all_active(11.0)


def test_f12_what_a_dead_process_still_said_counts_for_nothing(active: Plan) -> None:
    active.restart(EXPERT)
    active.members[EXPERT].found("active", "1-a")
    assert not active.all_active(11.0)
    active.members[EXPERT].found("unconfigured", "1-b")
    assert active.to_configure() == [EXPERT]


def test_f12_a_silent_node_is_not_active_whatever_it_said_before(active: Plan) -> None:
    active.hear(10.0 + SILENT_S, but=EXPERT)
    assert active.all_active(10.0 + SILENT_S)
    assert not active.all_active(10.01 + SILENT_S)
    assert active.members[EXPERT].state(10.01 + SILENT_S) == "silent"
    active.members[EXPERT].found(NOT_RUNNING, "1-a")
    assert active.members[EXPERT].state(10.01 + SILENT_S) == NOT_RUNNING
    assert not active.members[EXPERT].left_alone and active.to_activate() is None


def test_after_as_many_failures_as_allowed_a_node_is_given_up_until_it_is_another_process(plan: Plan) -> None:
    plan.told("unconfigured", "inactive", "inactive")
    for _ in range(3):
        assert plan.to_configure() == [REASONING]
        plan.members[REASONING].failed("1-a")
    assert plan.to_configure() == [] and plan.gave_up() == [REASONING]
    plan.restart(REASONING)
    plan.members[REASONING].failed("1-a")
    plan.members[REASONING].found("unconfigured", "1-b")
    assert plan.to_configure() == [REASONING] and plan.gave_up() == []


def test_a_node_asked_before_its_first_heartbeat_is_the_one_that_is_heard_then() -> None:
    plan = BringUp(NAMES, 3)
    member = plan.members[EXPERT]
    asked = member.process_id
    member.heard("1-a", 10.0)
    assert not member.gone(asked, 10.0, SILENT_S)
    member.found("unconfigured", asked)
    assert plan.to_configure() == [EXPERT]


# The manager's own questions.


class Played:
    """A request that nobody answers. `news` happens while it is waited for."""

    def __init__(self, news: Callable[[], None], polls: int = 20) -> None:
        self._news, self._polls = news, polls
        self.removed = False

    def wait(self, _: float) -> bool:
        self._news()
        self._polls -= 1
        assert self._polls > 0, "the manager still waits for a process that is gone"
        return False

    def remove_pending_request(self, _: Any) -> None:
        self.removed = True


@pytest.fixture
def manager(new_ros_domain: Callable[[], int]) -> Any:
    """A manager node that does nothing by itself, on a clock that stands still."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.parameter import Parameter

    from instructvla_ros.nodes.lifecycle_manager_node import LifecycleManagerNode

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_ros_domain())
    node = LifecycleManagerNode(context=context, parameter_overrides=[Parameter("autostart", value=False)])
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.mark.ros
def test_f12_a_question_to_a_killed_process_ends_with_the_first_heartbeat_of_the_new_one(manager: Any) -> None:
    from diagnostic_msgs.msg import DiagnosticStatus

    def heartbeat(life: str) -> None:
        manager._on_heartbeat(DiagnosticStatus(name=EXPERT, hardware_id=f"1-{life}"))

    heartbeat("a")
    played = Played(lambda: heartbeat("b"))
    assert manager._answer(EXPERT, (played, None, played), "1-a", 1e6) is None
    assert played.removed


@pytest.mark.ros
def test_the_manager_says_how_a_node_that_was_deactivated_by_hand_is_activated_again(manager: Any) -> None:
    member = manager._bring_up.members[EXPERT]
    member.heard("1-a", 10.0)
    for state in ("active", "inactive"):
        member.found(state, "1-a")
    active, text = manager._summary()
    assert not active and "ros2 lifecycle set /action_expert_node activate" in text


@pytest.mark.ros
def test_f12_every_life_of_a_node_has_another_identity_of_which_the_kill_command_finds_the_process(
    new_ros_domain: Callable[[], int],
) -> None:
    import os

    rclpy = pytest.importorskip("rclpy")
    from instructvla_ros.cli.fault import process_of
    from instructvla_ros.nodes.managed import ManagedNode

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_ros_domain())
    first, second = (ManagedNode(name, [], context=context) for name in ("one", "two"))
    try:
        assert first._heartbeat.hardware_id != second._heartbeat.hardware_id

        class Client:
            def subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
                threading.Thread(target=callback, args=(first._heartbeat,)).start()

        assert process_of(Client(), "one") == os.getpid()
    finally:
        for node in (first, second):
            node.destroy_node()
        rclpy.try_shutdown(context=context)
