"""ros2 launch instructvla sim.launch.py [seed:=1] [checkpoint:=...]: the whole system with the simulated
arm."""

from instructvla_ros.graph.launch_actions import launch_description
from instructvla_ros.graph.widowx import WIDOWX
from launch import LaunchDescription  # type: ignore[attr-defined]


def generate_launch_description() -> LaunchDescription:
    """The graph of the WidowX with sim:=true."""
    return launch_description(WIDOWX, sim="true")
