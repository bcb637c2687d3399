"""The graph that replays a recording: offline one node that writes a report, live the policy's nodes and a player."""

from __future__ import annotations

from dataclasses import replace

from instructvla_ros.graph import policy, recorder
from instructvla_ros.graph.description import Argument, Graph, NodeSpec
from instructvla_ros.graph.widowx import WIDOWX

ARGUMENTS = (
    Argument("bag", "", "folder of a rosbag2, an .mcap or a .db3 file"),
    Argument("output", "", "folder of the report; empty: beside the bag"),
    Argument("live", "false", "true plays the bag into the policy's nodes at its own rate, with /clock"),
    Argument("rate", "1.0", "live: speed, 1 is the recorded one"),
    Argument("instruction", "", "instead of the recorded instruction, or where there is none"),
    Argument("arm", "wx250s", "live: the arm of the recording: wx250s, fr3, panda, ur5e"),
    Argument("joint_states_topic", "/wx250s/joint_states", "live: where the recording has its joint states"),
    *(argument for argument in policy.ARGUMENTS if argument not in recorder.ARGUMENTS),
)

_PLAYER = NodeSpec(
    name="replay_node",
    package="instructvla_ros",
    executable="replay_node",
    module="instructvla_ros.nodes.replay_node",
    params_file="replay.yaml",
    parameters={
        name: f"{{{name}}}" for name in ("bag", "output", "live", "rate", "instruction", "checkpoint", "device")
    },
    kinds={"live": bool, "rate": float},
    finishes=True,
)


def _live(node: NodeSpec) -> NodeSpec:
    """A node of the robot's graph on the recording's clock."""
    parameters = {**node.parameters, "use_sim_time": "true"}
    if node.name == "action_expert_node":
        parameters |= {"arm": "{arm}", "joint_states_topic": "{joint_states_topic}", "base_frame": "{arm}/base_link"}
    return replace(node, when="live", parameters=parameters, kinds={**node.kinds, "use_sim_time": bool})


_POLICY = tuple(_live(node) for node in WIDOWX.nodes if node.name in ("reasoning_node", "action_expert_node"))
_MANAGER = replace(
    next(node for node in WIDOWX.nodes if node.name == "lifecycle_manager_node"),
    when="live", params_file="replay.yaml", parameters={}, kinds={},
)  # fmt: skip

REPLAY = Graph("replay", ARGUMENTS, (_PLAYER, *_POLICY, _MANAGER))
