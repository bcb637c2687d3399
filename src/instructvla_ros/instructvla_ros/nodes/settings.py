"""The parameters of each node: names, defaults and ranges. Their meaning is in the commented YAML of
`instructvla`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructvla_ros.control.watch import WatchConfig
from instructvla_ros.control.widowx import WidowXControllerConfig
from instructvla_ros.nodes.parameters import Parameter, build_config, parameters_of
from instructvla_ros.policy.execution import MAX_TIME_LIMIT_S
from instructvla_ros.policy.expert_worker import ExpertConfig
from instructvla_ros.policy.latent_gate import LatentLimits
from instructvla_ros.policy.reasoning_worker import ReasoningConfig
from instructvla_ros.policy.scheduler import SchedulerConfig


@dataclass(frozen=True)
class ModelSettings:
    """Where the checkpoint is and what runs it."""

    checkpoint: str = ""
    device: str = "auto"
    dtype: str = "auto"
    vlm_weights: str = "full"
    compile_vision: bool = False
    torch_threads: int = 1


@dataclass(frozen=True)
class RobotSettings:
    """Whose joint states are read, and where; the frame is noted in the chunks. `arm` is compared with the robot that
    the checkpoint was trained on (checkpoints.py). `gripper` "none": it has none to measure."""

    arm: str = "wx250s"
    gripper: str = "measured"
    joint_states_topic: str = "/wx250s/joint_states"
    base_frame: str = "wx250s/base_link"


@dataclass(frozen=True)
class DriverSettings:
    """How the Interbotix driver is set up at activation; times in ms are its own units."""

    robot_name: str = "wx250s"
    arm_group: str = "arm"
    gripper_joint: str = "gripper"
    profile_time_ms: int = 250
    profile_acceleration_ms: int = 100
    torque_on: bool = True
    service_timeout_s: float = 5.0
    control_rate_hz: float = 50.0
    state_rate_hz: float = 5.0
    error_poll_period_s: float = 1.0


_MODEL = [
    Parameter("checkpoint", ModelSettings.checkpoint),
    Parameter("device", ModelSettings.device),
    Parameter("dtype", ModelSettings.dtype, choices=("auto", "float32", "bfloat16", "float16")),
    Parameter("vlm_weights", ModelSettings.vlm_weights, choices=("full", "int8")),
    Parameter("compile_vision", ModelSettings.compile_vision),
    Parameter("torch_threads", ModelSettings.torch_threads, 0, 64),
]

_REASONING_RANGES = {
    "latent_period_s": (0.02, 10.0),
    "reasoning_period": (0, 10_000),
    "first_text_timeout_s": (0.0, 60.0),
    "max_new_tokens": (1, 512),
    "max_image_age_s": (0.05, 60.0),
    "max_reuse_age_s": (0.0, 60.0),
}
_SCHEDULER = parameters_of(SchedulerConfig(), _REASONING_RANGES)
REASONING = [
    *_MODEL,
    Parameter("mode", "auto", choices=("auto", "think", "motion", "off")),
    Parameter("time_limit_s", 60.0, 1.0, MAX_TIME_LIMIT_S),
    *_SCHEDULER,
    *[
        parameter
        for parameter in parameters_of(ReasoningConfig(), _REASONING_RANGES)
        if parameter.name != "mode" and not parameter.name.startswith("scheduler.")
    ],
]

_EXPERT_RANGES = {
    "rate_hz": (0.5, 100.0),
    "max_image_age_s": (0.05, 60.0),
    "max_skew_s": (0.01, 5.0),
    "latent.good_chunks": (1, 1000),
    "latent.max_chunks": (1, 1000),
    "latent.max_age_s": (0.1, 60.0),
}
EXPERT = [
    *_MODEL,
    Parameter("controller_silence_s", 0.5, 0.1, 60.0),
    *parameters_of(RobotSettings(), {}),
    # A parameter cannot be empty: a negative seed stands for None.
    Parameter("seed", -1, -1, 2**31 - 1),
    *[
        parameter
        for parameter in parameters_of(ExpertConfig(), _EXPERT_RANGES)
        if parameter.name not in ("views", "needs_state", "seed")
    ],
]

CONTROLLER_RANGES = {
    "safety.max_delta_xyz_m": (0.001, 0.2),
    "safety.max_delta_rpy_rad": (0.01, 1.0),
    "safety.reject_factor": (1.0, 100.0),
    "safety.push_tolerance_m": (0.0, 0.2),
    "safety.max_pushes": (0, 1000),
    "safety.max_target_lead_m": (0.02, 1.0),
    "safety.max_joint_lead_rad": (0.05, 3.2),
    "safety.joint_margin_rad": (0.0, 0.5),
    "safety.velocity_fraction": (0.01, 1.0),
    "safety.homing_speed_rad_s": (0.05, 1.5),
    "safety.max_joint_jump_rad": (0.05, 3.2),
    "safety.ik_position_tolerance_m": (0.0, 0.05),
    "safety.ik_rotation_tolerance_rad": (0.0, 0.5),
    "safety.max_joint_state_age_s": (0.02, 5.0),
    "safety.max_joint_silence_s": (0.1, 60.0),
    "safety.warn_image_age_s": (0.05, 60.0),
    "safety.max_image_age_s": (0.05, 60.0),
    "safety.abort_image_age_s": (0.1, 3600.0),
    "safety.max_bad_chunks": (1, 100),
    "safety.max_clock_jump_s": (0.1, 60.0),
    "safety.max_refused_goals": (1, 100),
    "safety.max_identical_pictures": (0, 1000),
    "safety.frozen_motion_rad": (0.001, 1.0),
    "buffer.ensemble_size": (1, 16),
    "buffer.ensemble_alpha": (-10.0, 10.0),
    "buffer.max_steps_per_chunk": (0, 256),
    "buffer.max_future_stamp_s": (0.0, 10.0),
    "interpolator.ramp_s": (0.0, 2.0),
    "gripper.gain_per_m": (1.0, 10_000.0),
    "gripper.max_pwm": (50.0, 885.0),
    "gripper.relief_pwm": (0.0, 400.0),
    "gripper.deadband_m": (0.0, 0.01),
    "gripper.contact_speed_m_s": (0.0, 0.1),
    "gripper.contact_time_s": (0.02, 5.0),
    "gripper.contact_error_m": (0.0, 0.02),
    "gripper.close_below": (0.0, 1.0),
    "gripper.open_above": (0.0, 1.0),
    "gripper.dwell_s": (0.0, 5.0),
}
_WATCH_RANGES = {
    "watch.silence_s": (0.1, 60.0),
    "watch.bond_s": (0.5, 60.0),
    "watch.clock_stop_s": (0.1, 60.0),
}
WATCH = parameters_of(WatchConfig(), _WATCH_RANGES, "watch.")
_DRIVER_RANGES = {
    "profile_time_ms": (0, 5000),
    "profile_acceleration_ms": (0, 2500),
    "service_timeout_s": (0.1, 60.0),
    "control_rate_hz": (20.0, 200.0),
    "state_rate_hz": (0.5, 50.0),
    "error_poll_period_s": (0.0, 60.0),
}
CONTROLLER = [
    *parameters_of(DriverSettings(), _DRIVER_RANGES),
    *[
        parameter
        for parameter in parameters_of(WidowXControllerConfig(), CONTROLLER_RANGES)
        if parameter.name != "tick_period_s"  # follows from control_rate_hz
    ],
    *WATCH,
]

MANAGER = [
    Parameter("node_names", ["reasoning_node", "action_expert_node", "widowx_controller_node"]),
    Parameter("autostart", True),
    Parameter("attempts", 10, 1, 1000),
    Parameter("retry_period_s", 2.0, 0.1, 60.0),
    Parameter("transition_timeout_s", 180.0, 1.0, 3600.0),
]

RECORDER = [
    Parameter("joint_states_topic", RobotSettings.joint_states_topic),
    Parameter("output", ""),
    Parameter("storage", "mcap", choices=("mcap", "sqlite3")),
    Parameter("everything", False),
    Parameter("jpeg_quality", 90, 0, 100),
    Parameter("camera_topic", "/camera/camera/color/image_raw"),
    Parameter("wrist_topic", "/wrist/image_raw"),
]

REPLAY = [
    Parameter("bag", ""),
    Parameter("output", ""),
    Parameter("live", False),
    Parameter("rate", 1.0, 0.01, 100.0),
    Parameter("graph_timeout_s", 120.0, 0.0, 3600.0),
    Parameter("instruction", ""),
    Parameter("checkpoint", ""),
    Parameter("device", "auto"),
    Parameter("seed", 0, 0, 2**31 - 1),
    Parameter("actions", "auto", choices=("auto", "steps", "commands", "states")),
]


def model_settings(values: Mapping[str, Any]) -> ModelSettings:
    """Read the model's settings."""
    return build_config(ModelSettings(), values)


