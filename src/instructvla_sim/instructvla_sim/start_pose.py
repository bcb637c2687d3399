"""Where the arm waits at the start of an episode: gripper down and open, at the back of the view."""

from __future__ import annotations

import numpy as np

from instructvla_sim.robots import ROBOTS, RobotSpec, base_frame_m

R_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Rotation base→ee of a gripper that points straight down with zero yaw."""
LOWER = np.array([0.17, -0.09, 0.135, -0.25])
UPPER = np.array([0.25, 0.09, 0.185, 0.25])
"""Ranges of x, y, z (metres, bench frame) and yaw (radians)."""


def gripper_down(yaw_rad: float) -> np.ndarray:
    """Rotation (3, 3) base→ee of a gripper that points straight down, turned by `yaw_rad`."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ R_DOWN


def solve(position_m: np.ndarray, yaw_rad: float, robot: RobotSpec = ROBOTS["wx250s"]) -> np.ndarray:
    """Joints that hold the gripper down at a position of the bench frame. ValueError when it is out of reach."""
    wanted = base_frame_m(robot, position_m)
    answer = robot.arm.inverse(gripper_down(yaw_rad), wanted, np.array(robot.start_seed_rad))
    if not answer.solved:
        raise ValueError(f"no joints reach {np.round(position_m, 3)} with the gripper down: choose a nearer point.")
    return answer.q_rad


def sample(rng: np.random.Generator, robot: RobotSpec) -> np.ndarray:
    """Random start joints."""
    x, y, z, yaw = rng.uniform(LOWER, UPPER)
    return solve(np.array([x, y, z]), yaw, robot)
