"""The graph of the Franka FR3 and Panda behind franka_ros2."""

from __future__ import annotations

from instructvla_ros.graph.description import Argument
from instructvla_ros.graph.policy import controller, policy_graph, simulation

FRANKA = policy_graph(
    "franka",
    (
        Argument("robot_type", "fr3", "prefix of the joints' names", ("fr3", "panda")),
        Argument(
            "route",
            "joint_trajectory",
            "who moves the arm: its trajectory controller, crisp, or MoveIt Servo",
            ("joint_trajectory", "target_pose", "servo_twist", "servo_pose"),
        ),
        Argument("servo_api", "jazzy", "which MoveIt Servo there is", ("jazzy", "humble")),
        Argument("gripper", "franka_msgs", "how the hand is told", ("franka_msgs", "gripper_command", "none")),
        Argument("gripper_name", "/franka_gripper", "the gripper node, whose name differs between versions"),
        Argument("joint_states_topic", "/joint_states", "arm and fingers together"),
        Argument("robot_namespace", "", "put before all names of the robot, for example /left"),
        Argument("motion_controllers", "auto", "controllers that a reset restarts, between commas; auto by the route"),
    ),
    controller(
        "franka_controller_node",
        "franka.yaml",
        {
            "arm": "{robot_type}",
            "route": "{route}",
            "servo.api": "{servo_api}",
            "hand.interface": "{gripper}",
            "hand.name": "{gripper_name}",
            "joint_states_topic": "{joint_states_topic}",
            "robot_namespace": "{robot_namespace}",
            "recovery.motion_controllers": "{motion_controllers}",
        },
        **{"recovery.motion_controllers": list},
    ),
    {
        "arm": "{robot_type}",
        "gripper": "{gripper}",
        "joint_states_topic": "{robot_namespace}{joint_states_topic}",
        "base_frame": "{robot_type}_link0",
    },
    simulation(robot="{robot_type}"),
    checkpoint="nano-franka",
)
