"""The parameters of arm_controller_node. Their meaning is in the commented YAML of `instructvla`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instructvla_ros.control import WidthArmConfig
from instructvla_ros.nodes.parameters import Parameter, build_config, parameters_of
from instructvla_ros.nodes.settings import CONTROLLER_RANGES, WATCH

OUTPUTS = ("joint_trajectory", "target_pose", "twist", "gripper")


@dataclass(frozen=True)
class NeutralTopics:
    """Where each output is published."""

    joint_trajectory: str = "~/joint_trajectory"
    target_pose: str = "~/target_pose"
    twist: str = "~/twist"
    gripper: str = "~/gripper"


@dataclass(frozen=True)
class ArmSettings:
    """The arm, what it reports and what it is told."""

    arm: str = "ur5e"
    outputs: tuple[str, ...] = ("joint_trajectory", "gripper")
    topics: NeutralTopics = field(default_factory=NeutralTopics)
    joint_states_topic: str = "/joint_states"
    base_frame: str = "base_link"
    twist_gain_per_s: float = 4.0
    gripper_effort_n: float = 20.0
    service_timeout_s: float = 5.0
    control_rate_hz: float = 50.0
    state_rate_hz: float = 5.0


RANGES = {
    "twist_gain_per_s": (0.1, 20.0),
    "gripper_effort_n": (0.0, 500.0),
    "service_timeout_s": (0.1, 60.0),
    "control_rate_hz": (20.0, 500.0),
    "state_rate_hz": (0.5, 50.0),
    "interpolator.acceleration_fraction": (0.01, 1.0),
    "interpolator.lead_s": (0.02, 0.5),
    "interpolator.brake_s": (0.04, 1.0),
    "gripper.open_width_m": (0.01, 0.3),
}
ARM: list[Parameter] = [
    *parameters_of(ArmSettings(), RANGES),
    *[
        parameter
        for parameter in parameters_of(WidthArmConfig(), {**CONTROLLER_RANGES, **RANGES})
        if parameter.name != "tick_period_s"  # follows from control_rate_hz
    ],
    *WATCH,
]


def arm_settings(values: Mapping[str, Any]) -> ArmSettings:
    """Read the settings; raises ValueError for outputs that do not exist."""
    settings = build_config(ArmSettings(), values)
    unknown = [name for name in settings.outputs if name not in OUTPUTS]
    if unknown or not settings.outputs:
        raise ValueError(f"outputs is {list(settings.outputs)}; expected some of {', '.join(OUTPUTS)}")
    return settings


def width_arm_config(values: Mapping[str, Any]) -> WidthArmConfig:
    """The controller's configuration; its tick period follows from control_rate_hz."""
    config = build_config(WidthArmConfig(), values)
    return dataclasses.replace(config, tick_period_s=1.0 / float(values["control_rate_hz"]))
