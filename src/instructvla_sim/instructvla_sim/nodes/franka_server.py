"""franka_ros2's topics, actions and services over a simulated arm: the names, types and qualities of the real ones.

Like the real trajectory controller it checks names, sizes and times and nothing else. The controller manager knows one
motion controller and one hardware component.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from controller_manager_msgs.srv import SetHardwareComponentState, SwitchController
from franka_msgs.action import ErrorRecovery, Grasp, Homing, Move
from franka_msgs.msg import FrankaRobotState
from franka_msgs.srv import (
    SetCartesianStiffness,
    SetForceTorqueCollisionBehavior,
    SetFullCollisionBehavior,
    SetJointStiffness,
    SetLoad,
    SetStiffnessFrame,
    SetTCPFrame,
)
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from instructvla_ros.nodes.codecs import time_to_s
from instructvla_ros.nodes.routes import INTERPOLATE
from instructvla_sim.franka_arm import RobotMode
from instructvla_sim.franka_hand import FULL_WIDTH_M, MAX_SPEED_M_S
from instructvla_sim.joint_trajectory_controller import Knot
from instructvla_sim.nodes.franka_cartesian import CartesianControllers
from instructvla_sim.nodes.franka_messages import robot_state_message, tcp_pose
from instructvla_sim.nodes.goals import GoalKeeper, Outcome
from instructvla_sim.nodes.live_world import LiveWorld

_RELIABLE = QoSProfile(depth=10)
_CONVENIENCE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_HARDWARE = "FrankaHardwareInterface"
_JOINT_STATES_EVERY, _GRIPPER_EVERY, _STATE_EVERY = 3, 6, 2  # of the physics thread's rounds: about 30, 17 and 50 Hz
_GOAL_TOLERANCE_RAD = 0.02
_HOMING_WIDTH_M = FULL_WIDTH_M


class FrankaServer:
    """Callbacks run in the node's executor and only take the world's lock; `publish` is the physics thread's."""

    def __init__(
        self, node: Any, live: LiveWorld, gripper: str = "/franka_gripper", *, from_desired_state: bool = True
    ) -> None:
        self._node, self._live, self._from_desired_state = node, live, from_desired_state
        with live.locked() as world:
            self._arm = world.robot.arm
        name = self._arm.name
        self._controller = f"{name}_arm_controller"
        self.commands, self.refused = 0, 0
        self._round = 0
        self._hardware_active = True
        self._joint_states = node.create_publisher(JointState, "/joint_states", _RELIABLE)
        self._arm_states = node.create_publisher(JointState, "/franka/joint_states", _RELIABLE)
        self._hand_states = node.create_publisher(JointState, f"{gripper}/joint_states", _RELIABLE)
        base = "/franka_robot_state_broadcaster"
        self._robot_state = node.create_publisher(FrankaRobotState, f"{base}/robot_state", _RELIABLE)
        self._pose = node.create_publisher(PoseStamped, f"{base}/current_pose", _CONVENIENCE)
        self._measured = node.create_publisher(JointState, f"{base}/measured_joint_states", _CONVENIENCE)
        topic = f"/{self._controller}/joint_trajectory"
        node.create_subscription(JointTrajectory, topic, self._on_trajectory, _RELIABLE)
        node.create_service(GetParameters, f"/{self._controller}/get_parameters", self._on_get_parameters)
        self._cartesian = CartesianControllers(node, live)
        self._goals = GoalKeeper(node)
        self._serve_actions(gripper)
        node.create_service(Trigger, f"{gripper}/stop", self._on_gripper_stop)
        node.create_service(SwitchController, "/controller_manager/switch_controller", self._on_switch)
        node.create_service(
            SetHardwareComponentState, "/controller_manager/set_hardware_component_state", self._on_hardware
        )
        for kind, service in (
            (SetJointStiffness, "set_joint_stiffness"),
            (SetCartesianStiffness, "set_cartesian_stiffness"),
            (SetFullCollisionBehavior, "set_full_collision_behavior"),
            (SetForceTorqueCollisionBehavior, "set_force_torque_collision_behavior"),
            (SetLoad, "set_load"),
            (SetTCPFrame, "set_tcp_frame"),
            (SetStiffnessFrame, "set_stiffness_frame"),
        ):
            node.create_service(kind, f"/service_server/{service}", self._on_setting)

    @property
    def joint_states_topic(self) -> str:
        """Absolute name of the topic with arm and fingers."""
        return str(self._joint_states.topic_name)

    def inject(self, fault: str) -> str:
        """Make the robot fail; returns "" or why it cannot. `none` releases the user stop, but leaves a reflex."""
        if fault in ("servo_overload", "bus_failure"):
            return f"{fault} is a fault of a WidowX; this is a {self._arm.name}"
        with self._live.locked() as world:
            arm = world.arm
            if fault == "reflex":
                arm.enter(RobotMode.REFLEX, "cartesian_reflex")
            elif fault == "user_stop":
                arm.enter(RobotMode.USER_STOPPED)
            elif arm.mode is RobotMode.USER_STOPPED:
                arm.enter(RobotMode.IDLE)
        return ""

    # Physics thread.

    def publish(self, message: JointState) -> None:
        """Publish what is due: `message` has all joints, fingers last."""
        self._round += 1
        self._arm_states.publish(_part(message, slice(0, 7)))
        if self._round % _JOINT_STATES_EVERY == 0:
            self._joint_states.publish(message)
        if self._round % _GRIPPER_EVERY == 0:
            self._hand_states.publish(_part(message, slice(7, 9)))
        if self._round % _STATE_EVERY == 0:
            self._publish_state(message)

    def _publish_state(self, message: JointState) -> None:
        watched = [p for p in (self._robot_state, self._pose, self._measured) if p.get_subscription_count() > 0]
        if not watched:
            return
        with self._live.locked() as world:
            state = robot_state_message(world.arm, self._arm, message)
        if self._robot_state in watched:
            self._robot_state.publish(state)
        if self._pose in watched:
            self._pose.publish(tcp_pose(self._arm, message.position[:7], message.header.stamp))
        if self._measured in watched:
            self._measured.publish(state.measured_joint_state)

    # The trajectory controller.

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self.commands += 1
        self.refused += bool(self._follow(message))

    def _follow(self, message: JointTrajectory) -> str:
        knots = [
            Knot(
                point.time_from_start.sec + point.time_from_start.nanosec * 1e-9,
                np.array(point.positions, dtype=float),
                np.array(point.velocities, dtype=float) if len(point.velocities) else None,
            )
            for point in message.points
        ]
        late_s = 0.0
        if message.header.stamp.sec or message.header.stamp.nanosec:  # zero means now
            late_s = self._node.get_clock().now().nanoseconds * 1e-9 - time_to_s(message.header.stamp)
        with self._live.locked() as world:
            begin_s, from_measured = world.time_s - late_s, not self._from_desired_state
            return str(world.arm.follow(message.joint_names, knots, begin_s, from_measured=from_measured))

    def _on_get_parameters(self, request: GetParameters.Request, response: GetParameters.Response) -> Any:
        """Of the controller's parameters, the one that matters to a sender; the others are not set."""
        known = Parameter(INTERPOLATE, value=self._from_desired_state).get_parameter_value()
        response.values = [known if name == INTERPOLATE else ParameterValue() for name in request.names]
        return response

    def _begin_trajectory(self, goal: FollowJointTrajectory.Goal) -> tuple[str, int]:
        problem = self._follow(goal.trajectory)
        with self._live.locked() as world:
            return problem, world.arm.trajectories.trajectories

    def _look_trajectory(self, number: int) -> Outcome | None:
        with self._live.locked() as world:
            arm, now_s = world.arm, world.time_s
            superseded = arm.trajectories.trajectories != number
            if superseded or not arm.controller_active:
                text = "superseded by another trajectory" if superseded else "the controller was deactivated"
                return Outcome(False, FollowJointTrajectory.Result(error_code=-1, error_string=text))
            if now_s < arm.trajectories.end_s:
                return None
            off = np.abs(arm.joint_state().positions[:7] - arm.trajectories.goal).max()
        if off <= _GOAL_TOLERANCE_RAD:
            return Outcome(True, FollowJointTrajectory.Result(error_code=0))
        text = f"{off:.3f} rad from the goal"
        return Outcome(False, FollowJointTrajectory.Result(error_code=-5, error_string=text))

    def _cancel_trajectory(self, number: int) -> Any:
        with self._live.locked() as world:
            if world.arm.trajectories.trajectories == number:
                world.arm.trajectories.reset(world.arm.joint_state().positions[:7])
        return FollowJointTrajectory.Result(error_code=0, error_string="cancelled")

    # The hand and the other actions.

    def _serve_actions(self, gripper: str) -> None:
        serve = self._goals.serve
        serve(
            FollowJointTrajectory,
            f"/{self._controller}/follow_joint_trajectory",
            self._begin_trajectory,
            self._look_trajectory,
            self._cancel_trajectory,
        )
        for kind, name, begin in (
            (Homing, "homing", lambda hand, _: hand.move(_HOMING_WIDTH_M, MAX_SPEED_M_S)),
            (Move, "move", lambda hand, g: hand.move(g.width, g.speed)),
            (Grasp, "grasp", lambda h, g: h.grasp(g.width, g.speed, g.force, g.epsilon.inner, g.epsilon.outer)),
        ):
            serve(
                kind,
                f"{gripper}/{name}",
                lambda goal, b=begin: self._hand(b, goal),
                lambda number, k=kind: self._look_hand(number, k),
                lambda number, k=kind: self._cancel_hand(number, k.Result(success=False, error="cancelled")),
            )
        serve(
            GripperCommand,
            f"{gripper}/gripper_action",
            lambda goal: self._hand(self._begin_command, goal),
            self._look_command,
            lambda number: self._cancel_hand(number, GripperCommand.Result()),
        )
        serve(
            ErrorRecovery,
            "/action_server/error_recovery",
            lambda _: ("", 0),
            lambda _: self._recover(),
            lambda _: ErrorRecovery.Result(),
        )

    def _hand(self, begin: Any, goal: Any) -> tuple[str, int]:
        with self._live.locked() as world:
            hand = world.arm.hand
            return begin(hand, goal), hand.motion.number

    @staticmethod
    def _begin_command(hand: Any, goal: Any) -> str:
        """The vendor's driver takes the position for half the width, and grasps when it has to close."""
        command = goal.command
        width_m = 2.0 * command.position
        if width_m >= hand.motion.width_m:
            return str(hand.move(width_m, MAX_SPEED_M_S))
        return str(hand.grasp(width_m, MAX_SPEED_M_S, command.max_effort or 20.0, FULL_WIDTH_M, FULL_WIDTH_M))

    def _look_hand(self, number: int, kind: Any) -> Outcome | None:
        with self._live.locked() as world:
            motion = world.arm.hand.motion
        if motion.number != number:
            return Outcome(False, kind.Result(success=False, error="stopped, or superseded by another motion"))
        if not motion.done:
            return None
        return Outcome(
            motion.success, kind.Result(success=motion.success, error="" if motion.success else "not reached")
        )

    def _look_command(self, number: int) -> Outcome | None:
        with self._live.locked() as world:
            motion, finger_m = world.arm.hand.motion, world.arm.finger_m
        if motion.number != number:
            return Outcome(False, GripperCommand.Result(position=finger_m))
        if not motion.done:
            return None
        reached = abs(2 * finger_m - motion.width_m) < 2e-3
        result = GripperCommand.Result(position=finger_m, stalled=not reached, reached_goal=reached)
        return Outcome(True, result)

    def _cancel_hand(self, number: int, result: Any) -> Any:
        with self._live.locked() as world:
            if world.arm.hand.motion.number == number:  # a newer goal's motion goes on
                world.arm.hand.stop(2 * world.arm.finger_m)
        return result

    def _on_gripper_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._live.locked() as world:
            world.arm.hand.stop(2 * world.arm.finger_m)
        response.success = True
        return response

    # Recovery.

    def _recover(self) -> Outcome | None:
        with self._live.locked() as world:
            recovered = world.arm.recover()
        return Outcome(recovered, ErrorRecovery.Result())

    def _on_hardware(self, request: Any, response: Any) -> Any:
        response.ok = request.name == _HARDWARE
        if response.ok:
            wanted = request.target_state.id == State.PRIMARY_STATE_ACTIVE or request.target_state.label == "active"
            self._hardware_active = wanted
            if not wanted:
                with self._live.locked() as world:
                    world.arm.deactivate_controller()
        active = self._hardware_active
        response.state.id = State.PRIMARY_STATE_ACTIVE if active else State.PRIMARY_STATE_INACTIVE
        response.state.label = "active" if active else "inactive"
        return response

    def _on_switch(self, request: SwitchController.Request, response: SwitchController.Response) -> Any:
        unknown = {*request.activate_controllers, *request.deactivate_controllers} - {self._controller}
        response.ok, response.message = not unknown, ""
        if unknown:
            response.message = f"no controller {', '.join(sorted(unknown))}; there is {self._controller}"
            return response
        with self._live.locked() as world:
            if request.deactivate_controllers:
                world.arm.deactivate_controller()
            if request.activate_controllers:
                response.ok = self._hardware_active and world.arm.activate_controller()
                response.message = "" if response.ok else f"the robot is in mode {world.arm.mode.name}"
        return response

    def _on_setting(self, request: Any, response: Any) -> Any:
        upper = getattr(request, "upper_torque_thresholds_nominal", None)
        with self._live.locked() as world:
            response.success = not world.arm.controller_active or upper is not None
            if upper is not None:
                world.arm.collision_nm = np.array(upper, dtype=float)
        response.error = "" if response.success else "not while a controller drives the arm"
        return response


def _part(message: JointState, which: slice) -> JointState:
    part = JointState(name=message.name[which], position=message.position[which])
    part.header.stamp = message.header.stamp
    part.velocity, part.effort = message.velocity[which], message.effort[which]
    return part
