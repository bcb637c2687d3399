"""Speeds and tolerances of the scripted expert; they depend on the gripper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemonstratorConfig:
    """Speeds and tolerances; metres and radians per policy step of 0.2 s."""

    gain: float = 0.42
    z_gain: float = 0.38
    max_step_m: float = 0.035
    max_yaw_step_rad: float = 0.20
    hover_m: float = 0.105
    carry_m: float = 0.125
    finger_room_m: float = 0.026
    """From the gripper's middle to an open finger, less a margin of 2 mm."""
    align_z_m: float = 0.010
    align_yaw_rad: float = 0.20
    release_m: float = 0.012
    release_z_m: float = 0.008
    lowest_ee_m: float = 0.0185
