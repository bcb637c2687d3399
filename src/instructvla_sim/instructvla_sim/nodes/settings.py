"""The parameters of sim_node: names, defaults and ranges. Their meaning is in the commented YAML of `instructvla`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructvla_ros.nodes.parameters import Parameter, build_config, parameters_of
from instructvla_ros.nodes.settings import check_robot_name
from instructvla_sim.robots import ROBOTS
from instructvla_sim.types import FAMILIES

FAULTS: tuple[str, ...] = (
    "none",
    "nan_joint_states",
    "no_joint_states",
    "no_primary_images",
    "no_wrist_images",
    "servo_overload",
    "bus_failure",
    "reflex",
    "user_stop",
)
"""What the simulated hardware can be told to get wrong, for trying out how the graph copes."""
LIVE_PARAMETERS: tuple[str, ...] = ("seed", "instruction", "families", "n_distractors", "fault")
"""May be set while the node runs: `fault` acts at once, the others at the next reset."""

_TOPIC = re.compile(r"(~?/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class SimSettings:
    """Everything that can be set on sim_node."""

    robot: str = "wx250s"
    robot_name: str = "wx250s"
    seed: int = 0
    instruction: str = ""
    families: tuple[str, ...] = FAMILIES
    n_distractors: int = -1
    follow_instructions: bool = True
    reasoning_topic: str = "/instructvla/reasoning"
    success_hold_s: float = 0.4
    interpolate_from_desired_state: bool = True
    joint_state_rate_hz: float = 100.0
    max_catch_up_s: float = 0.05
    primary_topic: str = "/camera/camera/color/image_raw"
    primary_frame_id: str = "camera_color_optical_frame"
    primary_rate_hz: float = 10.0
    wrist_topic: str = "/wrist/image_raw"
    wrist_frame_id: str = "wrist_color_optical_frame"
    wrist_rate_hz: float = 5.0
    render_unwatched: bool = False
    multisampling: int = 4
    fault: str = "none"


_RANGES = {
    "seed": (0, 2**31 - 1),
    "n_distractors": (-1, 5),
    "success_hold_s": (0.0, 10.0),
    "joint_state_rate_hz": (20.0, 500.0),
    "max_catch_up_s": (0.0, 1.0),
    "primary_rate_hz": (0.0, 60.0),
    "wrist_rate_hz": (0.0, 60.0),
    "multisampling": (0, 16),
}


def _with_choices(parameter: Parameter) -> Parameter:
    choices = {"fault": FAULTS, "robot": tuple(ROBOTS)}.get(parameter.name)
    return parameter if choices is None else Parameter(parameter.name, parameter.default, choices=choices)


SIM: list[Parameter] = [_with_choices(parameter) for parameter in parameters_of(SimSettings(), _RANGES)]


def sim_settings(values: Mapping[str, Any]) -> SimSettings:
    """Read and check the settings; raises ValueError that says what is wrong and what is possible."""
    settings = build_config(SimSettings(), values)
    check_robot_name(settings.robot_name)
    _check_topics(settings)
    unknown = [family for family in settings.families if family not in FAMILIES]
    if unknown or not settings.families:
        raise ValueError(f"families is {list(settings.families)}; expected some of {', '.join(FAMILIES)}")
    if settings.fault not in FAULTS:
        raise ValueError(f"fault is {settings.fault!r}; expected one of {', '.join(FAULTS)}")
    return settings


def camera_info_topic(image_topic: str) -> str:
    """camera_info beside the image, as image_transport expects it."""
    return image_topic.rsplit("/", 1)[0] + "/camera_info"


def _check_topics(settings: SimSettings) -> None:
    for name in ("primary_topic", "wrist_topic", "reasoning_topic"):
        topic = getattr(settings, name)
        if not _TOPIC.fullmatch(topic):
            raise ValueError(
                f"{name} is {topic!r}; expected letters, digits and _ between slashes, no digit after a slash, "
                "for example /left/image_raw"
            )
    primary, wrist = settings.primary_topic, settings.wrist_topic
    shared = camera_info_topic(primary)
    if shared == camera_info_topic(wrist):
        raise ValueError(
            f"primary_topic is {primary} and wrist_topic is {wrist}: both cameras would publish {shared}; "
            f"put each in a namespace of its own, for example /left/image_raw and /left/wrist/image_raw"
        )
