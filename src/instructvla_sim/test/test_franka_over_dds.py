"""The Franka controller node against the simulated franka_ros2, over real topics, services and actions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("franka_msgs.msg")

from control_msgs.action import FollowJointTrajectory, GripperCommand  # noqa: E402
from franka_msgs.action import Grasp, Move  # noqa: E402
from franka_msgs.msg import FrankaRobotState  # noqa: E402
from over_dds import LIMIT_S, Spinner, ask, until  # noqa: E402
from rclpy.action import ActionServer, GoalResponse  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from instructvla_msgs.msg import ActionChunk, Reasoning, SafetyState  # noqa: E402
from instructvla_ros.control import FR3  # noqa: E402
from instructvla_ros.control import ActionChunk as Chunk  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402
from instructvla_ros.nodes.arm_controller_node import ArmControllerNode  # noqa: E402
from instructvla_ros.nodes.codecs import chunk_to_message  # noqa: E402
from instructvla_ros.nodes.franka_controller_node import FrankaControllerNode  # noqa: E402
from instructvla_ros.nodes.managed import SetupError  # noqa: E402
from instructvla_ros.nodes.service_calls import service_calls  # noqa: E402
from instructvla_sim import RenderSpec, World, WorldConfig  # noqa: E402
from instructvla_sim.franka_arm import RobotMode  # noqa: E402
from instructvla_sim.nodes.franka_server import FrankaServer  # noqa: E402
from instructvla_sim.nodes.live_world import LiveWorld, Pacer  # noqa: E402
from instructvla_sim.nodes.messages import joint_state_message  # noqa: E402

# A test machine is busy: only the faults that a test makes should show.
PATIENT = {
    "safety.max_image_age_s": 50.0,
    "safety.warn_image_age_s": 50.0,
    "safety.max_joint_state_age_s": 5.0,
    "safety.max_joint_silence_s": 60.0,
    "safety.max_clock_jump_s": 60.0,
    "safety.max_identical_pictures": 0,
    "buffer.max_future_stamp_s": 5.0,
    "max_robot_state_age_s": 60.0,
    "watch.silence_s": 60.0,
    "watch.bond_s": 60.0,
    "watch.clock_stop_s": 60.0,
}


class Robot:
    """The simulated robot in a process with its clients: physics in a thread of its own."""

    def __init__(self, domain: int) -> None:
        environment.apply_defaults(os.environ)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("franka", context=self.context)
        world = World(RenderSpec(width=64, height=48, samples=0), WorldConfig(robot="fr3"))
        self.live = LiveWorld(world, Pacer(0.01, 0.05), time.monotonic)
        self.server = FrankaServer(self.node, self.live)
        self.client = rclpy.create_node("client", namespace="/instructvla", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        self.chunks = self.client.create_publisher(ActionChunk, "action_chunk", qos.ACTION_CHUNK)
        self.images = self.client.create_publisher(Image, "camera/image_raw", qos.IMAGE)
        self.reasoning = self.client.create_publisher(Reasoning, "reasoning", qos.REASONING)
        self.listen(SafetyState, "safety_state", qos.SAFETY_STATE)
        self.instruction_id, self.seq = 0, 0
        self.silent = False
        self.ending = threading.Event()
        self.physics = threading.Thread(target=self._physics, daemon=True)
        self.physics.start()
        self.spinners: list[Spinner] = []
        for node in (self.node, self.client):
            self.spin(node)

    def listen(self, kind: Any, topic: str, profile: Any) -> None:
        self.heard[topic] = []
        self.client.create_subscription(kind, topic, self.heard[topic].append, profile)

    def spin(self, node: Any) -> Spinner:
        self.spinners.append(Spinner(self.context, node))
        return self.spinners[-1]

    def _physics(self) -> None:
        while not self.ending.is_set():
            state = self.live.advance()
            if state is not None and not self.silent:
                self.server.publish(joint_state_message(state, self.node.get_clock().now().to_msg()))
            self.ending.wait(self.live.wait_s())

    def close(self) -> None:
        self.ending.set()
        self.physics.join(5.0)
        for spinner in self.spinners:
            spinner.end()
        for node in (self.node, self.client):
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    # Looking.

    def arm(self) -> Any:
        with self.live.locked() as world:
            return world.arm

    def position(self) -> np.ndarray:
        with self.live.locked() as world:
            return world.observer.ee()[1].copy()

    def safety(self) -> SafetyState:
        assert until(lambda: self.heard["safety_state"])
        return self.heard["safety_state"][-1]

    def is_mode(self, mode: int) -> bool:
        return until(lambda: self.safety().mode == mode)

    # Asking.

    def trigger(self, name: str) -> Any:
        return ask(self.client, Trigger, name)

    def act(self, kind: Any, name: str, goal: Any) -> Any:
        with service_calls(self.client, LIMIT_S) as services:
            return services.act(kind, name, goal)

    def instruct(self) -> None:
        self.instruction_id += 1
        self.reasoning.publish(Reasoning(instruction_id=self.instruction_id, instruction="move"))

    def chunk(self, xyz: tuple[float, float, float], gripper: float = 1.0, steps: int = 4) -> None:
        """A fresh image and a chunk of equal steps."""
        now = self.client.get_clock().now()
        image = Image(height=64, width=64, encoding="mono8", step=64, data=bytes(64 * 64))
        image.header.stamp = now.to_msg()
        self.images.publish(image)
        self.seq += 1
        made = Chunk(
            np.tile(xyz, (steps, 1)), np.zeros((steps, 3)), np.full(steps, gripper), 0.2, now.nanoseconds * 1e-9,
            self.instruction_id, self.seq,
        )  # fmt: skip
        self.chunks.publish(chunk_to_message(made, "fr3_link0", 0.0))


class Controller:
    """A controller node, configured and active while in use. As in life, it makes and destroys what it needs of ROS
    where its executor does not run meanwhile: that is not safe in two threads."""

    def __init__(self, robot: Robot, kind: Any = FrankaControllerNode, **parameters: Any) -> None:
        self.robot = robot
        values = {**PATIENT, "service_timeout_s": 20.0, **parameters}
        names = ["--ros-args"]
        for service in ("stop", "reset", "home"):
            names += ["-r", f"~/{service}:=/instructvla/{service}"]
        self.node = kind(
            namespace="/instructvla", context=robot.context, cli_args=names,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )  # fmt: skip

    def __enter__(self) -> Any:
        assert self.node.trigger_configure().name == "SUCCESS", self.node.problem
        assert self.node.trigger_activate().name == "SUCCESS", self.node.problem
        self.spinner = self.robot.spin(self.node)
        assert until(lambda: self.node.count_subscribers("/instructvla/safety_state") > 0)
        return self.node

    def __exit__(self, *_: object) -> None:
        self.spinner.end()
        self.node.halt()
        self.node.teardown()
        self.node.destroy_node()
        self.robot.heard["safety_state"].clear()


@pytest.fixture(scope="module")
def robot(new_ros_domain: Callable[[], int]) -> Iterator[Robot]:
    made = Robot(new_ros_domain())
    yield made
    made.close()


@pytest.fixture(scope="class")
def franka(robot: Robot) -> Iterator[Robot]:
    """The robot with a controller on the default route."""
    with Controller(robot) as node:
        robot.controller = node  # type: ignore[attr-defined]
        yield robot


def moves_by(robot: Robot, xyz: tuple[float, float, float]) -> None:
    """A new instruction and a chunk move the gripper by as many steps as were begun: a busy machine may miss some."""
    robot.instruct()
    before, begun = robot.position(), robot.safety().steps_executed
    robot.chunk(xyz, steps=10)

    def over() -> bool:
        state = robot.safety()
        return state.steps_executed > begun and state.mode == SafetyState.MODE_HOLDING

    assert until(over), robot.safety()
    wanted = before + (robot.safety().steps_executed - begun) * np.array(xyz)
    assert until(lambda: np.abs(robot.position() - wanted).max() < 4e-3), robot.position() - wanted


class TestDefaultRoute:
    """Reflex, user stop, hand: on the joint trajectory controller."""

    def test_a_chunk_moves_the_arm_by_trajectories(self, franka: Robot) -> None:
        moves_by(franka, (0.006, 0.003, 0.003))
        assert franka.arm().trajectories.trajectories > 5
        assert franka.server.refused == 0

    def test_the_gripper_grasps_and_opens_by_its_actions(self, franka: Robot) -> None:
        franka.instruct()
        franka.chunk((0.0, 0.0, 0.0), gripper=0.0, steps=8)
        assert until(lambda: franka.arm().hand.motion.kind == "grasp")
        assert until(lambda: franka.arm().hand.motion.done and franka.arm().finger_m < 0.005)
        franka.chunk((0.0, 0.0, 0.0), gripper=1.0, steps=8)
        assert until(lambda: franka.arm().hand.motion.kind == "move" and franka.arm().finger_m > 0.038)
        assert "gripper" not in franka.controller.report()[0]  # type: ignore[attr-defined]

    def test_f22_a_reflex_stops_and_reset_recovers_in_order_and_anchors_anew(self, franka: Robot) -> None:
        franka.instruct()
        franka.chunk((0.01, 0.0, 0.0), steps=8)
        assert franka.is_mode(SafetyState.MODE_EXECUTING)
        franka.server.inject("reflex")
        assert franka.is_mode(SafetyState.MODE_STOPPED)
        state = franka.safety()
        assert state.fault_id == "F22" and "reflex: cartesian_reflex" in state.reason
        answer = franka.trigger("/instructvla/reset")
        assert answer.success, answer.message
        assert franka.arm().mode is RobotMode.MOVE
        assert until(lambda: franka.safety().mode != SafetyState.MODE_STOPPED)
        still = franka.position()
        franka.chunk((0.01, 0.0, 0.0))  # of the instruction that the stop has ended
        assert until(lambda: franka.safety().chunks_rejected > state.chunks_rejected)
        assert np.abs(franka.position() - still).max() < 2e-3
        moves_by(franka, (-0.006, 0.0, 0.0))

    def test_f22_the_user_stop_cannot_be_reset_before_it_is_released(self, franka: Robot) -> None:
        franka.server.inject("user_stop")
        assert franka.is_mode(SafetyState.MODE_STOPPED)
        answer = franka.trigger("/instructvla/reset")
        assert not answer.success and "user stop" in answer.message
        franka.server.inject("none")
        assert until(lambda: franka.trigger("/instructvla/reset").success)
        assert until(lambda: franka.safety().mode != SafetyState.MODE_STOPPED)
        assert franka.arm().mode is RobotMode.MOVE
        moves_by(franka, (0.0, -0.006, 0.0))


def test_the_trajectory_action_reaches_its_goal_and_refuses_wrong_joints(robot: Robot) -> None:
    goal = FollowJointTrajectory.Goal()
    with robot.live.locked() as world:
        q = world.arm.joint_state().positions[:7]
    goal.trajectory.joint_names = list(FR3.joint_names)
    point = JointTrajectoryPoint(positions=(q + 0.05).tolist())
    point.time_from_start.sec = 1
    goal.trajectory.points = [point]
    result = robot.act(FollowJointTrajectory, "/fr3_arm_controller/follow_joint_trajectory", goal)
    assert result.error_code == FollowJointTrajectory.Result.SUCCESSFUL
    np.testing.assert_allclose(robot.arm().joint_state().positions[:7], q + 0.05, atol=0.02)
    goal.trajectory.joint_names = ["panda_joint1"]
    with pytest.raises(SetupError, match="refused the goal"):
        robot.act(FollowJointTrajectory, "/fr3_arm_controller/follow_joint_trajectory", goal)


def test_the_hands_own_actions_and_the_half_width_of_gripper_command(robot: Robot) -> None:
    assert robot.act(Move, "/franka_gripper/move", Move.Goal(width=0.03, speed=0.1)).success
    assert robot.arm().finger_m == pytest.approx(0.015, abs=1e-3)
    goal = GripperCommand.Goal()
    goal.command.position, goal.command.max_effort = 0.03, 20.0
    result = robot.act(GripperCommand, "/franka_gripper/gripper_action", goal)
    assert result.reached_goal and result.position == pytest.approx(0.03, abs=1e-3)
    assert 2 * robot.arm().finger_m == pytest.approx(0.06, abs=2e-3), "the position is half the width"


def test_joint_states_and_robot_state_are_those_of_the_real_nodes(robot: Robot) -> None:
    robot.listen(JointState, "/joint_states", 10)
    robot.listen(JointState, "/franka/joint_states", 10)
    robot.listen(FrankaRobotState, "/franka_robot_state_broadcaster/robot_state", 10)
    topics = ("/joint_states", "/franka/joint_states", "/franka_robot_state_broadcaster/robot_state")
    assert until(lambda: all(robot.heard[topic] for topic in topics))
    assert robot.heard["/joint_states"][-1].name == [*FR3.joint_names, "fr3_finger_joint1", "fr3_finger_joint2"]
    assert robot.heard["/franka/joint_states"][-1].name == list(FR3.joint_names)
    state = robot.heard["/franka_robot_state_broadcaster/robot_state"][-1]
    assert state.robot_mode == FrankaRobotState.ROBOT_MODE_MOVE
    assert state.o_t_ee.header.frame_id == "fr3_link0"
    assert robot.server.joint_states_topic == "/joint_states"


@pytest.mark.parametrize(
    "parameters",
    [
        {"route": "target_pose", "recovery.motion_controllers": ["fr3_arm_controller"]},
        {"route": "servo_pose"},
        {"route": "servo_twist"},
        {"route": "servo_twist", "servo.api": "humble"},
        {"hand.interface": "gripper_command"},
    ],
    ids=lambda parameters: "-".join(value for value in parameters.values() if isinstance(value, str)),
)
def test_every_other_route_moves_the_arm_too(robot: Robot, parameters: dict[str, Any]) -> None:
    with robot.live.locked() as world:
        world.reset(3)
    with Controller(robot, **parameters):
        moves_by(robot, (0.005, 0.003, 0.003))
        if "hand.interface" in parameters:
            robot.chunk((0.0, 0.0, 0.0), gripper=0.0, steps=8)
            assert until(lambda: robot.arm().finger_m < 0.005)


def test_f13_a_robot_that_falls_silent_is_sent_nothing_and_goes_on_after_a_reset_once_it_is_back(robot: Robot) -> None:
    with robot.live.locked() as world:
        world.reset(4)
    with Controller(robot, **{"safety.max_joint_silence_s": 1.0, "service_timeout_s": 3.0}):
        moves_by(robot, (0.005, 0.0, 0.0))
        robot.silent = True
        try:
            assert robot.is_mode(SafetyState.MODE_FAULT)
            assert robot.safety().fault_id == "F24"
            commands = robot.server.commands
            answer = robot.trigger("/instructvla/reset")  # which takes a while
            assert not answer.success and "nothing is heard" in answer.message
            assert robot.server.commands <= commands + 1, "one may have been on its way"
        finally:
            robot.silent = False
        assert until(lambda: robot.trigger("/instructvla/reset").success)
        assert until(lambda: robot.safety().mode in (SafetyState.MODE_IDLE, SafetyState.MODE_HOLDING))
        moves_by(robot, (-0.005, 0.0, 0.0))


def test_without_a_hand_the_arm_starts_and_moves_by_joint_states_that_have_no_fingers(robot: Robot) -> None:
    with robot.live.locked() as world:
        world.reset(4)
    arm_alone = {"joint_states_topic": "/franka/joint_states", "service_timeout_s": 3.0}
    refused = Controller(robot, **arm_alone)
    assert refused.node.trigger_configure().name == "FAILURE"
    assert "lacks fr3_finger_joint1" in refused.node.problem
    refused.node.destroy_node()
    with Controller(robot, **arm_alone, **{"hand.interface": "none"}):
        moves_by(robot, (0.005, 0.003, 0.003))


def test_f23_a_gripper_that_is_not_there_is_reported_and_the_arm_moves_nevertheless(robot: Robot) -> None:
    with robot.live.locked() as world:
        world.reset(4)
    with Controller(robot, **{"hand.name": "/fr3_gripper"}) as node:
        robot.instruct()
        robot.chunk((0.0, 0.0, 0.0), gripper=0.0, steps=8)
        assert until(lambda: "no gripper action server at /fr3_gripper" in node.report()[0])
        moves_by(robot, (0.005, 0.0, 0.0))


def test_f23_a_gripper_that_hangs_is_reported_after_two_seconds_and_the_arm_moves_nevertheless(robot: Robot) -> None:
    hung = rclpy.create_node("hung", context=robot.context)  # nobody spins it: its servers are there, and silent
    servers = [
        ActionServer(hung, kind, f"/hung/{name}", lambda _: None) for kind, name in ((Move, "move"), (Grasp, "grasp"))
    ]
    with robot.live.locked() as world:
        world.reset(4)
    with Controller(robot, **{"hand.name": "/hung"}) as node:
        robot.instruct()

        def told() -> bool:
            robot.chunk((0.0, 0.0, 0.0), gripper=0.0, steps=8)
            return "/hung does not answer within 2.0 s" in node.report()[0]

        assert until(told), node.report()
        assert robot.is_mode(SafetyState.MODE_HOLDING)
        moves_by(robot, (0.005, 0.0, 0.0))
    for server in servers:
        server.destroy()
    hung.destroy_node()


def test_f23_a_width_that_the_gripper_refuses_is_reported_and_sent_again_after_two_seconds(robot: Robot) -> None:
    strict = rclpy.create_node("strict", context=robot.context)
    asked_s: list[float] = []

    def refuse(_: Any) -> GoalResponse:
        asked_s.append(time.monotonic())
        return GoalResponse.REJECT

    for kind, name in ((Move, "move"), (Grasp, "grasp")):
        ActionServer(strict, kind, f"/strict/{name}", lambda _: None, goal_callback=refuse)
    robot.spin(strict)
    with robot.live.locked() as world:
        world.reset(4)
    with Controller(robot, **{"hand.name": "/strict"}) as node:
        robot.instruct()

        def asked_again() -> bool:
            robot.chunk((0.0, 0.0, 0.0), gripper=0.0, steps=8)
            return len(asked_s) > 1

        assert until(asked_again), node.report()
        assert asked_s[1] - asked_s[0] > 1.5
        assert until(lambda: "/strict refused the width 0.0 m" in node.report()[0]), node.report()


def test_a_route_on_which_nobody_listens_keeps_the_node_unconfigured(robot: Robot) -> None:
    controller = Controller(robot, trajectory_topic="/nobody/joint_trajectory")
    assert controller.node.trigger_configure().name == "FAILURE"
    assert "nobody listens on /nobody/joint_trajectory" in controller.node.problem


def test_a_trajectory_controller_that_leads_on_from_the_measured_state_is_named_and_the_arm_moves(robot: Robot) -> None:
    with robot.live.locked() as world:
        world.reset(6)
    for from_desired_state in (False, True):
        robot.server._from_desired_state = from_desired_state
        with Controller(robot) as node:
            assert until(lambda n=node: n._driver._robot.mode is not None)
            named = "/fr3_arm_controller does not have interpolate_from_desired_state set" in node._driver.notice
            assert named != from_desired_state
            moves_by(robot, (0.005, 0.0, 0.0))


def test_a_trajectory_controller_that_cannot_be_asked_does_not_keep_the_node_from_starting(robot: Robot) -> None:
    mute = robot.client.create_subscription(JointTrajectory, "/mute/joint_trajectory", lambda _: None, 1)
    with Controller(robot, trajectory_topic=mute.topic_name) as node:
        assert "interpolate" not in node._driver.notice
    robot.client.destroy_subscription(mute)


def test_joint_states_of_another_arm_are_named(robot: Robot) -> None:
    controller = Controller(robot, arm="panda", service_timeout_s=3.0)
    assert controller.node.trigger_configure().name == "FAILURE"
    assert "lacks panda_joint1" in controller.node.problem


def test_the_neutral_controller_drives_the_same_arm_by_nothing_but_topics(robot: Robot) -> None:
    with robot.live.locked() as world:
        world.reset(5)
    parameters = {
        "arm": "fr3",
        "base_frame": "fr3_link0",
        "topics.joint_trajectory": "/fr3_arm_controller/joint_trajectory",
        "outputs": ["joint_trajectory", "target_pose", "twist", "gripper"],
        "topics.target_pose": "/instructvla/neutral/pose",
    }
    with Controller(robot, ArmControllerNode, **parameters):
        moves_by(robot, (0.005, -0.003, 0.003))
