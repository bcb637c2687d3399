"""Where the arm waits at the start of an episode: gripper down and open, at the back of the view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructvla_ros.control import kinematics
from instructvla_sim.sampling import Placement

R_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Rotation base→ee of a gripper that points straight down with zero yaw."""
LOWER = np.array([0.17, -0.09, 0.135, -0.25])
UPPER = np.array([0.25, 0.09, 0.185, 0.25])
"""Ranges of x, y, z (metres) and yaw (radians)."""
_SEED_RAD = np.array([0.0, -0.6, 0.6, 0.0, 1.5, 0.0])


def gripper_down(yaw_rad: float) -> np.ndarray:
    """Rotation (3, 3) base→ee of a gripper that points straight down, turned by `yaw_rad`."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ R_DOWN


def solve(position_m: np.ndarray, yaw_rad: float) -> np.ndarray:
    """Joints (6,) that hold the gripper down at a position. ValueError when it is out of reach."""
    answer = kinematics.inverse(gripper_down(yaw_rad), np.asarray(position_m, dtype=float), _SEED_RAD)
    if not answer.solved:
        raise ValueError(f"no joints reach {np.round(position_m, 3)} with the gripper down: choose a nearer point.")
    return answer.q_rad


def sample(rng: np.random.Generator, layout: Sequence[Placement]) -> np.ndarray:
    """Random start joints (6,)."""
    x, y, z, yaw = rng.uniform(LOWER, UPPER)
    return solve(np.array([x, y, z]), yaw)
