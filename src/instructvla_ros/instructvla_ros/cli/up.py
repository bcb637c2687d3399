"""instructvla up: start the graph and supervise it until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from instructvla_ros.graph import environment, files
from instructvla_ros.graph.command import node_process
from instructvla_ros.graph.description import ArgumentError, Graph, argument_values, is_true, resolve
from instructvla_ros.graph.replay import REPLAY
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.robots import graphs

_MANAGER = "lifecycle_manager_node"
_LOOK_S = 1.0  # for a graph or driver that runs already: DDS finds what is on the network in a fraction of it
_POLL_S = 0.05
_COMMANDS = {
    "widowx": ("/{robot_name}/commands/joint_group",),
    "franka": (
        "{robot_namespace}/{robot_type}_arm_controller/joint_trajectory",
        "{robot_namespace}/target_pose",
        "{robot_namespace}/servo_node/delta_twist_cmds",
        "{robot_namespace}/servo_node/pose_target_cmds",
    ),
}
"""By graph: where the controller sends its goals by default (nodes/driver_client.py, nodes/settings_franka.py)."""
_ONLOOKERS = ("instructvla_cli_", "rosbag2_", "_ros2cli_")
"""How the names of nodes begin that listen to commands and move nothing: `instructvla watch`, recorders, `ros2`."""
_UNNAMED = "_NODE_NAME_UNKNOWN_"
"""Whose name DDS has not told yet: it comes a moment after what the node publishes."""


def startable() -> dict[str, Graph]:
    """What can be started: the robots' graphs, and that of a recording."""
    return {**graphs(), REPLAY.name: REPLAY}


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up`."""
    parser = commands.add_parser("up", help="start the graph and supervise it", description=_arguments_help())
    parser.add_argument("robot", choices=sorted(startable()), help="whose graph to start; replay: that of a recording")
    parser.add_argument("--sim", action="store_true", help="simulated arm and cameras (the same as sim:=true)")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph, see above")
    parser.set_defaults(run=run)


def _arguments_help() -> str:
    lines = ["Start the nodes of a robot's graph. Arguments of the graph:"]
    for name, graph in startable().items():
        lines.append(f"  {name}:")
        lines += [f"    {a.name}:={a.default or '...'}  {a.description}" for a in graph.arguments]
    return "\n".join(lines)


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """name:=value texts as a dict; raises ArgumentError for anything else."""
    given = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not separator or not name:
            raise ArgumentError(f"{text!r} is no argument; expected name:=value, for example robot_name:=wx250s")
        given[name] = value
    return given


def make_supervisor(
    graph: Graph,
    given: Mapping[str, str],
    namespace: str,
    output: int | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    spare: bool = False,
) -> Supervisor:
    """A supervisor for the graph with these arguments; raises ArgumentError or FileNotFoundError.

    `overrides` gives further parameters by node name. `spare`: keep a process ready for a model node that crashes.
    """
    values = {"namespace": namespace, **given}
    values["checkpoint"] = files.resolve_checkpoint(argument_values(graph, values)["checkpoint"])
    processes = []
    for node in resolve(graph, values):
        further = (overrides or {}).get(node.name, {})
        node = replace(node, parameters=(*node.parameters, *further.items()))
        processes.append(node_process(node))
    return Supervisor(processes, environment.apply_defaults(dict(os.environ)), output=output, spare=spare)


def refuse_second(graph: Graph, given: Mapping[str, str], namespace: str) -> None:
    """Raises ValueError where a graph runs in this namespace and ROS domain: two would fight over the arm.

    A simulated arm is refused beside any other of its names too: a real one would obey the same controller.
    """
    from instructvla_ros.cli.bring_up import managers
    from instructvla_ros.cli.ros_client import RosClient

    values = argument_values(graph, {"namespace": namespace, **given})
    nodes = {node.name: node for node in resolve(graph, values)}
    if _MANAGER not in nodes:  # without it, nothing of the graph lasts
        return
    states, commands = "", []
    if is_true(values.get("sim", "false")):
        states = dict(nodes["action_expert_node"].parameters)["joint_states_topic"]
        commands = [topic.format_map(values) for topic in _COMMANDS.get(graph.name, ())]
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    with RosClient(values["namespace"]) as client:
        end_s = time.monotonic() + _LOOK_S
        while True:
            if managers(client):
                raise ValueError(
                    f"a graph runs in namespace {values['namespace']} of ROS domain {domain} already, and two would "
                    "fight over the arm; end it (Ctrl-C where it was started), or give this one a namespace:=/other "
                    "for another robot, or set another ROS_DOMAIN_ID"
                )
            found = _arm_there(client.node, states, commands) if states else ""
            over = time.monotonic() >= end_s
            if found and (over or _UNNAMED not in found):
                raise ValueError(
                    f"{found} in ROS domain {domain} already, where a simulated arm expects to be alone: the "
                    "controller would move both arms. Stop the driver or the graph that runs there, or set another "
                    "ROS_DOMAIN_ID for the simulation"
                )
            if over:
                return
            threading.Event().wait(_POLL_S)


def _arm_there(node: Any, states: str, commands: Sequence[str]) -> str:
    """Who publishes the arm's joint states or takes its commands; "" where nobody does."""
    for info in node.get_publishers_info_by_topic(states):
        return f"{_full_name(info)} publishes {states}"
    for topic in commands:
        for info in node.get_subscriptions_info_by_topic(topic):
            if not info.node_name.startswith(_ONLOOKERS):
                return f"{_full_name(info)} takes commands on {topic}"
    return ""


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def run(arguments: argparse.Namespace) -> int:
    """Start, wait, stop; returns 0 when asked to stop, else the exit status of the node that ended."""
    given = parse_assignments(arguments.arguments)
    if arguments.sim:
        given["sim"] = "true"
    graph = startable()[arguments.robot]
    supervisor = make_supervisor(graph, given, arguments.namespace, spare=True)
    refuse_second(graph, given, arguments.namespace)
    supervisor.handle_signals()
    supervisor.start()
    ending = supervisor.wait()
    print(f"instructvla up: {ending.reason}", file=sys.stderr)
    return ending.status
