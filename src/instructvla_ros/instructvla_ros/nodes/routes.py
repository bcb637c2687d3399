"""Ways to tell an arm where to go: joint trajectory, pose target, twist. Every arm with a controller that takes one of
them connects by the name of its topic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from builtin_interfaces.msg import Duration
from control_msgs.msg import GripperCommand
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.srv import GetParameters
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from instructvla_ros.control import ArmModel, Command, Mode
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.control.rotations import matrix_to_quaternion, rotation_vector
from instructvla_ros.control.trajectory import stream_points
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.service_calls import service_calls

LATCHED = (Mode.STOPPED, Mode.FAULT)
INTERPOLATE = "interpolate_from_desired_state"
"""The parameter of ros2_control's joint trajectory controller without which a stream sets its reference back."""
_ASK_S = 1.0  # the controller is there, since it listens already; one without parameters is not waited for


class Route(Protocol):
    """One publisher. `send` and `rest` are called by the control thread, or when it has ended; `close` by the
    executor's."""

    topic: str

    def send(self, command: Command) -> None:
        """Publish what the command says of the arm; nothing where it says nothing."""

    def rest(self) -> None:
        """No goal comes for a while, or ever again: publish what lets the arm rest, where silence might not."""

    def close(self) -> None:
        """Destroy the publisher."""


@dataclass(frozen=True)
class Offset:
    """The frame in which poses are told, seen from the frame of the arm's `command_rotation`."""

    rotation: np.ndarray
    xyz_m: np.ndarray


NO_OFFSET = Offset(np.eye(3), np.zeros(3))


class JointTrajectoryRoute:
    """Short trajectories that replace one another, for a ros2_control joint trajectory controller.

    Stamped zero, which means "now": clocks need not agree. The last point is at rest, so an arm that hears nothing more
    comes to rest by itself.
    """

    def __init__(self, node: Any, topic: str, arm: ArmModel, config: TrackerConfig) -> None:
        self.topic, self._node, self._arm, self._config = topic, node, arm, config
        self._publisher = node.create_publisher(JointTrajectory, topic, qos.ARM_COMMANDS)

    def send(self, command: Command) -> None:
        """Publish the goal with its velocity, and the stop after it."""
        goal, velocity = command.joint_goal_rad, command.joint_velocity_rad_s
        if goal is None or velocity is None:
            return
        message = JointTrajectory(joint_names=list(self._arm.joint_names))
        for point in stream_points(goal, velocity, self._config, self._arm.acceleration_rad_s2):
            sec, nanosec = divmod(round(point.time_s * 1e9), 1_000_000_000)
            message.points.append(
                JointTrajectoryPoint(
                    positions=point.positions_rad.tolist(),
                    velocities=point.velocities_rad_s.tolist(),
                    time_from_start=Duration(sec=sec, nanosec=nanosec),
                )
            )
        self._publisher.publish(message)

    def rest(self) -> None:
        """Nothing: the last trajectory ends at rest."""

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


def interpolation_notice(node: Any, trajectory_topic: str) -> str:
    """Why the arm will not follow its trajectories well, or "". In the configure transition.

    A controller leads each trajectory on from the measured state unless told otherwise; in a stream, its reference then
    falls back to the arm each time. One that cannot be asked is taken as it is, with a line in the log.
    """
    controller = trajectory_topic.rpartition("/")[0]
    try:
        with service_calls(node, _ASK_S) as services:
            request = GetParameters.Request(names=[INTERPOLATE])
            values = services.call(GetParameters, f"{controller}/get_parameters", request).values
    except SetupError as error:
        node.get_logger().warning(f"whether {controller} has {INTERPOLATE} set is not known: {error}")
        return ""
    if any(value.bool_value for value in values):
        return ""
    notice = (
        f"{controller} does not have {INTERPOLATE} set: each trajectory sets its reference back to where the arm is; "
        "set it to true among the controller's parameters and start it anew"
    )
    node.get_logger().warning(notice)
    return notice


class PoseRoute:
    """Absolute poses in the base frame, which the receivers do not transform."""

    def __init__(self, node: Any, topic: str, arm: ArmModel, base_frame: str, offset: Offset = NO_OFFSET) -> None:
        self.topic, self._node, self._arm = topic, node, arm
        self._base_frame, self._offset = base_frame, offset
        self._publisher = node.create_publisher(PoseStamped, topic, qos.ARM_COMMANDS)

    def send(self, command: Command) -> None:
        """Publish the pose that belongs to the joint goal."""
        if command.joint_goal_rad is None:
            return
        rotation, position = command_pose(self._arm, command.joint_goal_rad, self._offset)
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._base_frame
        at, turn = message.pose.position, message.pose.orientation
        at.x, at.y, at.z = position.tolist()
        turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(rotation)
        self._publisher.publish(message)

    def rest(self) -> None:
        """Nothing: the last pose is where to stay."""

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


