"""The robots: each module of this package brings the arms and the graph of one. Adding a file here adds a robot.

A module has `ARMS`, the arms by name, and `GRAPH`, which `instructvla up <its name>` starts.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from types import ModuleType

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.graph.description import Graph


@cache
def _modules() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def graphs() -> dict[str, Graph]:
    """The graphs of all robots by name."""
    return {module.GRAPH.name: module.GRAPH for module in _modules().values()}


def arms() -> dict[str, ArmModel]:
    """The arms of all robots by name."""
    return {name: arm for module in _modules().values() for name, arm in module.ARMS.items()}


def arm_named(name: str) -> ArmModel:
    """The named arm. ValueError names the known ones."""
    known = arms()
    if name not in known:
        raise ValueError(f"arm is {name!r}; expected one of {', '.join(sorted(known))}")
    return known[name]


def arm_of(names: Sequence[str]) -> ArmModel | None:
    """The arm all of whose joints, finger included, are among the names; None where there is none."""
    known = set(names)
    return next((arm for arm in arms().values() if {*arm.joint_names, arm.fingers.joint} <= known), None)
