"""The WidowX controller: joint goals for servos that smooth them, PWM for the gripper."""

from __future__ import annotations

from dataclasses import dataclass, field

from instructvla_ros.control.controller import ArmController, ControllerConfig
from instructvla_ros.control.gripper import GripperConfig, GripperLoop
from instructvla_ros.control.wx250s import WX250S


@dataclass(frozen=True)
class WidowXControllerConfig(ControllerConfig):
    """Everything the controller can be told."""

    gripper: GripperConfig = field(default_factory=GripperConfig)


class WidowXController(ArmController):
    """`ArmController` of a WidowX-250s."""

    def __init__(self, config: WidowXControllerConfig | None = None) -> None:
        config = config or WidowXControllerConfig()
        self._loop = GripperLoop(config.gripper)
        super().__init__(WX250S, config, self._loop)

    @property
    def resting_pwm(self) -> float:
        """The gripper PWM to leave behind when nobody will watch: a held object is kept, with relieved
        force."""
        return self._loop.relief()
