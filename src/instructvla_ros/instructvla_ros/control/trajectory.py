"""Joint goals as a joint trajectory controller takes them: short trajectories that replace one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.interpolator import TrackerConfig, braking_s


@dataclass(frozen=True)
class TrajectoryPoint:
    """Positions and velocities (n,) to have `time_s` after the trajectory's start."""

    time_s: float
    positions_rad: np.ndarray
    velocities_rad_s: np.ndarray


def stream_points(
    goal_rad: np.ndarray,
    velocity_rad_s: np.ndarray,
    config: TrackerConfig,
    acceleration_rad_s2: np.ndarray | None = None,
) -> tuple[TrajectoryPoint, TrajectoryPoint]:
    """The goal with its velocity, then a stop with constant deceleration, of no joint harder than the arm's
    acceleration limits (n,) where they are given.

    The controllers refuse trajectories that end in motion, and one that ends at rest is what should happen when the
    sender is gone.
    """
    brake_s = braking_s(velocity_rad_s, config, acceleration_rad_s2)
    stop = goal_rad + 0.5 * brake_s * velocity_rad_s
    return (
        TrajectoryPoint(config.lead_s, goal_rad, velocity_rad_s),
        TrajectoryPoint(config.lead_s + brake_s, stop, np.zeros_like(stop)),
    )
