"""The recorder as a part of any robot's graph: `record:=true` starts it."""

from __future__ import annotations

from instructvla_ros.graph.description import Argument, NodeSpec

ARGUMENTS = (
    Argument("record", "false", "true records the run as a rosbag2"),
    Argument("recording", "", "folder of that recording; empty: recording_<date>_<time> where the graph is started"),
)


def node(joint_states_topic: str) -> NodeSpec:
    """The recorder of a robot whose joint states are there; its end, as on a full disk, does not end the graph."""
    return NodeSpec(
        name="recorder_node",
        package="instructvla_ros",
        executable="recorder_node",
        module="instructvla_ros.nodes.recorder_node",
        params_file="recorder.yaml",
        parameters={
            "output": "{recording}",
            "joint_states_topic": joint_states_topic,
            "camera_topic": "{camera_topic}",
            "wrist_topic": "{wrist_topic}",
        },
        when="record",
        required=False,
    )
