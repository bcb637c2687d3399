"""Parameters as data: declared from here, documented in the package `instructvla`'s commented YAML, compared
by a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter; `minimum` and `maximum` are inclusive, `choices` lists the allowed strings."""

    name: str
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def parameters_of(
    config: Any, ranges: Mapping[str, tuple[float, float]], prefix: str = ""
) -> list[Parameter]:
    """One parameter for each field of a config dataclass, nested dataclasses with a dotted prefix."""
    found: list[Parameter] = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            found += parameters_of(value, ranges, f"{name}.")
            continue
        low, high = ranges.get(name, (None, None))
        found.append(Parameter(name, list(value) if isinstance(value, tuple) else value, low, high))
    return found


def build_config(default: ConfigT, values: Mapping[str, Any], prefix: str = "") -> ConfigT:
    """The config dataclass with its fields taken from parameter values; the inverse of `parameters_of`."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(default):  # type: ignore[arg-type]
        value, name = getattr(default, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            changes[field.name] = build_config(value, values, f"{name}.")
        elif name in values:
            given = values[name]
            changes[field.name] = tuple(given) if isinstance(value, tuple) else given
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def declare(node: Any, parameters: Sequence[Parameter]) -> None:
    """Declare all parameters on a node, with their ranges; all are read when the node is configured."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    for parameter in parameters:
        descriptor = ParameterDescriptor()
        if parameter.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(parameter.choices)
        if parameter.minimum is not None and parameter.maximum is not None:
            if isinstance(parameter.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(parameter.minimum), to_value=float(parameter.maximum))
                ]
            elif isinstance(parameter.default, int) and not isinstance(parameter.default, bool):
                descriptor.integer_range = [
                    IntegerRange(from_value=int(parameter.minimum), to_value=int(parameter.maximum), step=1)
                ]
        node.declare_parameter(parameter.name, parameter.default, descriptor)


def read(node: Any, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The present values by name; raises ValueError for a string that is not among the choices."""
    values = {parameter.name: node.get_parameter(parameter.name).value for parameter in parameters}
    for parameter in parameters:
        value = values[parameter.name]
        if parameter.choices and value not in parameter.choices:
            raise ValueError(
                f"parameter {parameter.name} is {value!r}; expected one of {', '.join(parameter.choices)}"
            )
    return values
