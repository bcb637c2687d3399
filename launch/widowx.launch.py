"""ros2 launch instructvla widowx.launch.py [robot_name:=wx250s] [sim:=true] [checkpoint:=...]
[camera_topic:=...]."""

from instructvla_ros.graph.launch_actions import launch_description
from instructvla_ros.graph.widowx import WIDOWX
from launch import LaunchDescription  # type: ignore[attr-defined]


def generate_launch_description() -> LaunchDescription:
    """The policy and the controller of a WidowX-250s, with the real driver or the simulated arm."""
    return launch_description(WIDOWX)
