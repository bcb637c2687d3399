"""Action goals of the simulated Franka that overlap: fakes in place of rclpy's servers, a timer of the test's."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("franka_msgs.msg")

from control_msgs.action import FollowJointTrajectory, GripperCommand
from franka_msgs.action import Grasp, Move
from rclpy.action import GoalResponse
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

from instructvla_ros.control import FR3
from instructvla_sim import RenderSpec, World, WorldConfig
from instructvla_sim.nodes import goals
from instructvla_sim.nodes.franka_server import FrankaServer
from instructvla_sim.nodes.live_world import LiveWorld, Pacer

OPEN_M = 0.08
OPENING = Move.Goal(width=OPEN_M, speed=0.1)
CLOSING = Grasp.Goal(width=0.0, speed=0.1, force=20.0)


class Handle:
    """As much of a goal's handle as the keeper uses."""

    def __init__(self) -> None:
        self.is_cancel_requested, self.ended, self.result = False, "", None

    def execute(self, end: Any) -> None:
        self.result = end(self)

    def succeed(self) -> None:
        self.ended = "succeeded"

    def abort(self) -> None:
        self.ended = "aborted"

    def canceled(self) -> None:
        self.ended = "canceled"


class Robot:
    """The simulated driver's actions, asked without DDS; time passes where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actions: dict[str, dict[str, Any]] = {}
        monkeypatch.setattr(goals, "ActionServer", lambda _, __, name, **calls: self.actions.update({name: calls}))
        self.node = MagicMock()
        self.world = World(RenderSpec(width=64, height=48, samples=0), WorldConfig(robot="fr3"))
        self.server = FrankaServer(self.node, LiveWorld(self.world, Pacer(0.01, 0.05), lambda: 0.0))
        self.look = next(
            call.args[1] for call in self.node.create_timer.call_args_list if "GoalKeeper" in call.args[1].__qualname__
        )

    def ask(self, name: str, goal: Any) -> Handle:
        calls, handle = self.actions[name], Handle()
        assert calls["goal_callback"](goal) is GoalResponse.ACCEPT
        calls["handle_accepted_callback"](handle)
        return handle

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.world.step(0.02)
            self.look()

    @property
    def width_m(self) -> float:
        return 2.0 * float(self.world.arm.finger_m)


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch) -> Robot:
    return Robot(monkeypatch)


def test_opening_while_a_grasp_is_under_way_opens_although_the_grasp_is_cancelled_afterwards(robot: Robot) -> None:
    closing = robot.ask("/franka_gripper/grasp", CLOSING)
    robot.run(0.4)
    assert robot.width_m < 0.05
    closing.is_cancel_requested = True  # noticed only when the opening has begun
    opening = robot.ask("/franka_gripper/move", OPENING)
    robot.run(0.1)
    assert (closing.ended, closing.result.success, opening.ended) == ("canceled", False, "")
    robot.run(1.0)
    assert opening.ended == "succeeded" and opening.result.success
    assert robot.width_m == pytest.approx(OPEN_M, abs=2e-3)


def test_a_cancelled_goal_stops_the_hand_while_its_motion_is_the_newest(robot: Robot) -> None:
    closing = robot.ask("/franka_gripper/grasp", CLOSING)
    robot.run(0.2)
    closing.is_cancel_requested = True
    robot.run(0.1)
    stopped_m = robot.width_m
    robot.run(0.5)
    assert closing.ended == "canceled" and 0.04 < robot.width_m == pytest.approx(stopped_m, abs=5e-3)


@pytest.mark.parametrize("by", ["another motion", "the stop service", "a new scene"])
def test_a_goal_whose_motion_was_ended_by_something_else_is_aborted_without_success(robot: Robot, by: str) -> None:
    closing = robot.ask("/franka_gripper/grasp", CLOSING)
    robot.run(0.2)
    if by == "another motion":
        robot.ask("/franka_gripper/move", OPENING)
    elif by == "the stop service":
        stop = next(c.args[2] for c in robot.node.create_service.call_args_list if c.args[1] == "/franka_gripper/stop")
        assert stop(Trigger.Request(), Trigger.Response()).success
    else:
        robot.world.reset(1)
    robot.run(0.02)
    assert closing.ended == "aborted" and not closing.result.success and "superseded" in closing.result.error


def test_a_superseded_gripper_command_has_not_reached_its_goal(robot: Robot) -> None:
    command = GripperCommand.Goal()
    command.command.position, command.command.max_effort = 0.01, 20.0
    closing = robot.ask("/franka_gripper/gripper_action", command)
    robot.ask("/franka_gripper/move", OPENING)
    robot.run(1.0)
    assert closing.ended == "aborted" and not closing.result.reached_goal


def test_a_trajectory_goes_on_when_the_goal_before_it_is_cancelled(robot: Robot) -> None:
    start = robot.world.arm.joint_state().positions[:7]

    def ask(shift_rad: float) -> Handle:
        goal = FollowJointTrajectory.Goal()
        goal.trajectory.joint_names = list(FR3.joint_names)
        point = JointTrajectoryPoint(positions=(start + shift_rad).tolist())
        point.time_from_start.sec = 1
        goal.trajectory.points = [point]
        return robot.ask("/fr3_arm_controller/follow_joint_trajectory", goal)

    first = ask(-0.05)
    first.is_cancel_requested = True
    second, third = ask(0.02), ask(0.05)
    robot.run(1.5)
    assert (first.ended, second.ended, third.ended) == ("canceled", "aborted", "succeeded")
    np.testing.assert_allclose(robot.world.arm.joint_state().positions[:7], start + 0.05, atol=0.02)
