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
from instructvla_ros.graph.description import ArgumentError, Graph, argument_values, resolve
from instructvla_ros.graph.replay import REPLAY
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.robots import graphs

_MANAGER = "lifecycle_manager_node"
_LOOK_S = 1.0  # for a graph that runs already: DDS finds what is on the network in a fraction of it
_POLL_S = 0.05


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


def refuse_second(namespace: str) -> None:
    """Raises ValueError where a graph runs in this namespace and ROS domain: two would fight over the arm."""
    from instructvla_ros.cli.bring_up import managers
    from instructvla_ros.cli.ros_client import RosClient

    with RosClient(namespace) as client:
        end_s = time.monotonic() + _LOOK_S
        while managers(client) == 0:
            if time.monotonic() >= end_s:
                return
            threading.Event().wait(_POLL_S)
    raise ValueError(
        f"a graph runs in namespace {namespace} of ROS domain {os.environ.get('ROS_DOMAIN_ID', '0')} already, and two "
        "would fight over the arm; end it (Ctrl-C where it was started), or give this one a namespace:=/other for "
        "another robot, or set another ROS_DOMAIN_ID"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start, wait, stop; returns 0 when asked to stop, else the exit status of the node that ended."""
    given = parse_assignments(arguments.arguments)
    if arguments.sim:
        given["sim"] = "true"
    graph = startable()[arguments.robot]
    supervisor = make_supervisor(graph, given, arguments.namespace, spare=True)
    values = {"namespace": arguments.namespace, **given}
    if _MANAGER in [node.name for node in resolve(graph, values)]:  # without it, nothing of the graph lasts
        refuse_second(argument_values(graph, values)["namespace"])
    supervisor.handle_signals()
    supervisor.start()
    ending = supervisor.wait()
    print(f"instructvla up: {ending.reason}", file=sys.stderr)
    return ending.status
