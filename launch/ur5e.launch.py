"""ros2 launch instructvla ur5e.launch.py [trajectory_topic:=...] [checkpoint:=...]: the worked example of a robot."""

from instructvla_ros.graph.launch_actions import launch_description
from instructvla_ros.robots.ur5e import GRAPH
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The policy and the neutral controller of a UR5e."""
    return launch_description(GRAPH)
