"""Between the simulation's values and ROS messages."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from interbotix_xs_msgs.srv import RobotInfo as RobotInfoSrv
from sensor_msgs.msg import CameraInfo as CameraInfoMsg
from sensor_msgs.msg import Image, JointState

from instructvla_sim.arm_types import CRANK_M, HORN_M, RobotInfo
from instructvla_sim.arm_types import JointState as ArmState
from instructvla_sim.nodes.camera_rig import Picture

_NO_DISTORTION = [0.0] * 5
_IDENTITY = np.eye(3).ravel().tolist()


def joint_state_message(state: ArmState, stamp: Time) -> JointState:
    """Joints in the driver's order; efforts are currents in mA, as of X-series servos."""
    message = JointState()
    message.header.stamp = stamp
    message.name = list(state.names)
    message.position = state.positions.tolist()
    message.velocity = state.velocities.tolist()
    message.effort = state.efforts.tolist()
    return message


def unread(message: JointState) -> JointState:
    """What the driver makes of it when its servos cannot be read: all registers are 0, which for a position means half
    a turn back; the fingers follow from that."""
    finger_m = math.sqrt(CRANK_M**2 - HORN_M**2)
    turned = [-math.pi] * (len(message.name) - 2)
    made = JointState(header=message.header, name=message.name, position=[*turned, finger_m, -finger_m])
    made.velocity = made.effort = [0.0] * len(message.name)
    return made


def image_message(picture: Picture, stamp: Time, frame_id: str) -> Image:
    """rgb8, rows without padding."""
    height, width = picture.image.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.header.stamp, message.header.frame_id = stamp, frame_id
    # An array("B") is taken over as it is; anything else is checked value by value.
    message.data = array.array("B", np.ascontiguousarray(picture.image).tobytes())
    return message


def camera_info_message(picture: Picture, stamp: Time, frame_id: str) -> CameraInfoMsg:
    """The pinhole model of the picture; rendered images have no distortion."""
    info = picture.info
    message = CameraInfoMsg(height=info.height, width=info.width, distortion_model="plumb_bob")
    message.header.stamp, message.header.frame_id = stamp, frame_id
    message.d, message.k, message.r = _NO_DISTORTION, info.k.ravel().tolist(), _IDENTITY
    message.p = np.hstack([info.k, np.zeros((3, 1))]).ravel().tolist()
    return message


def fill_robot_info(response: RobotInfoSrv.Response, info: RobotInfo) -> RobotInfoSrv.Response:
    """Copy the answer of get_robot_info."""
    for field in ("mode", "profile_type", "num_joints"):
        setattr(response, field, getattr(info, field))
    for field in (
        "joint_names",
        "joint_ids",
        "joint_lower_limits",
        "joint_upper_limits",
        "joint_velocity_limits",
        "joint_sleep_positions",
        "joint_state_indices",
        "name",
    ):
        setattr(response, field, list(getattr(info, field)))
    return response


def trajectory_times_s(points: Sequence[Any]) -> tuple[list[float], bool]:
    """Times of trajectory points as the driver reads them, and whether that loses whole seconds.

    The driver looks at the nanosec half of time_from_start alone, so points at or after one second come too early.
    """
    times = [point.time_from_start.nanosec * 1e-9 for point in points]
    return times, any(point.time_from_start.sec > 0 for point in points)
