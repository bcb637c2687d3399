"""The nodes' parameters as a replay has them: defaults, policy.yaml, then what was given, within the nodes' limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from instructvla_ros.graph import files
from instructvla_ros.nodes.parameters import Parameter
from instructvla_ros.nodes.settings import EXPERT, REASONING

NODES: Mapping[str, Sequence[Parameter]] = {"reasoning_node": REASONING, "action_expert_node": EXPERT}
_ELSEWHERE = {"seed": "--seed", "checkpoint": "--checkpoint", "device": "--device"}


def parameter_values(node: str, replaced: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a node as the live graph has them: defaults, policy.yaml, then `replaced`. Raises ValueError for names
    and values that the node would refuse."""
    parameters = {parameter.name: parameter for parameter in NODES[node]}
    raw = yaml.safe_load(files.params_file("policy.yaml").read_text(encoding="utf-8"))[f"/**/{node}"]["ros__parameters"]
    given = dict(_flat(raw)) | {
        name: _checked(node, parameters[name], value) if name in parameters else value
        for name, value in replaced.items()
    }
    unknown = sorted(set(given) - set(parameters))
    if unknown:
        raise ValueError(f"{node} has no parameter {', '.join(unknown)}; see docs/reference/parameters.md")
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}


def check(replaced: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError for nodes, names and values that are not to be replaced in a replay."""
    for node, values in replaced.items():
        if node not in NODES:
            raise ValueError(f"found parameters of {node}; expected {' or '.join(NODES)}")
        for name in sorted(values.keys() & _ELSEWHERE.keys()):
            raise ValueError(f"{node}.{name} is not a matter of a replay's parameters; say {_ELSEWHERE[name]}")
        parameter_values(node, values)


def _checked(node: str, parameter: Parameter, value: Any) -> Any:
    """The value in the parameter's type."""
    kind = type(parameter.default)
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        right, value = True, float(value)
    low, high = parameter.minimum, parameter.maximum
    inside = low is None or high is None or (right and low <= value <= high)  # NaN is outside
    if right and inside and (not parameter.choices or value in parameter.choices):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", list: "a list"}
    expected = names.get(kind, kind.__name__) if low is None else f"{names[kind]} from {low:g} to {high:g}"
    if parameter.choices:
        expected = f"one of {', '.join(parameter.choices)}"
    raise ValueError(f"{node}.{parameter.name} is {value!r}; expected {expected}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found
