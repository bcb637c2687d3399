"""The Interbotix WidowX-250 6DOF (robot interface B1)."""

from __future__ import annotations

import numpy as np

from instructvla_ros.control import kinematics
from instructvla_ros.control.arm import ArmModel, Fingers

SLEEP_RAD = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])

WX250S = ArmModel(
    name="wx250s",
    joint_names=kinematics.JOINT_NAMES,
    lower_rad=kinematics.JOINT_LOWER_RAD,
    upper_rad=kinematics.JOINT_UPPER_RAD,
    velocity_rad_s=kinematics.JOINT_VELOCITY_RAD_S,
    home_rad=np.zeros(6),
    sleep_rad=SLEEP_RAD,
    forward=kinematics.forward,
    inverse=kinematics.inverse,
    damped=kinematics.damped_inverse,
    fingers=Fingers("left_finger", closed_m=0.015, open_m=0.037),
)
