"""The WidowX servos' error registers, read without waiting; a driver of fakes in place of services."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("interbotix_xs_msgs.msg")

from interbotix_xs_msgs.msg import JointGroupCommand

from instructvla_ros.control import WX250S, Command, Mode
from instructvla_ros.nodes.driver_client import DriverClient, error_names
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.settings import DriverSettings


class FakeFuture:
    """A future that is answered when the test wants it."""

    def __init__(self) -> None:
        self._done: Any = None
        self._callback: Any = None

    def add_done_callback(self, callback: Any) -> None:
        self._callback = callback

    def answer(self, *values: int) -> None:
        self._done = SimpleNamespace(values=list(values))
        self._callback(self)

    def done(self) -> bool:
        return self._done is not None

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self._done


class FakeClient:
    """A service client that remembers what it was asked."""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, []  # type: ignore[var-annotated]

    def service_is_ready(self) -> bool:
        return True

    def call_async(self, request: Any) -> FakeFuture:
        self.asked.append((request, FakeFuture()))
        return self.asked[-1][1]

    def remove_pending_request(self, _: Any) -> None:
        pass


class FakeNode:
    """As much of a node as the driver's client uses."""

    def __init__(self) -> None:
        self.clients: dict[str, FakeClient] = {}
        self.published: list[Any] = []
        self.publishers: dict[str, int] = {}

    def create_client(self, _: Any, name: str) -> FakeClient:
        return self.clients.setdefault(name, FakeClient(name))

    def create_publisher(self, _: Any, topic: str, *__: Any) -> Any:
        return SimpleNamespace(publish=self.published.append, topic_name=topic)

    def count_publishers(self, topic: str) -> int:
        return self.publishers[topic]

    def create_timer(self, period_s: float, callback: Any) -> Any:
        self.period_s, self.poll = period_s, callback
        return callback


class Bench:
    """A client whose polls the test makes and answers."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.client = DriverClient(self.node, DriverSettings(), lambda: 0.0)
        self.registers = self.node.clients["/wx250s/get_motor_registers"]

    def poll(self, arm: tuple[int, ...] = (0,) * 6, gripper: tuple[int, ...] = (0,)) -> None:
        self.node.poll()
        (_, first), (_, second) = self.registers.asked[-2:]
        first.answer(*arm)
        second.answer(*gripper)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_f24_arm_and_gripper_are_asked_once_a_second(bench: Bench) -> None:
    assert bench.node.period_s == 1.0
    bench.poll()
    asked = [(r.cmd_type, r.name, r.reg) for r, _ in bench.registers.asked]
    assert asked == [("group", "arm", "Hardware_Error_Status"), ("single", "gripper", "Hardware_Error_Status")]
    assert bench.client.problem == ""


def test_f24_an_error_of_any_servo_is_a_problem_in_words(bench: Bench) -> None:
    bench.poll(arm=(0, 0, 32, 0, 0, 0))
    assert "overload" in bench.client.problem
    assert bench.client.problem_id == "F24"
    with pytest.raises(SetupError, match="overload"):
        bench.client.recover()


def test_f24_an_empty_answer_is_no_error(bench: Bench) -> None:
    bench.poll(arm=(), gripper=())
    assert bench.client.problem == "" and bench.client.notice == ""


def test_f24_a_driver_that_does_not_answer_is_noticed_and_asked_again(bench: Bench) -> None:
    bench.node.poll()
    bench.node.poll()
    assert "does not answer" in bench.client.notice
    assert len(bench.registers.asked) == 4
    bench.poll()
    assert bench.client.notice == ""


def test_f24_only_servos_in_error_are_rebooted_and_modes_are_set_anew_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(bench.client, "prepare", lambda: prepared.append(True))
    bench.client.recover()
    assert prepared == [], "nothing was wrong"
    bench.poll(gripper=(4,))
    bench.client.reboot()
    (request, _), *more = bench.node.clients["/wx250s/reboot_motors"].asked
    assert (request.cmd_type, request.name, request.smart_reboot) == ("single", "gripper", True) and not more
    bench.poll()
    bench.client.recover()
    bench.client.recover()
    assert prepared == [True]


def test_f24_from_a_servos_fault_to_the_reset_no_joint_goal_is_sent(bench: Bench) -> None:
    def goals(mode: Mode) -> int:
        bench.node.published.clear()
        bench.client.send(Command(WX250S.home_rad, 10.0, None, mode, "", ""))
        return sum(isinstance(message, JointGroupCommand) for message in bench.node.published)

    assert goals(Mode.STOPPED) == 1
    bench.poll(arm=(0, 32, 0, 0, 0, 0))
    assert goals(Mode.STOPPED) == 0
    bench.poll()  # rebooted: it has its torque again
    assert goals(Mode.STOPPED) == 0
    assert len(bench.node.published) == 1, "the gripper goes on"
    assert goals(Mode.HOLD) == 1, "after the reset the goal is where the arm is"


@pytest.mark.parametrize(
    ("joint_group", "joint_single", "joint_trajectory", "others"),
    [(1, 1, 0, 0), (2, 1, 0, 1), (1, 3, 0, 2), (1, 1, 1, 1)],
)
def test_f14_whoever_else_publishes_what_the_driver_obeys_is_counted(
    bench: Bench, joint_group: int, joint_single: int, joint_trajectory: int, others: int
) -> None:
    counted = {"joint_group": joint_group, "joint_single": joint_single, "joint_trajectory": joint_trajectory}
    bench.node.publishers = {f"/wx250s/commands/{name}": count for name, count in counted.items()}
    assert bench.client.other_publishers() == others


@pytest.mark.parametrize(("status", "words"), [(1, "input voltage"), (0x24, "overheating, overload"), (2, "status 2")])
def test_f24_the_bits_of_the_register_have_names(status: int, words: str) -> None:
    assert error_names(status) == words
