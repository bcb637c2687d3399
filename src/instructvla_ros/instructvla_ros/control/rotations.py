"""Small rotation helpers in base axes; scalar `math` is used because numpy is slower for single 3x3
matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Bridge's gripper-down reference: an end effector at R_DOWN has policy roll, pitch and yaw of zero (robot
# interface B1).
R_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
R_DOWN.setflags(write=False)


def rpy_to_matrix(roll_rad: float, pitch_rad: float, yaw_rad: float) -> np.ndarray:
    """Return Rz(yaw) @ Ry(pitch) @ Rx(roll), shape (3, 3): fixed-axis ("sxyz") roll-pitch-yaw."""
    sr, cr = math.sin(roll_rad), math.cos(roll_rad)
    sp, cp = math.sin(pitch_rad), math.cos(pitch_rad)
    sy, cy = math.sin(yaw_rad), math.cos(yaw_rad)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def matrix_to_rpy(rotation: np.ndarray) -> tuple[float, float, float]:
    """Return (roll, pitch, yaw) in rad of a (3, 3) rotation; at pitch = +-90 deg roll is set to 0."""
    r = rotation.tolist()
    cos_pitch = math.hypot(r[0][0], r[1][0])
    pitch = math.atan2(-r[2][0], cos_pitch)
    if cos_pitch < 1e-9:
        return 0.0, pitch, math.atan2(-r[0][1], r[1][1])
    return math.atan2(r[2][1], r[2][2]), pitch, math.atan2(r[1][0], r[0][0])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Return the axis times angle (rad), shape (3,), of a (3, 3) rotation."""
    r = np.asarray(rotation)
    skew = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) * 0.5
    sin_angle = math.sqrt(float(skew @ skew))
    cos_angle = max(-1.0, min(1.0, (float(np.trace(r)) - 1.0) * 0.5))
    angle = math.atan2(sin_angle, cos_angle)
    if sin_angle > 1e-7:
        return skew * (angle / sin_angle)
    if cos_angle > 0.0:
        return skew
    # Half a turn: the axis is the column of (R + I) with the largest norm.
    both = r + np.eye(3)
    column = both[:, int(np.argmax(np.linalg.norm(both, axis=0)))]
    return column / np.linalg.norm(column) * math.pi


def matrix_to_quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Return the unit quaternion (x, y, z, w), w >= 0, of a (3, 3) rotation."""
    vector = rotation_vector(rotation)
    angle = math.sqrt(float(vector @ vector))
    if angle < 1e-12:
        return 0.0, 0.0, 0.0, 1.0
    x, y, z = (vector * (math.sin(0.5 * angle) / angle)).tolist()
    return x, y, z, math.cos(0.5 * angle)


def rotation_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle in rad between two (3, 3) rotations."""
    vector = rotation_vector(np.asarray(a) @ np.asarray(b).T)
    return math.sqrt(float(vector @ vector))


def apply_delta(
    rotation_target: np.ndarray,
    position_target_m: np.ndarray,
    position_measured_m: np.ndarray,
    delta_xyz_m: Sequence[float] | np.ndarray,
    delta_rpy_rad: Sequence[float] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply one policy step in Bridge's convention and return the new (rotation, position) target.

    The delta is in base axes, turns about the *measured* end-effector position and is pre-multiplied onto the
    previous *target* (robot interface B1, timing recipe). Shapes: (3, 3), (3,), (3,), 3, 3.
    """
    turn = rpy_to_matrix(delta_rpy_rad[0], delta_rpy_rad[1], delta_rpy_rad[2])
    position = turn @ (position_target_m - position_measured_m) + position_measured_m + delta_xyz_m
    return turn @ rotation_target, position
