"""The language of the graph: arguments, nodes, and how arguments fill them. Plain data, no ROS imports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_REFERENCE = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_PART = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Argument:
    """One argument of the graph, given as name:=value. All values are strings; `choices` limits them."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSpec:
    """One node. Strings may hold {argument} references.

    `module` is run by the supervisor, `executable` by ros2 launch. `params_file` names a YAML of the package
    `instructvla`; `parameters` override it, and `kinds` gives the type of those that are not strings (list: texts
    between commas). `when` names a boolean argument. `required`: its death stops the graph, after `respawns` new starts
    within a minute; with `finishes`, its end with status 0 is the end of the work. `nice` 0..19 gives way to others on
    a busy processor. `preload` names modules that take long to import: a spare process that has imported them may
    take the place of this node when it crashes (`instructvla up` only).
    """

    name: str
    package: str
    executable: str
    module: str
    namespace: str = "{namespace}"
    params_file: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, type] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    when: str = ""
    required: bool = True
    finishes: bool = False
    nice: int = 0
    respawns: int = 0
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResolvedNode:
    """A node with all references filled in, ready to start."""

    name: str
    package: str
    executable: str
    module: str
    namespace: str
    params_file: str
    parameters: tuple[tuple[str, Any], ...]
    remappings: tuple[tuple[str, str], ...]
    required: bool
    nice: int
    respawns: int = 0
    finishes: bool = False
    preload: tuple[str, ...] = ()


Rewiring = Callable[[list[ResolvedNode], Mapping[str, str]], list[ResolvedNode]]
"""Changes the nodes of a graph as its arguments ask for it."""


@dataclass(frozen=True)
class Graph:
    """Arguments and nodes of one system; `rewire` has the last word on its nodes."""

    name: str
    arguments: tuple[Argument, ...]
    nodes: tuple[NodeSpec, ...]
    rewire: Rewiring = lambda nodes, _: nodes


class ArgumentError(ValueError):
    """An argument is unknown or has a value that is not allowed."""


def absolute_name(text: str) -> str:
    """A namespace with its leading slash; raises ArgumentError for what is no ROS name."""
    if not _NAME.fullmatch(text):
        raise ArgumentError(f"namespace {text!r} is no name; expected letters, digits and _, for example /left")
    return text if text.startswith("/") else f"/{text}"


def _checked_robot_name(text: str) -> str:
    if not _PART.fullmatch(text):
        raise ArgumentError(
            f"robot_name {text!r} is no part of a topic's name; expected letters, digits and _, as in "
            "/<robot_name>/joint_states"
        )
    return text


def argument_values(graph: Graph, given: Mapping[str, str]) -> dict[str, str]:
    """Defaults overlaid with what was given; raises ArgumentError that lists what there is."""
    known = {argument.name: argument for argument in graph.arguments}
    for name, value in given.items():
        if name not in known:
            raise ArgumentError(f"unknown argument {name!r}; known are: {', '.join(sorted(known))}")
        if known[name].choices and value not in known[name].choices:
            raise ArgumentError(
                f"{name}:={value} is not possible; expected one of {', '.join(known[name].choices)}"
            )
    values = {name: given.get(name, argument.default) for name, argument in known.items()}
    if "namespace" in values:
        values["namespace"] = absolute_name(values["namespace"])
    if "robot_name" in values:
        values["robot_name"] = _checked_robot_name(values["robot_name"])
    return values


def is_true(value: str) -> bool:
    """Whether a boolean argument is set; raises ArgumentError for anything that is no boolean."""
    lowered = value.strip().lower()
    if lowered in ("true", "1", "yes", "on"):
        return True
    if lowered in ("false", "0", "no", "off", ""):
        return False
    raise ArgumentError(f"{value!r} is no boolean; expected true or false")


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda match: values[match.group(1)], text)


def _typed(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        return is_true(text)
    if kind is list:
        return text.split(",")
    try:
        return kind(text)
    except ValueError as error:
        raise ArgumentError(f"parameter {name} is {text!r}; expected a value of type {kind.__name__}") from error


def resolve(graph: Graph, given: Mapping[str, str]) -> list[ResolvedNode]:
    """The nodes to start for these arguments, in order."""
    values = argument_values(graph, given)
    found = []
    for node in graph.nodes:
        if node.when and not is_true(values[node.when]):
            continue
        parameters = tuple(
            (name, _typed(name, _fill(text, values), node.kinds.get(name, str)))
            for name, text in node.parameters.items()
        )
        found.append(
            ResolvedNode(
                node.name,
                node.package,
                node.executable,
                node.module,
                _fill(node.namespace, values),
                node.params_file,
                parameters,
                tuple((old, _fill(new, values)) for old, new in node.remappings),
                node.required,
                node.nice,
                node.respawns,
                node.finishes,
                node.preload,
            )
        )
    return graph.rewire(found, values)
