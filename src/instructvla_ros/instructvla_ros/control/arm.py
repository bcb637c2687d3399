"""What the controller needs to know of an arm: names, limits, kinematics, fingers. One value for each robot model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from instructvla_ros.control.inverse import Forward, IkResult

Inverse = Callable[..., IkResult]
"""Called as inverse(rotation, position_m, seed_rad, damped_iterations=n)."""
Damped = Callable[..., IkResult]
"""Called as damped(rotation, position_m, seed_rad, iterations=n)."""


@dataclass(frozen=True)
class Fingers:
    """The finger joint by which the gripper's opening is measured: its position (m) when closed and when open. Without
    a name it is not measured."""

    joint: str
    closed_m: float
    open_m: float

    def opening(self, finger_m: float) -> float:
        """Opening 0..1 (1 open) of a finger position; clipped. The inverse of `position_m`."""
        return min(max((finger_m - self.closed_m) / (self.open_m - self.closed_m), 0.0), 1.0)

    def position_m(self, opening: float) -> float:
        """Finger position of an opening 0..1; values outside are clipped."""
        return self.closed_m + min(max(opening, 0.0), 1.0) * (self.open_m - self.closed_m)


@dataclass(frozen=True, eq=False)
class ArmModel:
    """One robot model. Arrays have one entry for each of the n arm joints.

    Poses are those of the policy's end-effector frame (x out of the gripper, y across the fingers) in the base frame,
    whose plane z = 0 is the table top. `acceleration_rad_s2` None: the drives smooth their goals themselves.
    """

    name: str
    joint_names: tuple[str, ...]
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    velocity_rad_s: np.ndarray
    home_rad: np.ndarray
    sleep_rad: np.ndarray
    forward: Forward
    inverse: Inverse
    damped: Damped
    fingers: Fingers
    acceleration_rad_s2: np.ndarray | None = None
    closed_form: bool = True
    """Whether `inverse` finds any reachable pose; else only poses near the seed."""
    command_rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    """From the policy's end-effector frame to the frame in which the arm's Cartesian controllers are told poses:
    R_base_command = R_base_ee @ command_rotation."""

    def __post_init__(self) -> None:
        for array in (self.lower_rad, self.upper_rad, self.velocity_rad_s, self.home_rad, self.sleep_rad):
            if array.shape != (self.joints,):
                raise ValueError(f"arm {self.name!r} has an array of shape {array.shape}, expected ({self.joints},)")
            array.setflags(write=False)
        for name in ("home_rad", "sleep_rad"):
            posture = getattr(self, name)
            if not ((self.lower_rad <= posture) & (posture <= self.upper_rad)).all():
                raise ValueError(f"arm {self.name!r} has {name} {posture} outside its joint limits")

    @property
    def joints(self) -> int:
        """Number of arm joints, without the gripper."""
        return len(self.joint_names)


def without_gripper(arm: ArmModel) -> ArmModel:
    """The same arm with no gripper to measure; its opening is the one that was told last, open at first."""
    return replace(arm, fingers=replace(arm.fingers, joint=""))


def same_kinematics(one: ArmModel, other: ArmModel) -> bool:
    """Whether two arms are moved alike (FR3 and Panda): with all joints bent, their hands are at the same place."""
    if one.joints != other.joints:
        return False
    posture = one.home_rad + 0.1 * np.arange(1, one.joints + 1)
    return all(np.allclose(a, b) for a, b in zip(one.forward(posture), other.forward(posture), strict=True))
