"""A Franka whose driver is gone while joint_state_publisher repeats its last joint states with fresh stamps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("franka_msgs.msg")

from franka_msgs.msg import FrankaRobotState

from instructvla_ros.control import FR3, Command, Mode, WidthArmConfig
from instructvla_ros.nodes.franka_controller_node import WatchedFrankaController
from instructvla_ros.nodes.franka_driver import FrankaDriver
from instructvla_ros.nodes.franka_state import RobotWatch
from instructvla_ros.nodes.managed import SetupError

JOINTS = [*FR3.joint_names, FR3.fingers.joint]
TOPIC = "/franka_robot_state_broadcaster/robot_state"
MOVE, USER_STOPPED = FrankaRobotState.ROBOT_MODE_MOVE, FrankaRobotState.ROBOT_MODE_USER_STOPPED


class Bench:
    """The controller with its watch, ticked at 50 Hz; joint states come with every tick."""

    def __init__(self) -> None:
        self.now_s, self.q = 10.0, FR3.home_rad.copy()
        self.watch = RobotWatch(TOPIC, 0.5)
        self.controller = WatchedFrankaController(WidthArmConfig(), FR3, self.watch, self.clock)

    def clock(self) -> float:
        return self.now_s

    def tick(self, count: int = 1, mode: int | None = None) -> Command:
        for _ in range(count):
            self.now_s = round(self.now_s + 0.02, 6)
            if mode is not None:
                self.watch.note(mode, "", self.now_s)
            self.controller.on_joint_state(JOINTS, [*self.q, 0.04], None, self.now_s, self.now_s)
            command = self.controller.tick(self.now_s)
        return command


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.controller.on_instruction(1, made.now_s)
    made.tick(5, MOVE)
    return made


def test_f24_a_robot_state_that_has_ceased_latches_though_joint_states_go_on(bench: Bench) -> None:
    command = bench.tick(90)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F22")
    command = bench.tick(15)
    assert (command.mode, command.fault_id, command.joint_goal_rad) == (Mode.FAULT, "F24", None)
    assert f"no robot state on {TOPIC} for 2 s" in command.reason
    assert bench.controller.ceased and bench.controller.counts["F24"] == 1
    bench.q = bench.q + 0.1  # it was moved while its driver was away
    assert bench.tick(10, MOVE).mode is Mode.FAULT, "it does not go on by itself"
    bench.controller.reset(bench.now_s)
    goal = bench.tick(3, MOVE).joint_goal_rad
    assert goal is not None and np.abs(goal - bench.q).max() < 1e-9
    assert not bench.controller.following and not bench.controller.ceased


def test_f24_after_a_reset_a_robot_state_that_stays_away_latches_again(bench: Bench) -> None:
    bench.tick(110)
    bench.controller.reset(bench.now_s)
    assert bench.tick(50).mode is not Mode.FAULT
    assert bench.tick(60).fault_id == "F24"


def test_f24_a_robot_state_that_nobody_listens_to_or_that_was_never_heard_has_not_ceased(bench: Bench) -> None:
    for _ in range(150):
        bench.controller.excuse_silence()  # as the node does while the robot recovers
        bench.tick()
    assert not bench.controller.ceased
    bench.now_s += 0.9  # the process slept
    bench.tick()
    assert not bench.controller.ceased
    fake_hardware = Bench()
    fake_hardware.tick(300)
    assert not fake_hardware.controller.ceased


def test_f16_a_clock_that_stands_still_does_not_cease_the_robot_state(bench: Bench) -> None:
    steady_s = bench.now_s
    for _ in range(300):
        steady_s += 0.02
        bench.watch.apply(bench.controller, bench.now_s, steady_s)
    assert not bench.controller.ceased


class FakeServices:
    """Hears a robot state, or None."""

    def __init__(self, state: FrankaRobotState | None) -> None:
        self._state = state

    def __enter__(self) -> FakeServices:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def hear(self, *_: Any) -> FrankaRobotState | None:
        return self._state


def recovering(bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: int | None) -> FrankaDriver:
    """A driver whose robot has been silent, and is asked whether it is back."""
    driver = FrankaDriver.__new__(FrankaDriver)
    settings = SimpleNamespace(robot_state_topic=TOPIC, route="joint_trajectory", servo=None)
    driver._robot, driver._clock, driver._settings = bench.watch, bench.clock, settings  # type: ignore[assignment]
    monkeypatch.setattr(driver, "check", lambda: None)
    state = None if heard is None else FrankaRobotState(robot_mode=heard)
    monkeypatch.setattr(driver, "_services", lambda: FakeServices(state))
    return driver


@pytest.mark.parametrize(("heard", "why"), [(None, "no robot state on"), (USER_STOPPED, "user stop")])
def test_f24_the_reset_is_refused_until_a_robot_state_is_heard_again_and_goes_by_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: int | None, why: str
) -> None:
    bench.tick(110)
    with pytest.raises(SetupError, match=why):
        recovering(bench, monkeypatch, heard).recover(anew=True)
    bench.now_s += 1.0
    recovering(bench, monkeypatch, MOVE).recover(anew=True)
    assert bench.watch.mode == MOVE and not bench.watch.outdated(bench.now_s)
