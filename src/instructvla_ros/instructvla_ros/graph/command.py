"""The command line that starts a resolved node without ros2 launch, and the process that the supervisor runs for it."""

from __future__ import annotations

import sys
from typing import Any

from instructvla_ros.graph import files
from instructvla_ros.graph.description import ResolvedNode
from instructvla_ros.graph.spare import Order
from instructvla_ros.graph.supervisor import Process


def yaml_scalar(value: Any) -> str:
    """A value as `-p name:=value` wants it: strings quoted, so that "0" stays a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def node_command(node: ResolvedNode) -> list[str]:
    """argv of one node; raises FileNotFoundError when its parameter file is missing."""
    command = ["nice", "-n", str(node.nice)] if node.nice else []
    # -P: a node imports nothing from the folder in which the graph was started, such as somebody's queue.py.
    return [*command, sys.executable, "-P", "-m", node.module, *_arguments(node)]


def node_process(node: ResolvedNode) -> Process:
    """What the supervisor runs for a node; raises FileNotFoundError when its parameter file is missing."""
    order = Order(node.module, tuple(_arguments(node)), node.preload, node.nice) if node.preload else None
    return Process(node.name, node_command(node), node.required, node.respawns, node.finishes, order)


def _arguments(node: ResolvedNode) -> list[str]:
    command = ["--ros-args", "-r", f"__node:={node.name}", "-r", f"__ns:={node.namespace}"]
    if node.params_file:
        command += ["--params-file", str(files.params_file(node.params_file))]
    for name, value in node.parameters:
        command += ["-p", f"{name}:={yaml_scalar(value)}"]
    for old, new in node.remappings:
        command += ["-r", f"{old}:={new}"]
    return command
