"""Kinematics of any serial arm from the joint origins of its robot description: forward, Jacobian, damped inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.inverse import IkResult, JointAngles, check_finite, damped_inverse
from instructvla_ros.control.rotations import rpy_to_matrix


@dataclass(frozen=True)
class Origin:
    """A fixed transform as a robot description gives it: `<origin xyz="..." rpy="..."/>`, metres and radians."""

    xyz_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rpy_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)


class SerialChain:
    """Joints that all turn about the z axis of their own frame, then a fixed tool. Immutable.

    `origins[i]` leads from joint i-1 (the base for i = 0) to joint i at rest, `tool` from the last joint to the tool
    frame, over several transforms where it is easier to write so.
    """

    def __init__(
        self, origins: tuple[Origin, ...], tool: tuple[Origin, ...], lower_rad: np.ndarray, upper_rad: np.ndarray
    ) -> None:
        self._fixed = [(rpy_to_matrix(*origin.rpy_rad), np.array(origin.xyz_m)) for origin in origins]
        rotation, position = np.eye(3), np.zeros(3)
        for origin in tool:
            position = position + rotation @ origin.xyz_m
            rotation = rotation @ rpy_to_matrix(*origin.rpy_rad)
        self._tool = rotation, position
        self._limits = lower_rad, upper_rad

    def _walk(self, q_rad: JointAngles) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
        """Axis and origin of every joint in base axes, then rotation and position of the tool."""
        rotation, position = np.eye(3), np.zeros(3)
        axes, origins = [], []
        for (fixed, offset), angle in zip(self._fixed, q_rad, strict=True):
            position = position + rotation @ offset
            rotation = rotation @ fixed
            s, c = math.sin(angle), math.cos(angle)
            rotation = rotation @ np.array(((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))
            axes.append(rotation[:, 2])
            origins.append(position)
        turn, offset = self._tool
        return axes, origins, rotation @ turn, position + rotation @ offset

    def forward(self, q_rad: JointAngles) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool's (rotation (3, 3), position_m (3,)) in the base frame for the joint angles in rad."""
        _, _, rotation, position = self._walk(q_rad)
        return rotation, position

    def jacobian(self, q_rad: JointAngles) -> np.ndarray:
        """Return the (6, n) geometric Jacobian: rows are tool linear then angular velocity in base axes per joint
        rate."""
        return self.forward_and_jacobian(q_rad)[2]

    def forward_and_jacobian(self, q_rad: JointAngles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rotation, position and Jacobian of the tool in one go."""
        axes, origins, rotation, position = self._walk(q_rad)
        z, arm = np.array(axes), position - np.array(origins)
        linear = z[:, [1, 2, 0]] * arm[:, [2, 0, 1]] - z[:, [2, 0, 1]] * arm[:, [1, 2, 0]]
        return rotation, position, np.vstack([linear.T, z.T])

    def inverse(
        self, rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles, *, damped_iterations: int = 40
    ) -> IkResult:
        """`damped_inverse` as an arm's inverse, for arms without a closed form: near the seed it is as exact."""
        return self.damped_inverse(rotation, position_m, seed_rad, iterations=damped_iterations)

    def damped_inverse(
        self, rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles, *, iterations: int = 40
    ) -> IkResult:
        """Joints near the seed that come closest to the tool pose. Raises ValueError on non-finite input."""
        check_finite(rotation, position_m, seed_rad)
        return damped_inverse(
            self.forward, self.jacobian, self._limits, rotation, position_m, seed_rad, iterations=iterations
        )
