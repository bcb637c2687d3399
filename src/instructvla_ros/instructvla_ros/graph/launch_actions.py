"""The graph as actions of the genuine ros2 launch. Imports `launch` and `launch_ros`: only under a full ROS
2."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from instructvla_ros.graph import environment, files
from instructvla_ros.graph.description import Graph, ResolvedNode, resolve
from instructvla_ros.graph.tries import Tries
from launch import LaunchDescription  # type: ignore[attr-defined]


def launch_description(graph: Graph, **defaults: str) -> Any:
    """The LaunchDescription of a graph; `defaults` replaces defaults of its arguments."""
    actions: list[Any] = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in environment.DEFAULTS.items()
    ]
    for argument in graph.arguments:
        options = {"choices": list(argument.choices)} if argument.choices else {}
        default = defaults.get(argument.name, argument.default)
        actions.append(
            DeclareLaunchArgument(
                argument.name, default_value=default, description=argument.description, **options
            )
        )
    actions.append(OpaqueFunction(function=lambda context: _nodes(graph, context)))
    return LaunchDescription(actions)


def _nodes(graph: Graph, context: Any) -> list[Any]:
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in graph.arguments}
    given["checkpoint"] = files.resolve_checkpoint(given["checkpoint"])
    actions = []
    for node in resolve(graph, given):
        parameters: list[Any] = [str(files.params_file(node.params_file))] if node.params_file else []
        parameters.append(dict(node.parameters))
        actions.append(
            Node(
                package=node.package,
                executable=node.executable,
                name=node.name,
                namespace=node.namespace,
                parameters=parameters,
                remappings=list(node.remappings),
                output="screen",
                prefix=f"nice -n {node.nice}" if node.nice else None,
                respawn=node.respawns > 0,
                respawn_delay=0.5,
                respawn_max_retries=-1,  # on_exit counts, by the minute; the launch system would count for ever
                on_exit=_when_it_ends(node) if node.required else None,
            )
        )
    return actions


def _when_it_ends(node: ResolvedNode, clock: Callable[[], float] = time.monotonic) -> Any:
    """End the graph, at once or when the node has crashed more often than it is started again."""
    shutdown = Shutdown(reason=f"{node.name} ended")
    if not node.respawns:
        return shutdown
    tries = Tries(node.respawns, clock)
    return lambda event, _: None if event.returncode != 0 and tries.again() else shutdown
