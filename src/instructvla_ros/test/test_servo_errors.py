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

    def poll(
        self,
        arm: tuple[int, ...] = (0,) * 6,
        gripper: tuple[int, ...] = (0,),
        shoulder_shadow: tuple[int, ...] = (0,),
        elbow_shadow: tuple[int, ...] = (0,),
    ) -> None:
        self.node.poll()
        answers = (arm, gripper, shoulder_shadow, elbow_shadow)
        for (_, future), answer in zip(self.registers.asked[-4:], answers, strict=True):
            future.answer(*answer)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_f24_arm_gripper_and_the_second_servos_are_asked_once_a_second(bench: Bench) -> None:
    assert bench.node.period_s == 1.0
    bench.poll()
    asked = [(r.cmd_type, r.name, r.reg) for r, _ in bench.registers.asked]
    names = [("group", "arm"), ("single", "gripper"), ("single", "shoulder_shadow"), ("single", "elbow_shadow")]
    assert asked == [(*name, "Hardware_Error_Status") for name in names]
    assert bench.client.problem == ""


def test_f24_an_error_of_any_servo_is_a_problem_in_words(bench: Bench) -> None:
    bench.poll(arm=(0, 0, 32, 0, 0, 0))
    assert "overload" in bench.client.problem
    assert bench.client.problem_id == "F24"
    with pytest.raises(SetupError, match="overload"):
        bench.client.recover(anew=False)


def test_f24_an_overload_of_a_second_servo_is_a_problem_and_that_servo_is_rebooted(bench: Bench) -> None:
    bench.poll(elbow_shadow=(32,))
    assert "overload" in bench.client.problem
    bench.client.reboot()
    ((request, _),) = bench.node.clients["/wx250s/reboot_motors"].asked
    assert (request.cmd_type, request.name) == ("single", "elbow_shadow")
    bench.poll()
    assert bench.client.problem == ""


def test_f24_a_driver_that_does_not_know_the_register_has_no_errors(bench: Bench) -> None:
    for _ in range(3):
        bench.poll(arm=(), gripper=(), shoulder_shadow=(), elbow_shadow=())
        assert bench.client.problem == "" and bench.client.notice == ""


def test_f24_a_driver_that_does_not_know_the_second_servos_has_no_errors(bench: Bench) -> None:
    for _ in range(3):
        bench.poll(shoulder_shadow=(), elbow_shadow=())
        assert bench.client.problem == "" and bench.client.notice == ""


@pytest.mark.parametrize(
    "short", [{"arm": (0, 0)}, {"arm": ()}, {"gripper": ()}, {"shoulder_shadow": ()}], ids=lambda short: str(short)
)
def test_f24_a_servo_that_cannot_be_read_any_more_is_a_fault(bench: Bench, short: dict[str, tuple[int, ...]]) -> None:
    bench.poll()
    bench.poll(**short)
    assert bench.client.problem == "", "one packet may be lost"
    bench.poll(**short)
    (name,) = short
    assert f"servo(s) of {name} can be read" in bench.client.problem
    assert "see to cables. Then call reset" in bench.client.problem, "a reboot does not mend a cable"
    bench.client.reboot()
    assert [request.name for request, _ in bench.node.clients["/wx250s/reboot_motors"].asked] == [name]
    bench.poll()
    assert bench.client.problem == ""


def test_f24_packets_lost_now_and_then_are_no_fault(bench: Bench) -> None:
    for _ in range(5):
        bench.poll(arm=(0, 0))
        assert bench.client.problem == ""
        bench.poll(gripper=())
        assert bench.client.problem == ""


def test_f24_an_error_in_an_answer_that_is_cut_short_counts_at_once(bench: Bench) -> None:
    bench.poll()
    bench.poll(arm=(0, 32))
    assert "overload" in bench.client.problem and "reboot_motors" in bench.client.problem


def test_f24_a_servo_that_cannot_be_read_from_the_first_is_a_fault_once_another_has_answered(bench: Bench) -> None:
    for _ in range(3):
        bench.poll(arm=())
    assert "only 0 of 6 servo(s) of arm" in bench.client.problem


@pytest.mark.parametrize("answer", [(), (0,), (0, 0)])
def test_f24_a_known_fault_is_cleared_by_a_full_answer_alone(bench: Bench, answer: tuple[int, ...]) -> None:
    bench.poll(arm=(0, 0, 32, 0, 0, 0))
    bench.poll(arm=answer)
    assert bench.client.problem
    bench.poll()
    assert bench.client.problem == ""


def test_f24_a_driver_that_does_not_answer_is_noticed_and_asked_again(bench: Bench) -> None:
    bench.node.poll()
    bench.node.poll()
    assert "does not answer" in bench.client.notice
    assert len(bench.registers.asked) == 8
    bench.poll()
    assert bench.client.notice == ""


def test_f24_only_servos_in_error_are_rebooted_and_modes_are_set_anew_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(bench.client, "prepare", lambda: prepared.append(True))
    bench.client.recover(anew=False)
    assert prepared == [], "nothing was wrong"
    bench.poll(gripper=(4,))
    bench.client.reboot()
    (request, _), *more = bench.node.clients["/wx250s/reboot_motors"].asked
    assert (request.cmd_type, request.name, request.smart_reboot) == ("single", "gripper", True) and not more
    bench.poll()
    bench.client.recover(anew=False)
    bench.client.recover(anew=False)
    assert prepared == [True]


def test_f13_a_driver_that_was_away_is_looked_at_and_set_up_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(bench.client, "prepare", lambda: done.append("prepare"))
    monkeypatch.setattr(bench.client, "check", lambda: done.append("check"))
    bench.client.recover(anew=True)
    assert done == ["check", "prepare"]

    def absent() -> None:
        raise SetupError("no driver offers /wx250s/get_robot_info")

    monkeypatch.setattr(bench.client, "check", absent)
    with pytest.raises(SetupError, match="no driver"):
        bench.client.recover(anew=True)
    assert done == ["check", "prepare"]


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
