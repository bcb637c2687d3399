"""The Universal Robots UR5e with any two-finger gripper: the worked example of adding a robot.

Joint origins and limits are those of the vendor's robot description (ur_description, UR5e); its joint trajectory
controller is that of ur_robot_driver. The tool frame is 0.15 m beyond `tool0`: put in the length of your gripper.
"""

from __future__ import annotations

import math

import numpy as np

from instructvla_ros.control.arm import ArmModel, Fingers
from instructvla_ros.control.chain import Origin, SerialChain
from instructvla_ros.graph.description import Argument
from instructvla_ros.graph.policy import controller, policy_graph

_QUARTER = math.pi / 2
_LIMIT = np.array([math.tau, math.tau, math.pi, math.tau, math.tau, math.tau])
_CHAIN = SerialChain(
    origins=(
        Origin((0.0, 0.0, 0.1625), (0.0, 0.0, math.pi)),  # base_link is turned by half a turn against the base
        Origin(rpy_rad=(_QUARTER, 0.0, 0.0)),
        Origin((-0.425, 0.0, 0.0)),
        Origin((-0.3922, 0.0, 0.1333)),
        Origin((0.0, -0.0997, 0.0), (_QUARTER, 0.0, 0.0)),
        Origin((0.0, 0.0996, 0.0), (_QUARTER, math.pi, math.pi)),
    ),
    # To the fingertips of a gripper whose fingers move along tool0's x; then renamed: x out of the gripper, y across.
    tool=(Origin((0.0, 0.0, 0.15), (0.0, 0.0, -_QUARTER)), Origin(rpy_rad=(math.pi, -_QUARTER, 0.0))),
    lower_rad=-_LIMIT,
    upper_rad=_LIMIT,
)
_HOME = np.array([0.0, -_QUARTER, _QUARTER, -_QUARTER, -_QUARTER, 0.0])

UR5E = ArmModel(
    name="ur5e",
    joint_names=(
        "shoulder_pan_joint",
        "shoulder_lift_joint",
        "elbow_joint",
        "wrist_1_joint",
        "wrist_2_joint",
        "wrist_3_joint",
    ),
    lower_rad=-_LIMIT,
    upper_rad=_LIMIT,
    velocity_rad_s=np.full(6, math.pi),
    acceleration_rad_s2=np.full(6, 5.0),
    closed_form=False,
    home_rad=_HOME,
    sleep_rad=_HOME.copy(),
    forward=_CHAIN.forward,
    inverse=_CHAIN.inverse,
    damped=_CHAIN.damped_inverse,
    command_rotation=np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]),
    fingers=Fingers("finger_joint", closed_m=0.0, open_m=0.0425),
)

ARMS = {UR5E.name: UR5E}
GRAPH = policy_graph(
    "ur5e",
    (
        Argument("joint_states_topic", "/joint_states", "arm and fingers together"),
        Argument(
            "trajectory_topic",
            "/scaled_joint_trajectory_controller/joint_trajectory",
            "where the joint trajectory controller listens",
        ),
        Argument("gripper_topic", "/gripper_controller/command", "where the gripper's width is heard"),
    ),
    controller(
        "arm_controller_node",
        "ur5e.yaml",
        {
            "joint_states_topic": "{joint_states_topic}",
            "topics.joint_trajectory": "{trajectory_topic}",
            "topics.gripper": "{gripper_topic}",
        },
    ),
    {"arm": "ur5e", "joint_states_topic": "{joint_states_topic}", "base_frame": "base_link"},
)
