"""What every inverse kinematics returns, and the damped least-squares solver that serves any arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.rotations import rotation_vector

# Joint angles in rad, in the order of the arm's joint names.
JointAngles = Sequence[float] | np.ndarray
Forward = Callable[[JointAngles], tuple[np.ndarray, np.ndarray]]
Jacobian = Callable[[JointAngles], np.ndarray]

POSITION_TOLERANCE_M = 1e-4
ROTATION_TOLERANCE_RAD = 1.7e-3
# A rotation error of 1 rad weighs as much as 0.2 m, about the length of a tool.
_ROTATION_WEIGHT_M = 0.2


@dataclass(frozen=True)
class IkResult:
    """Joint angles and how well they meet the asked pose. `solved` means: within tolerance and all joint
    limits."""

    q_rad: np.ndarray
    solved: bool
    position_residual_m: float
    rotation_residual_rad: float
    method: str  # "closed_form" or "damped"


def check_finite(rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles) -> None:
    """Raises ValueError unless all numbers are finite."""
    if not (np.isfinite(rotation).all() and np.isfinite(position_m).all() and np.isfinite(seed_rad).all()):
        raise ValueError("inverse kinematics was given a pose or seed that is not finite; check the input first")


def residuals(
    forward: Forward, q_rad: JointAngles, rotation: np.ndarray, position_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is missing to the pose: translation (3,) in m and rotation vector (3,) in rad, base axes."""
    now_rotation, now_position = forward(q_rad)
    return position_m - now_position, rotation_vector(rotation @ now_rotation.T)


def damped_step(jacobian: np.ndarray, translation_m: np.ndarray, turn_rad: np.ndarray, damping: float) -> np.ndarray:
    """The joint change (n,) of one damped least-squares step for a Jacobian (6, n) and what is missing to the pose."""
    error = np.concatenate([translation_m, turn_rad * _ROTATION_WEIGHT_M])
    weighted = jacobian.copy()
    weighted[3:] *= _ROTATION_WEIGHT_M
    return weighted.T @ np.linalg.solve(weighted @ weighted.T + damping**2 * np.eye(6), error)


def damped_inverse(
    forward: Forward,
    jacobian: Jacobian,
    limits_rad: tuple[np.ndarray, np.ndarray],
    rotation: np.ndarray,
    position_m: np.ndarray,
    seed_rad: JointAngles,
    *,
    iterations: int = 40,
    damping: float = 0.02,
) -> IkResult:
    """Damped least squares from the seed, within joint limits: a nearby compromise where no exact answer
    exists."""
    lower, upper = limits_rad
    q = np.clip(np.asarray(seed_rad, dtype=float), lower, upper)
    best, best_cost = q, math.inf
    for _ in range(iterations):
        translation, turn = residuals(forward, q, rotation, position_m)
        cost = float(translation @ translation + _ROTATION_WEIGHT_M**2 * (turn @ turn))
        if cost < best_cost:
            best, best_cost = q, cost
        if cost < 1e-12:
            break
        step = damped_step(jacobian(q), translation, turn, damping)
        q = np.clip(q + np.clip(step, -0.2, 0.2), lower, upper)
    return result(forward, best, rotation, position_m, "damped")


def result(forward: Forward, q_rad: np.ndarray, rotation: np.ndarray, position_m: np.ndarray, method: str) -> IkResult:
    """The answer with its residuals; solved if they are within tolerance."""
    translation, turn = residuals(forward, q_rad, rotation, position_m)
    off_m, off_rad = math.sqrt(float(translation @ translation)), math.sqrt(float(turn @ turn))
    return IkResult(q_rad, off_m <= POSITION_TOLERANCE_M and off_rad <= ROTATION_TOLERANCE_RAD, off_m, off_rad, method)
