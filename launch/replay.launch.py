"""ros2 launch instructvla replay.launch.py bag:=FOLDER [checkpoint:=...] [live:=true]."""

from instructvla_ros.graph.launch_actions import launch_description
from instructvla_ros.graph.replay import REPLAY
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The report of a recording, or with live:=true the policy's nodes and a player."""
    return launch_description(REPLAY)
