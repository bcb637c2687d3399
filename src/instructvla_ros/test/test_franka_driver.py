"""The Franka's driver and its hand: fakes in place of topics and actions, and a clock of the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from instructvla_ros_fakes import Answer, FakeActions, Goal  # registered by conftest.py

pytest.importorskip("rclpy")
pytest.importorskip("franka_msgs.msg")

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from franka_msgs.msg import FrankaRobotState
from rclpy.serialization import serialize_message

from instructvla_ros.control import FR3, Command, Mode, WidthArmConfig, WidthArmController
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.nodes import franka_gripper, service_calls
from instructvla_ros.nodes.arm_controller_node import NeutralDriver
from instructvla_ros.nodes.franka_controller_node import WatchedFrankaController
from instructvla_ros.nodes.franka_driver import OFFSETS, FrankaDriver
from instructvla_ros.nodes.franka_state import RobotWatch
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.routes import command_pose
from instructvla_ros.nodes.settings_arm import ArmSettings
from instructvla_ros.nodes.settings_franka import FRANKA, franka_settings

JOINTS = [*FR3.joint_names, FR3.fingers.joint]
DEFAULTS = {parameter.name: parameter.default for parameter in FRANKA}
MOVE, IDLE = FrankaRobotState.ROBOT_MODE_MOVE, FrankaRobotState.ROBOT_MODE_IDLE
STATE_TOPIC = DEFAULTS["robot_state_topic"]


class FakeNode:
    """As much of a node as the driver uses."""

    def __init__(self) -> None:
        self.now_s = 10.0
        self.published: list[Any] = []

    def create_publisher(self, kind: Any, topic: str, *_: Any) -> Any:
        self.topic = topic
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(self, _: Any, topic: str, callback: Any, *__: Any, **___: Any) -> Any:
        self.state_topic, self.hear = topic, callback
        return callback

    def create_timer(self, _: float, callback: Any) -> Any:
        self.timer = callback
        return callback

    def get_clock(self) -> Any:
        now = SimpleNamespace(nanoseconds=int(self.now_s * 1e9), to_msg=Time)
        return SimpleNamespace(now=lambda: now)


class Bench:
    """Controller and driver as the node has them, ticked by the test; joint states come with every tick."""

    def __init__(self, **parameters: Any) -> None:
        self.node = FakeNode()
        self.settings = franka_settings({**DEFAULTS, **parameters})
        config = WidthArmConfig()
        self.watch = RobotWatch(self.settings.robot_state_topic, self.settings.max_robot_state_age_s)
        self.controller = WatchedFrankaController(config, FR3, self.watch, lambda: self.node.now_s)
        self.driver = FrankaDriver(
            self.node, FR3, self.settings, config.interpolator,
            lambda: self.controller.fresh_rad(self.node.now_s), self.watch, lambda: self.node.now_s,
        )  # fmt: skip
        self.q, self.feed = FR3.home_rad.copy(), True
        self.was_stopped = False

    def state(self, mode: int) -> None:
        self.node.hear(serialize_message(FrankaRobotState(robot_mode=mode)))

    def tick(self, count: int = 1, mode: int | None = None) -> Command:
        """What ControllerNode does in a control tick, 50 Hz."""
        for _ in range(count):
            self.node.now_s = round(self.node.now_s + 0.02, 6)
            now_s = self.node.now_s
            if mode is not None:
                self.state(mode)
            if self.feed:
                self.controller.on_joint_state(JOINTS, [*self.q, 0.04], None, now_s, now_s)
            if self.driver.problem and not self.controller.stopped:
                self.controller.stop(self.driver.problem, self.driver.problem_id)
            command = self.controller.tick(now_s)
            if self.controller.stopped and not self.was_stopped:
                self.driver.stopped()
            self.was_stopped = self.controller.stopped
            self.driver.send(command)
        return command

    def goals(self) -> list[Any]:
        """What was published since the last call."""
        taken, self.node.published[:] = list(self.node.published), []
        return taken


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> FakeActions:
    made = FakeActions()
    monkeypatch.setattr(franka_gripper, "ActionClient", made)
    return made


@pytest.fixture
def bench(actions: FakeActions) -> Bench:
    made = Bench()
    made.tick(2, MOVE)  # two joint states tell that it rests
    made.tick(1)
    return made


# The robot's mode and its age.


@pytest.mark.parametrize("mode", [IDLE, FrankaRobotState.ROBOT_MODE_OTHER, 17])
def test_f22_in_any_mode_but_move_the_arm_holds_and_no_goal_is_streamed(bench: Bench, mode: int) -> None:
    assert len(bench.goals()) == 2
    command = bench.tick(5, mode)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F22") and "mode" in command.reason
    assert bench.goals() == []


def test_f22_when_move_returns_the_first_goal_is_the_measured_posture(bench: Bench) -> None:
    bench.tick(3, IDLE)
    bench.q = bench.q + 0.2  # moved by hand or by another controller meanwhile
    bench.tick(3, IDLE)
    bench.goals()
    bench.tick(4, MOVE)
    first, *_ = bench.goals()
    np.testing.assert_allclose(first.points[0].positions, bench.q, atol=1e-9)
    assert bench.tick(1, MOVE).fault_id != "F22"


def test_f22_nothing_is_streamed_in_a_reflex_either_and_the_latch_outlives_the_return_of_move(bench: Bench) -> None:
    bench.tick(1, FrankaRobotState.ROBOT_MODE_REFLEX)
    bench.goals()
    assert bench.tick(3, FrankaRobotState.ROBOT_MODE_REFLEX).mode is Mode.STOPPED
    assert bench.goals() == []
    assert bench.tick(5, MOVE).mode is Mode.STOPPED


def test_f22_a_mode_that_changes_between_tick_and_sending_stops_the_sending(bench: Bench) -> None:
    command = bench.tick(1, MOVE)
    bench.goals()
    bench.node.now_s += 0.03
    bench.state(IDLE)
    bench.driver.send(command)
    assert bench.goals() == []
    bench.controller.tick(bench.node.now_s)
    bench.node.now_s += 0.03
    bench.state(MOVE)
    bench.driver.send(command)  # made before the target was anchored anew
    assert bench.goals() == []


def test_f22_a_robot_state_that_falls_silent_holds_after_half_a_second_and_is_anchored_anew(bench: Bench) -> None:
    assert bench.tick(23).fault_id != "F22"
    command = bench.tick(3)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F22")
    assert STATE_TOPIC in command.reason and "limit 0.5 s" in command.reason
    bench.goals()
    bench.tick(3)
    assert bench.goals() == []
    bench.q = bench.q - 0.1
    bench.tick(3, MOVE)
    np.testing.assert_allclose(bench.goals()[0].points[0].positions, bench.q, atol=1e-9)


def test_a_robot_that_never_says_its_mode_is_moved_with_a_notice(actions: FakeActions) -> None:
    bench = Bench()
    assert bench.tick(100).fault_id != "F22"
    assert len(bench.goals()) == 99
    assert "a reflex or the user stop will not be noticed" in bench.driver.notice


# Twists.


def speeds(message: Any) -> np.ndarray:
    v, w = message.twist.linear, message.twist.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z])


def twisting(**parameters: Any) -> tuple[Bench, Command]:
    """A twist route with a goal 0.1 rad from the measured posture, which calls for speed."""
    bench = Bench(route="servo_twist", **parameters)
    bench.tick(2, MOVE)
    ahead = Command(FR3.home_rad + 0.1, None, None, Mode.MOVING, "", "", np.zeros(7))
    bench.goals()
    bench.driver.send(ahead)
    assert np.abs(speeds(bench.goals()[0])).max() > 0.1
    return bench, ahead


def test_f05_a_twist_is_zero_when_the_joint_state_is_older_than_its_limit_or_missing(actions: FakeActions) -> None:
    bench, ahead = twisting()
    bench.node.now_s += 0.09
    bench.driver.send(ahead)
    bench.node.now_s += 0.02
    bench.driver.send(ahead)
    fresh, stale = bench.goals()
    assert np.abs(speeds(fresh)).max() > 0.1 and not speeds(stale).any()
    bench.controller.reanchor(bench.node.now_s)
    bench.driver.send(ahead)
    assert not speeds(bench.goals()[0]).any()


@pytest.mark.parametrize("mode", [Mode.STOPPED, Mode.FAULT])
def test_f22_a_stopped_arm_is_sent_zero_twists(actions: FakeActions, mode: Mode) -> None:
    bench, ahead = twisting()
    bench.driver.send(Command(ahead.joint_goal_rad, None, None, mode, "", "F22", np.zeros(7)))
    assert not speeds(bench.goals()[0]).any()


def test_f22_a_zero_twist_is_all_that_is_sent_while_the_robot_takes_no_goals(actions: FakeActions) -> None:
    bench, _ = twisting()
    bench.tick(2, IDLE)
    assert len(sent := bench.goals()) == 2
    assert not any(speeds(message).any() for message in sent)


def test_a_twist_route_comes_to_rest_with_a_zero_twist_at_deactivation(actions: FakeActions) -> None:
    bench, _ = twisting()
    bench.driver.rest()
    (last,) = bench.goals()
    assert not speeds(last).any() and last.header.frame_id == "fr3_link0"


def test_a_twist_of_the_flange_moves_the_tcp_as_if_it_were_told_itself(actions: FakeActions) -> None:
    (tcp, ahead), (flange, _) = twisting(), twisting(command_frame="link8")
    tcp.driver.send(ahead)
    flange.driver.send(ahead)
    at_tcp, at_flange = speeds(tcp.goals()[0]), speeds(flange.goals()[0])
    from_flange = FR3.forward(FR3.home_rad)[1] - command_pose(FR3, FR3.home_rad, OFFSETS["link8"])[1]
    moved = at_flange[:3] + np.cross(at_flange[3:], from_flange)
    slower = np.linalg.norm(at_flange[3:]) / np.linalg.norm(at_tcp[3:])  # all alike, within the limit of 0.3 m/s
    np.testing.assert_allclose(moved, slower * at_tcp[:3], atol=1e-9)
    assert np.linalg.norm(at_flange[:3] - at_tcp[:3]) > 0.01 and 0.3 < slower <= 1.0


def test_a_twist_without_units_stays_within_servos_scales(actions: FakeActions) -> None:
    bench, _ = twisting(**{"servo.unitless": True})
    far = Command(FR3.home_rad + [0, 0, 0, 0, 0, 0, 1.5], None, None, Mode.MOVING, "", "", np.zeros(7))
    bench.driver.send(far)
    assert 0.9 < np.abs(speeds(bench.goals()[0])).max() <= 1.0


def test_f05_f16_the_neutral_twist_is_zero_too_without_a_recent_joint_state_or_clock_and_at_the_end() -> None:
    node, controller = FakeNode(), WidthArmController(FR3)
    driver = NeutralDriver(node, ArmSettings(outputs=("twist",)), TrackerConfig(), controller)

    def sent(fault_id: str = "") -> np.ndarray:
        node.published.clear()
        driver.send(Command(FR3.home_rad + 0.1, None, None, Mode.MOVING, "", fault_id, np.zeros(7)))
        return speeds(node.published[0])

    assert not sent().any(), "no joint state yet"
    controller.on_joint_state(JOINTS, [*FR3.home_rad, 0.04], None, node.now_s, node.now_s)
    assert sent().any() and not sent("F16").any()
    node.now_s += 0.11
    assert not sent().any()
    node.published.clear()
    driver.rest()
    assert len(node.published) == 1 and not speeds(node.published[0]).any()


def test_f22_the_neutral_width_is_told_again_and_again_but_not_after_a_stop() -> None:
    node = FakeNode()
    driver = NeutralDriver(node, ArmSettings(outputs=("gripper",)), TrackerConfig(), WidthArmController(FR3))
    told = [
        driver.send(Command(FR3.home_rad, None, None, mode, "", "", np.zeros(7), 0.02)) or len(node.published)
        for mode in (Mode.MOVING, Mode.HOLD, Mode.STOPPED, Mode.FAULT, Mode.HOLD)
    ]
    assert told == [1, 2, 2, 2, 3]


# The hand.


def want(bench: Bench, width_m: float, mode: Mode = Mode.MOVING) -> None:
    """A tick that asks for a width, as every one does."""
    bench.driver.send(Command(bench.q, None, None, mode, "", "", np.zeros(7), width_m))


def test_f22_a_width_asked_for_just_before_the_stop_is_not_sent_after_it(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.08)
    bench.node.timer()
    opening = Goal()
    actions.sent[0][2].answer(opening)
    want(bench, 0.0)
    bench.driver.stopped()
    for _ in range(3):
        want(bench, 0.0, Mode.STOPPED)
        bench.node.timer()
    assert opening.cancelled
    assert actions.names == ["move"], "no grasp while stopped"


def test_f22_a_stop_between_sending_and_acceptance_cancels_on_acceptance(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.08)
    bench.node.timer()
    bench.driver.stopped()
    bench.node.timer()
    late = Goal()
    actions.sent[0][2].answer(late)
    assert late.cancelled


def test_f22_a_goal_accepted_only_after_its_time_out_is_cancelled_too(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.08)
    bench.node.timer()
    bench.node.now_s += 2.1
    bench.state(MOVE)
    bench.node.timer()
    assert "does not answer" in bench.driver.notice
    bench.driver.stopped()
    bench.node.timer()
    late = Goal()
    actions.sent[0][2].answer(late)
    assert late.cancelled and actions.names == ["move"]


def test_f22_a_stop_reaches_a_goal_that_was_accepted_late_before_it(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.08)
    bench.node.timer()
    bench.node.now_s += 2.1
    bench.node.timer()
    late = Goal()
    actions.sent[0][2].answer(late)
    bench.driver.stopped()
    bench.node.timer()
    assert late.cancelled


@pytest.mark.parametrize("refused", [False, True])
def test_f23_a_width_without_an_answer_or_refused_is_not_sent_again_while_stopped(
    bench: Bench, actions: FakeActions, refused: bool
) -> None:
    want(bench, 0.08)
    bench.node.timer()
    if refused:
        actions.sent[0][2].answer(Goal(accepted=False))
    bench.driver.stopped()
    for _ in range(5):
        bench.node.now_s += 2.1
        bench.state(MOVE)
        want(bench, 0.08, Mode.STOPPED)
        bench.node.timer()
    assert actions.names == ["move"]


def test_f23_a_width_that_ended_in_an_error_is_reported_and_sent_again_after_two_seconds(
    bench: Bench, actions: FakeActions
) -> None:
    want(bench, 0.08)
    bench.node.timer()
    opening = Goal()
    actions.sent[0][2].answer(opening)
    opening.ended.answer(SimpleNamespace(result=SimpleNamespace(error="not reached")))
    assert "gripper: not reached" in bench.driver.notice
    for age_s, names in ((1.9, ["move"]), (0.2, ["move", "move"])):
        bench.node.now_s += age_s
        bench.state(MOVE)
        bench.node.timer()
        assert actions.names == names


def test_f22_a_cancelled_width_is_sent_again_once_it_is_asked_for_after_the_reset(
    bench: Bench, actions: FakeActions
) -> None:
    want(bench, 0.08)
    bench.node.timer()
    actions.sent[0][2].answer(Goal())
    bench.driver.stopped()
    bench.node.timer()
    want(bench, 0.08)
    bench.node.timer()
    assert actions.names == ["move", "move"]


def test_what_the_hand_holds_stays_held_by_a_stop(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.0)
    bench.node.timer()
    grasp = Goal()
    actions.sent[0][2].answer(grasp)
    grasp.ended.answer(SimpleNamespace(result=SimpleNamespace(error="")))
    bench.driver.stopped()
    bench.node.timer()
    assert not grasp.cancelled and actions.names == ["grasp"]


def test_at_deactivation_the_hands_motion_is_cancelled_at_once(bench: Bench, actions: FakeActions) -> None:
    want(bench, 0.08)
    bench.node.timer()
    opening = Goal()
    actions.sent[0][2].answer(opening)
    bench.driver.rest()
    assert opening.cancelled


# Recovery.


class FakeServices:
    """Answers as a robot in a reflex that recovers; notes what it was asked."""

    def __init__(self, mode: int = MOVE) -> None:
        self.asked: list[Any] = []
        self.mode = mode

    def __enter__(self) -> FakeServices:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, _: Any, name: str, request: Any) -> Any:
        self.asked.append((name, list(getattr(request, "activate_controllers", []))))
        return SimpleNamespace(ok=True, message="")

    def act(self, _: Any, name: str, goal: Any) -> None:
        self.asked.append((name, []))

    def hear(self, *_: Any) -> FrankaRobotState:
        return FrankaRobotState(robot_mode=self.mode)


def test_f22_after_a_recovery_the_mode_that_was_heard_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.tick(1, FrankaRobotState.ROBOT_MODE_REFLEX)
    services = FakeServices()
    monkeypatch.setattr(bench.driver, "_services", lambda: services)
    bench.driver.recover(anew=False)
    assert bench.driver.problem == "" and bench.watch.mode == MOVE
    bench.tick(1, FrankaRobotState.ROBOT_MODE_REFLEX)
    services.mode = IDLE
    bench.driver.recover(anew=False)
    assert bench.tick().mode is Mode.STOPPED
    bench.controller.reset(bench.node.now_s)
    assert bench.tick(3, IDLE).reason.startswith("no controller drives the arm")


def test_f13_a_robot_that_was_away_is_looked_at_and_set_up_anew_around_the_recovery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = FakeServices()
    monkeypatch.setattr(bench.driver, "_services", lambda: services)
    for name in ("check", "prepare"):
        monkeypatch.setattr(bench.driver, name, lambda n=name: services.asked.append((n, [])))
    bench.tick(1, MOVE)
    bench.driver.recover(anew=True)
    assert [name for name, _ in services.asked] == ["check", "prepare"]
    services.asked.clear()
    bench.tick(2, FrankaRobotState.ROBOT_MODE_REFLEX)
    bench.driver.recover(anew=True)
    names = [name for name, _ in services.asked]
    assert (names[0], names[-1]) == ("check", "prepare") and "/action_server/error_recovery" in names


def test_f24_a_frankas_joint_states_that_cease_end_the_sending_and_the_hands_motion(
    bench: Bench, actions: FakeActions
) -> None:
    want(bench, 0.08)
    bench.node.timer()
    opening = Goal()
    actions.sent[0][2].answer(opening)
    bench.feed = False
    assert bench.tick(30, MOVE).fault_id == "F24"
    bench.node.timer()
    bench.goals()
    assert bench.tick(20, MOVE).mode is Mode.FAULT and bench.goals() == [] and opening.cancelled


@pytest.mark.parametrize("status", [GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED])
def test_f22_an_action_that_does_not_succeed_is_an_error(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    actions, goal = FakeActions(), Goal()
    monkeypatch.setattr(service_calls, "ActionClient", actions)
    executor: Any = SimpleNamespace()

    def spin(future: Answer, _: float) -> None:
        if future is goal.ended:
            future.value = SimpleNamespace(status=status, result=SimpleNamespace(error="user stop"))
        else:
            future.value = goal

    executor.spin_until_future_complete = spin
    calls = service_calls.ServiceCalls(None, executor, 1.0)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=r"/recovery was (aborted|cancelled), expected success: user stop"):
        calls.act(object, "/recovery", None)
    status = GoalStatus.STATUS_SUCCEEDED
    assert calls.act(object, "/recovery", None).error == "user stop"
