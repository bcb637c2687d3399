"""The parameters of franka_controller_node. Their meaning is in the commented YAML of `instructvla`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instructvla_ros.control import FR3, PANDA, ArmModel, WidthArmConfig
from instructvla_ros.nodes.parameters import Parameter, build_config, parameters_of
from instructvla_ros.nodes.settings import CONTROLLER_RANGES, WATCH

ARMS: Mapping[str, ArmModel] = {"fr3": FR3, "panda": PANDA}
AUTO = "auto"
"""Of the motion controllers: the one that the route is known to end in."""
ROUTES = ("joint_trajectory", "target_pose", "servo_twist", "servo_pose")


@dataclass(frozen=True)
class GripperSettings:
    """How the hand is told widths."""

    interface: str = "franka_msgs"
    name: str = "/franka_gripper"
    speed_m_s: float = 0.1
    force_n: float = 20.0
    epsilon_inner_m: float = 0.005
    epsilon_outer_m: float = 0.08
    half_width: bool = True
    timeout_s: float = 2.0


@dataclass(frozen=True)
class RecoverySettings:
    """Who is asked, in which order, to leave a reflex."""

    action: str = "/action_server/error_recovery"
    controller_manager: str = "/controller_manager"
    motion_controllers: tuple[str, ...] = (AUTO,)
    hardware: str = "FrankaHardwareInterface"


@dataclass(frozen=True)
class ServoSettings:
    """MoveIt Servo's node and which of its two interfaces it has."""

    node: str = "/servo_node"
    api: str = "jazzy"
    gain_per_s: float = 4.0
    unitless: bool = False


@dataclass(frozen=True)
class FrankaSettings:
    """Names of the robot's topics and how it is told where to go. `{arm}` in a name stands for the arm.

    `robot_namespace` is put before the names of all topics, services and actions of the robot.
    """

    arm: str = "fr3"
    robot_namespace: str = ""
    route: str = "joint_trajectory"
    joint_states_topic: str = "/joint_states"
    robot_state_topic: str = "/franka_robot_state_broadcaster/robot_state"
    trajectory_topic: str = "/{arm}_arm_controller/joint_trajectory"
    pose_topic: str = "/target_pose"
    max_robot_state_age_s: float = 0.5
    base_frame: str = "{arm}_link0"
    command_frame: str = "hand_tcp"
    servo: ServoSettings = field(default_factory=ServoSettings)
    hand: GripperSettings = field(default_factory=GripperSettings)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    service_timeout_s: float = 5.0
    control_rate_hz: float = 50.0
    state_rate_hz: float = 5.0


_RANGES = {
    "max_robot_state_age_s": (0.05, 60.0),
    "servo.gain_per_s": (0.1, 20.0),
    "hand.speed_m_s": (0.01, 0.1),
    "hand.force_n": (1.0, 70.0),
    "hand.epsilon_inner_m": (0.0, 0.08),
    "hand.epsilon_outer_m": (0.0, 0.08),
    "hand.timeout_s": (0.1, 30.0),
    "service_timeout_s": (0.1, 60.0),
    "control_rate_hz": (20.0, 500.0),
    "state_rate_hz": (0.5, 50.0),
    "interpolator.acceleration_fraction": (0.01, 1.0),
    "interpolator.lead_s": (0.02, 0.5),
    "interpolator.brake_s": (0.04, 1.0),
    "gripper.open_width_m": (0.01, 0.08),
}
_CHOICES = {
    "arm": tuple(ARMS),
    "route": ROUTES,
    "command_frame": ("hand_tcp", "hand", "link8"),
    "servo.api": ("jazzy", "humble"),
    "hand.interface": ("franka_msgs", "gripper_command", "none"),
}


FRANKA: list[Parameter] = [
    dataclasses.replace(parameter, choices=_CHOICES.get(parameter.name, ()))
    for parameter in [
        *parameters_of(FrankaSettings(), _RANGES),
        *parameters_of(WidthArmConfig(), {**CONTROLLER_RANGES, **_RANGES}),
        *WATCH,
    ]
    if parameter.name != "tick_period_s"  # follows from control_rate_hz
]


def _named(value: Any, arm: str) -> Any:
    """The value with `{arm}` filled in, also in lists of texts."""
    if isinstance(value, str):
        return value.replace("{arm}", arm)
    return [_named(item, arm) for item in value] if isinstance(value, list | tuple) else value


def franka_settings(values: Mapping[str, Any]) -> FrankaSettings:
    """Read the settings; raises ValueError for what cannot go together."""
    arm = str(values["arm"])
    settings = build_config(FrankaSettings(), {name: _named(value, arm) for name, value in values.items()})
    if settings.route == "servo_pose" and settings.servo.api == "humble":
        raise ValueError("route servo_pose needs MoveIt Servo of Jazzy; with servo.api humble use servo_twist")
    recovery = dataclasses.replace(settings.recovery, motion_controllers=_motion_controllers(settings))
    return _in_namespace(dataclasses.replace(settings, recovery=recovery))


def _motion_controllers(settings: FrankaSettings) -> tuple[str, ...]:
    """Those that a reset deactivates and activates: with a wrong one, the right one would go on from an old target."""
    named = settings.recovery.motion_controllers
    if named != (AUTO,):
        return named
    if settings.route == "target_pose":
        raise ValueError(
            "recovery.motion_controllers is auto, which is not known for route target_pose; name the controller that "
            "listens there, for example motion_controllers:=cartesian_impedance_controller "
            "(ros2 control list_controllers), so that a reset restarts it and no other"
        )
    return (f"{settings.arm}_arm_controller",)


def _in_namespace(settings: FrankaSettings) -> FrankaSettings:
    space = settings.robot_namespace.rstrip("/")
    if not space:
        return settings
    if not space.startswith("/"):
        raise ValueError(f"robot_namespace is {space!r}; expected none, or a name that begins with /, such as /left")
    topics = ("joint_states_topic", "robot_state_topic", "trajectory_topic", "pose_topic")
    recovery = settings.recovery
    return dataclasses.replace(
        settings,
        **{name: space + getattr(settings, name) for name in topics},
        servo=dataclasses.replace(settings.servo, node=space + settings.servo.node),
        hand=dataclasses.replace(settings.hand, name=space + settings.hand.name),
        recovery=dataclasses.replace(
            recovery, action=space + recovery.action, controller_manager=space + recovery.controller_manager
        ),
    )
