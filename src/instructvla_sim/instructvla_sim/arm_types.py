"""Constants and value types of the Interbotix driver for the wx250s (robot model, motors, groups,
registers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Vector = Sequence[float] | np.ndarray

ARM_JOINTS: tuple[str, ...] = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
GRIPPER = "gripper"
JOINT_NAMES: tuple[str, ...] = (*ARM_JOINTS, GRIPPER, "left_finger", "right_finger")
SHADOWS: dict[str, str] = {"shoulder_shadow": "shoulder", "elbow_shadow": "elbow"}
"""Second motors, and the joints that they help to turn. No group has them."""
GROUPS: dict[str, tuple[str, ...]] = {"arm": ARM_JOINTS, "all": (*ARM_JOINTS, GRIPPER)}

_DEG = np.pi / 180.0
LOWER_RAD = np.array([-np.pi, -108 * _DEG, -123 * _DEG, -np.pi, -100 * _DEG, -np.pi])
UPPER_RAD = np.array([np.pi, 114 * _DEG, 92 * _DEG, np.pi, 123 * _DEG, np.pi])
VELOCITY_RAD_S = np.full(6, np.pi)
SLEEP_RAD = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])
HOME_RAD = np.zeros(6)
JOINT_IDS: tuple[int, ...] = (1, 2, 4, 6, 7, 8, 9)
MOTORS_PER_JOINT = np.array([1.0, 2.0, 2.0, 1.0, 1.0, 1.0])
TORQUE_PER_AMPERE_NM = 1.78
"""XM430-W350: 4.1 N·m at 2.3 A."""

FINGER_LOWER_M, FINGER_UPPER_M = 0.015, 0.037
HORN_M, CRANK_M = 0.014, 0.024
PWM_LIMIT = 885.0
"""Register units at full voltage; the servo clamps beyond."""
FORCE_PER_PWM_N = 20.0 / 350.0
"""Force on each finger per PWM unit at standstill: 350 gives 20 N."""
FINGER_SPEED_PER_PWM = 0.060 / 350.0
"""Free speed of each finger in m/s per PWM unit (back-EMF)."""

MODES: tuple[str, ...] = (
    "position",
    "ext_position",
    "velocity",
    "current",
    "current_based_position",
    "pwm",
    "linear_position",
)
PROFILE_TYPES: tuple[str, ...] = ("time", "velocity")
OPERATING_MODE_CODES: dict[str, int] = {
    "current": 0,
    "velocity": 1,
    "position": 3,
    "ext_position": 4,
    "linear_position": 3,
    "current_based_position": 5,
    "pwm": 16,
}


class JointState(NamedTuple):
    """What the driver publishes on joint_states: nine joints in JOINT_NAMES order; effort in mA."""

    names: tuple[str, ...]
    positions: np.ndarray
    velocities: np.ndarray
    efforts: np.ndarray


@dataclass
class MotorSettings:
    """Mode and profile of one joint's motor."""

    mode: str = "position"
    profile_type: str = "time"
    profile_velocity: int = 2000
    profile_acceleration: int = 300
    torque: bool = True
    registers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RobotInfo:
    """Answer of get_robot_info. Limits in radians and rad/s (fingers in metres), one entry per joint."""

    mode: str
    profile_type: str
    joint_names: tuple[str, ...]
    joint_ids: tuple[int, ...]
    joint_lower_limits: tuple[float, ...]
    joint_upper_limits: tuple[float, ...]
    joint_velocity_limits: tuple[float, ...]
    joint_sleep_positions: tuple[float, ...]
    joint_state_indices: tuple[int, ...]
    num_joints: int
    name: tuple[str, ...]


def finger_to_horn_rad(finger_m: float) -> float:
    """Angle of the gripper's horn for a finger position: crank triangle of HORN_M and CRANK_M."""
    cosine = (finger_m**2 + HORN_M**2 - CRANK_M**2) / (2.0 * HORN_M * finger_m)
    return float(np.pi / 2 - np.arccos(np.clip(cosine, -1.0, 1.0)))
