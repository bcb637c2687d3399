"""The Franka FR3 and Panda: their limits (robot interface B2) and their controller."""

from __future__ import annotations

import numpy as np

from instructvla_ros.control.arm import ArmModel, Fingers
from instructvla_ros.control.franka_kinematics import HOME_RAD, TOOL_IN_TCP, FrankaKinematics
from instructvla_ros.control.width_arm import WidthArmConfig, WidthArmController

FULL_WIDTH_M = 0.08
"""Between the fingers of a Franka Hand when open; each finger joint moves half of it."""


def _franka(name: str, lower: list[float], upper: list[float], speed: list[float], accel: list[float]) -> ArmModel:
    kinematics = FrankaKinematics(np.array(lower), np.array(upper))
    return ArmModel(
        name=name,
        joint_names=tuple(f"{name}_joint{number}" for number in range(1, 8)),
        lower_rad=np.array(lower),
        upper_rad=np.array(upper),
        velocity_rad_s=np.array(speed),
        acceleration_rad_s2=np.array(accel),
        home_rad=HOME_RAD.copy(),
        sleep_rad=HOME_RAD.copy(),  # it has brakes: it may be switched off where it stands
        forward=kinematics.forward,
        inverse=kinematics.inverse,
        damped=kinematics.damped_inverse,
        command_rotation=TOOL_IN_TCP,
        fingers=Fingers(f"{name}_finger_joint1", closed_m=0.0, open_m=FULL_WIDTH_M / 2),
    )


FR3 = _franka(
    "fr3",
    [-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159],
    [2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159],
    [2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26],
    [10.0] * 7,
)
PANDA = _franka(
    "panda",
    [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
    [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
    [2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61],
    [15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0],
)


class FrankaController(WidthArmController):
    """`ArmController` of a Franka; the drive of its hand reaches and holds the widths it is told."""

    def __init__(self, config: WidthArmConfig | None = None, arm: ArmModel = FR3) -> None:
        super().__init__(arm, config)
