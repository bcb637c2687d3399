"""The simulated Franka's state as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from franka_msgs.msg import FrankaRobotState
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from instructvla_ros.control import ArmModel
from instructvla_ros.control.rotations import matrix_to_quaternion
from instructvla_sim.franka_arm import FrankaArm


def robot_state_message(arm: FrankaArm, model: ArmModel, joints: JointState) -> FrankaRobotState:
    """The fields of FrankaRobotState that the simulation knows: joints, torques, poses, mode, errors."""
    message = FrankaRobotState(robot_mode=int(arm.mode), control_command_success_rate=float(arm.controller_active))
    stamp = joints.header.stamp
    message.header.stamp, message.header.frame_id = stamp, f"{model.name}_link0"
    names = list(model.joint_names)
    measured = JointState(name=names, position=joints.position[:7], velocity=joints.velocity[:7])
    measured.effort = joints.effort[:7]
    message.measured_joint_state = message.measured_joint_motor_state = measured
    position, velocity = arm.desired
    message.desired_joint_state = JointState(name=names, position=position.tolist(), velocity=velocity.tolist())
    message.tau_ext_hat_filtered = JointState(name=names, effort=arm.external_torque_nm.tolist())
    for part in (measured, message.desired_joint_state, message.tau_ext_hat_filtered):
        part.header.stamp = stamp
    message.o_t_ee = tcp_pose(model, joints.position[:7], stamp)
    message.o_t_ee_d = message.o_t_ee_c = tcp_pose(model, position, stamp)
    for name in arm.errors:
        setattr(message.current_errors, name, True)
    for name in arm.last_motion_errors:
        setattr(message.last_motion_errors, name, True)
    return message


def tcp_pose(model: ArmModel, q_rad: Sequence[float] | np.ndarray, stamp: Time) -> PoseStamped:
    """Pose of the vendor's TCP frame in the base frame."""
    rotation, position = model.forward(q_rad)
    message: Any = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp, f"{model.name}_link0"
    at, turn = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = position.tolist()
    turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(rotation @ model.command_rotation)
    return message
