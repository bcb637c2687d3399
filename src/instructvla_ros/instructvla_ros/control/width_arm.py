"""The controller of any arm whose drives follow joint goals as they are and whose gripper is told a width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.controller import ArmController, ControllerConfig
from instructvla_ros.control.gripper import WidthConfig, WidthGripper
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.control.safety import SafetyConfig

SAFETY = SafetyConfig(
    workspace_lower_m=(0.28, -0.40, 0.01),
    workspace_upper_m=(0.75, 0.40, 0.60),
    max_joint_lead_rad=0.3,
    velocity_fraction=0.3,
    joint_margin_rad=0.03,
)
"""A workspace in front of an arm with a reach of about 0.85 m."""


@dataclass(frozen=True)
class WidthArmConfig(ControllerConfig):
    """Everything the controller can be told."""

    safety: SafetyConfig = SAFETY
    # The drives follow as they are told: the goal takes the whole policy step.
    interpolator: TrackerConfig = field(default_factory=TrackerConfig)
    gripper: WidthConfig = field(default_factory=WidthConfig)


class WidthArmController(ArmController):
    """`ArmController` of such an arm. The arm must state its acceleration limits."""

    def __init__(self, arm: ArmModel, config: WidthArmConfig | None = None) -> None:
        config = config or WidthArmConfig()
        super().__init__(arm, config, WidthGripper(config.gripper))

    def fresh_rad(self, now_s: float) -> np.ndarray | None:
        """The newest joint positions (n,); None while there are none recent enough to move by, or only bad ones."""
        sample = self._joints.sample
        if sample is None or self._joints.problem:
            return None
        recent = 0.0 <= now_s - sample.received_s <= self._safety.max_joint_state_age_s
        return sample.arm_rad if recent else None
