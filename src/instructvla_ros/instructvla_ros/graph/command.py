"""The command line that starts a resolved node without ros2 launch."""

from __future__ import annotations

import sys
from typing import Any

from instructvla_ros.graph import files
from instructvla_ros.graph.description import ResolvedNode


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
    command += [sys.executable, "-m", node.module, "--ros-args", "-r", f"__node:={node.name}"]
    command += ["-r", f"__ns:={node.namespace}"]
    if node.params_file:
        command += ["--params-file", str(files.params_file(node.params_file))]
    for name, value in node.parameters:
        command += ["-p", f"{name}:={yaml_scalar(value)}"]
    for old, new in node.remappings:
        command += ["-r", f"{old}:={new}"]
    return command
