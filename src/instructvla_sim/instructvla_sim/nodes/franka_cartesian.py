"""The other two ways to move the simulated Franka: crisp's `target_pose`, and MoveIt Servo in both its forms.

Simplified, but with the properties that a sender must reckon with: crisp ignores poses while several senders publish
and clips the distance it follows; Servo stops when it hears nothing new for a tenth of a second, and listens only to
the kind of command that was chosen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from moveit_msgs.srv import ServoCommandType
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from instructvla_ros.control.franka_kinematics import FrankaKinematics
from instructvla_ros.control.inverse import damped_step
from instructvla_ros.nodes.codecs import time_to_s
from instructvla_sim.joint_trajectory_controller import Knot
from instructvla_sim.nodes.live_world import LiveWorld

_DEPTH_ONE = QoSProfile(depth=1)
_CLIP_M = 0.1  # crisp follows a target at most this far ahead
_REACH_S = 0.08
_PEAK_TO_MEAN = 2.5  # of the speed from rest to rest along a polynomial, with a margin
_INCOMING_TIMEOUT_S = 0.1
_PERIOD_S = 0.02


class CartesianControllers:
    """Callbacks run in the node's executor."""

    def __init__(self, node: Any, live: LiveWorld) -> None:
        self._node, self._live = node, live
        with live.locked() as world:
            self._arm = world.robot.arm
        self._kinematics = FrankaKinematics(self._arm.lower_rad, self._arm.upper_rad)
        self._kind: int | None = None
        self._twist: tuple[float, np.ndarray] | None = None
        node.create_subscription(PoseStamped, "/target_pose", self._on_target, _DEPTH_ONE)
        servo = "/servo_node"
        node.create_subscription(PoseStamped, f"{servo}/pose_target_cmds", self._on_servo_pose, _DEPTH_ONE)
        node.create_subscription(TwistStamped, f"{servo}/delta_twist_cmds", self._on_twist, _DEPTH_ONE)
        node.create_service(ServoCommandType, f"{servo}/switch_command_type", self._on_kind)
        node.create_service(Trigger, f"{servo}/start_servo", self._on_start)
        node.create_timer(_PERIOD_S, self._step)

    def _on_target(self, message: PoseStamped) -> None:
        if self._node.count_publishers("/target_pose") > 1:
            self._node.get_logger().warning("target_pose has several publishers: ignored", throttle_duration_sec=5.0)
            return
        self._follow_pose(message)

    def _on_servo_pose(self, message: PoseStamped) -> None:
        if self._kind == ServoCommandType.Request.POSE and self._age_s(message) <= _INCOMING_TIMEOUT_S:
            self._follow_pose(message)

    def _on_twist(self, message: TwistStamped) -> None:
        v, w = message.twist.linear, message.twist.angular
        twist = np.array([v.x, v.y, v.z, w.x, w.y, w.z])
        if np.isfinite(twist).all():
            self._twist = (time_to_s(message.header.stamp), twist)

    def _on_kind(self, request: ServoCommandType.Request, response: ServoCommandType.Response) -> Any:
        self._kind, response.success = request.command_type, request.command_type in (0, 1, 2)
        return response

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._kind, response.success = ServoCommandType.Request.TWIST, True
        return response

    def _age_s(self, message: Any) -> float:
        return self._now_s() - time_to_s(message.header.stamp)

    def _now_s(self) -> float:
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def _follow_pose(self, message: PoseStamped) -> None:
        at, turn = message.pose.position, message.pose.orientation
        rotation = _matrix(turn.x, turn.y, turn.z, turn.w) @ self._arm.command_rotation.T
        position = np.array([at.x, at.y, at.z])
        if not (np.isfinite(rotation).all() and np.isfinite(position).all()):
            return
        with self._live.locked() as world:
            q, _ = world.arm.desired
            ahead = position - self._arm.forward(q)[1]
            length = float(np.linalg.norm(ahead))
            position = position - ahead * max(0.0, 1.0 - _CLIP_M / max(length, 1e-9))
            answer = self._arm.inverse(rotation, position, q)
            if answer.solved:
                # Like the real ones it cannot leap: a far target takes longer, whatever the sender thinks of it.
                slowest_s = float(np.max(np.abs(answer.q_rad - q) / self._arm.velocity_rad_s))
                reach_s = max(_REACH_S, _PEAK_TO_MEAN * slowest_s)
                world.arm.follow(self._arm.joint_names, [Knot(reach_s, answer.q_rad, np.zeros(7))])

    def _step(self) -> None:
        if self._kind != ServoCommandType.Request.TWIST or self._twist is None:
            return
        stamp_s, twist = self._twist
        if self._now_s() - stamp_s > _INCOMING_TIMEOUT_S:
            return  # the trajectory under way ends at rest
        with self._live.locked() as world:
            q, _ = world.arm.desired
            speed = damped_step(self._kinematics.jacobian(q), twist[:3], twist[3:], 0.02)
            # Half the way again, so that the arm is not at rest before the next command.
            goal = np.clip(q + 1.5 * _PERIOD_S * speed, self._arm.lower_rad, self._arm.upper_rad)
            knots = [
                Knot(1.5 * _PERIOD_S, goal, speed),
                Knot(_REACH_S, goal + 0.5 * speed * (_REACH_S - 1.5 * _PERIOD_S), np.zeros(7)),
            ]
            world.arm.follow(self._arm.joint_names, knots)


def _matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Rotation (3, 3) of a quaternion of any length but zero; not a number for zero."""
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if length < 1e-9:
        return np.full((3, 3), math.nan)
    x, y, z, w = x / length, y / length, z / length, w / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