def driver_settings(values: Mapping[str, Any]) -> DriverSettings:
    """Read the driver's settings; raises ValueError for a robot name that no topic can have."""
    settings = build_config(DriverSettings(), values)
    check_robot_name(settings.robot_name)
    return settings


def check_robot_name(name: str) -> None:
    """A robot name is one part of a topic name."""
    if not name.isascii() or not name.replace("_", "a").isalnum() or name[:1].isdigit():
        raise ValueError(
            f"robot_name is {name!r}; expected letters, digits and underscores, "
            "as in /<robot_name>/joint_states"
        )


def controller_config(values: Mapping[str, Any]) -> WidowXControllerConfig:
    """The controller's configuration; its tick period follows from control_rate_hz."""
    config = build_config(WidowXControllerConfig(), values)
    return dataclasses.replace(config, tick_period_s=1.0 / float(values["control_rate_hz"]))


def watch_config(values: Mapping[str, Any]) -> WatchConfig:
    """The limits of the controller's watchdogs."""
    return build_config(WatchConfig(), values, "watch.")


def reasoning_config(values: Mapping[str, Any], stage: str) -> ReasoningConfig:
    """The reasoning worker's configuration. Mode "auto" thinks with a generalist and goes straight to latents
    else."""
    mode = values["mode"]
    if mode == "auto":
        mode = "think" if stage == "generalist" else "off"
    scheduler = build_config(SchedulerConfig(), values)
    return dataclasses.replace(build_config(ReasoningConfig(), values), mode=mode, scheduler=scheduler)


def expert_config(values: Mapping[str, Any], views: tuple[str, ...], needs_state: bool) -> ExpertConfig:
    """The expert worker's configuration for a checkpoint's views."""
    limits = build_config(LatentLimits(), values, "latent.")
    seed = int(values["seed"])
    config = build_config(ExpertConfig(), {k: v for k, v in values.items() if k != "seed"})
    return dataclasses.replace(
        config, views=views, needs_state=needs_state, latent=limits, seed=None if seed < 0 else seed
    )
