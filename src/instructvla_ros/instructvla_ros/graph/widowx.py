"""The graph of the WidowX-250s: the policy's nodes, its controller, and optionally the simulated arm and
cameras."""

from __future__ import annotations

from instructvla_ros.graph.description import Argument
from instructvla_ros.graph.policy import controller, policy_graph, simulation

WIDOWX = policy_graph(
    "widowx",
    (Argument("robot_name", "wx250s", "namespace of the Interbotix driver"),),
    controller("widowx_controller_node", "widowx.yaml", {"robot_name": "{robot_name}"}),
    {"joint_states_topic": "/{robot_name}/joint_states", "base_frame": "{robot_name}/base_link"},
    simulation(robot_name="{robot_name}"),
)