@dataclass(frozen=True)
class TwistConfig:
    """`gain_per_s` turns the distance to the goal into speed. With `unitless`, speeds are divided by the receiver's
    scales, as MoveIt Servo expects it in that mode."""

    gain_per_s: float = 4.0
    max_linear_m_s: float = 0.3
    max_angular_rad_s: float = 1.0
    unitless: bool = False
    linear_scale_m_s: float = 0.4
    angular_scale_rad_s: float = 0.8


class TwistRoute:
    """Speeds of the tool in base axes, led by where the arm is measured to be, so that errors do not add up.

    Repeated while the arm holds: it is drawn back to its goal. No speed while it is stopped, or where it is not known:
    `measured` gives joint positions that are recent enough to move by, else None. While somebody else commands the arm,
    not even none, but for the first time: it would alternate with theirs. The linear speed is that of the point that
    the receiver moves, which `offset` sees from the frame of the arm's `command_rotation`.
    """

    def __init__(
        self,
        node: Any,
        topic: str,
        arm: ArmModel,
        base_frame: str,
        measured: Callable[[], np.ndarray | None],
        config: TwistConfig,
        offset: Offset = NO_OFFSET,
    ) -> None:
        self.topic, self._node, self._arm, self._base_frame = topic, node, arm, base_frame
        self._measured, self._config, self._offset = measured, config, offset
        self._gave_way = False
        self._publisher = node.create_publisher(TwistStamped, topic, qos.ARM_COMMANDS)

    def send(self, command: Command) -> None:
        """Publish the speed towards the joint goal's pose, or none."""
        measured, goal = self._measured(), command.joint_goal_rad
        gave_way, self._gave_way = self._gave_way, goal is None and command.fault_id == "F14"
        if gave_way and self._gave_way:
            return
        # While the clock stands still (F16), ages say nothing.
        if measured is None or goal is None or command.mode in LATCHED or command.fault_id == "F16":
            self.rest()
            return
        self._publish(*twist_towards(self._arm, measured, goal, self._config, self._offset))

    def rest(self) -> None:
        """Publish no speed: not every receiver stops by itself."""
        self._publish(np.zeros(3), np.zeros(3))

    def _publish(self, linear: np.ndarray, angular: np.ndarray) -> None:
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._base_frame
        v, w = message.twist.linear, message.twist.angular
        (v.x, v.y, v.z), (w.x, w.y, w.z) = linear.tolist(), angular.tolist()
        self._publisher.publish(message)

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


class WidthRoute:
    """The gripper's width, repeated while the arm may move, so that a receiver that starts late learns it."""

    def __init__(self, node: Any, topic: str, effort_n: float) -> None:
        self.topic, self._node, self._effort_n = topic, node, effort_n
        self._publisher = node.create_publisher(GripperCommand, topic, qos.ARM_COMMANDS)

    def send(self, command: Command) -> None:
        """Publish the width, once one was asked for; nothing after a stop, as the hand of a Franka is told nothing."""
        if command.gripper_width_m is not None and command.mode not in LATCHED:
            self._publisher.publish(GripperCommand(position=command.gripper_width_m, max_effort=self._effort_n))

    def rest(self) -> None:
        """Nothing: the width stays."""

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


def command_pose(arm: ArmModel, q_rad: np.ndarray, offset: Offset = NO_OFFSET) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and position (3,) in the base frame of the frame in which poses are told."""
    rotation, position = arm.forward(q_rad)
    rotation = rotation @ arm.command_rotation
    return rotation @ offset.rotation, position + rotation @ offset.xyz_m


def twist_towards(
    arm: ArmModel,
    measured_rad: np.ndarray,
    goal_rad: np.ndarray,
    config: TwistConfig,
    offset: Offset = NO_OFFSET,
) -> tuple[np.ndarray, np.ndarray]:
    """Linear (m/s) and angular (rad/s) speed (3,) each in base axes, or parts of the scales with `unitless`.

    The motion is that of the gripper's straight way; the linear speed is told for the point at `offset`.
    """
    goal_rotation, goal_m = arm.forward(goal_rad)
    rotation, position_m = arm.forward(measured_rad)
    # Beyond its scale, Servo drops a speed without units.
    scales = (config.linear_scale_m_s, config.angular_scale_rad_s) if config.unitless else (math.inf, math.inf)
    max_linear, max_angular = min(config.max_linear_m_s, scales[0]), min(config.max_angular_rad_s, scales[1])
    linear = _limited(config.gain_per_s * (goal_m - position_m), max_linear)
    angular = _limited(config.gain_per_s * rotation_vector(goal_rotation @ rotation.T), max_angular)
    linear = linear + np.cross(angular, command_pose(arm, measured_rad, offset)[1] - position_m)
    # Of the whole motion alike, which keeps its way.
    slower = min(1.0, max_linear / max(float(np.linalg.norm(linear)), 1e-9))
    linear, angular = slower * linear, slower * angular
    if not config.unitless:
        return linear, angular
    return linear / config.linear_scale_m_s, angular / config.angular_scale_rad_s


def _limited(vector: np.ndarray, most: float) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector if length <= most else vector * (most / length)
