"""ros2 launch instructvla franka.launch.py [robot_type:=fr3] [route:=joint_trajectory] [sim:=true]
[checkpoint:=...]."""

from instructvla_ros.graph.franka import FRANKA
from instructvla_ros.graph.launch_actions import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The policy and the controller of a Franka, with franka_ros2 or the simulated arm."""
    return launch_description(FRANKA)
