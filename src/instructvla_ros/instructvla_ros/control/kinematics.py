"""Forward and closed-form inverse kinematics of the Interbotix WidowX-250s.

The screw axes are those of the vendor's description (robot interface B1). The axes of forearm_roll,
wrist_angle and wrist_rotate meet in one point at every posture, so the wrist is spherical and the inverse is
exact: two choices each for waist, elbow and wrist. Frames: `base_link` -> `ee_gripper_link`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from instructvla_ros.control import inverse as solvers
from instructvla_ros.control.inverse import IkResult, JointAngles, check_finite

JOINT_NAMES = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")

# Rows are (wx wy wz vx vy vz) in the base frame at the zero posture; HOME_POSE is the end effector there.
SCREW_AXES = np.array(
    [
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, -0.11065, 0.0, 0.0],
        [0.0, 1.0, 0.0, -0.36065, 0.0, 0.04975],
        [1.0, 0.0, 0.0, 0.0, 0.36065, 0.0],
        [0.0, 1.0, 0.0, -0.36065, 0.0, 0.29975],
        [1.0, 0.0, 0.0, 0.0, 0.36065, 0.0],
    ]
)
HOME_POSE = np.eye(4)
HOME_POSE[:3, 3] = (0.458325, 0.0, 0.36065)

JOINT_LOWER_RAD = np.array([-math.pi, -1.885, -2.147, -math.pi, -1.745, -math.pi])
JOINT_UPPER_RAD = np.array([math.pi, 1.990, 1.606, math.pi, 2.147, math.pi])
JOINT_VELOCITY_RAD_S = np.full(6, math.pi)
NEUTRAL_RAD = np.array([-0.1319, -0.7624, 0.4449, -0.0199, 1.7564, -0.1595])
for _constant in (SCREW_AXES, HOME_POSE, JOINT_LOWER_RAD, JOINT_UPPER_RAD, JOINT_VELOCITY_RAD_S, NEUTRAL_RAD):
    _constant.setflags(write=False)

_SHOULDER_Z = 0.11065  # height of the shoulder axis
_UPPER_X, _UPPER_Z = 0.04975, 0.25  # shoulder to elbow at the zero posture
_UPPER_LENGTH = math.hypot(_UPPER_X, _UPPER_Z)
_UPPER_ANGLE = math.atan2(_UPPER_Z, _UPPER_X)
_FOREARM = 0.29975 - 0.04975  # elbow to the point where the wrist axes meet
_TOOL = 0.458325 - 0.29975  # from there to ee_gripper_link, along its x axis
_TWO_PI = 2.0 * math.pi
_LOWER = tuple(JOINT_LOWER_RAD.tolist())
_UPPER = tuple(JOINT_UPPER_RAD.tolist())


def _pose_entries(s: Sequence, c: Sequence) -> tuple[tuple, tuple]:
    """Rotation rows and position from sines and cosines of (q1, q2, q2+q3, q4, q5, q6): floats or arrays
    alike."""
    s1, s2, sb, s4, s5, s6 = s
    c1, c2, cb, c4, c5, c6 = c
    # Rx(q4) Ry(q5) Rx(q6): the wrist seen from the forearm.
    w01, w02 = s5 * s6, s5 * c6
    w10, w11, w12 = s4 * s5, c4 * c6 - s4 * c5 * s6, -c4 * s6 - s4 * c5 * c6
    w20, w21, w22 = -c4 * s5, s4 * c6 + c4 * c5 * s6, -s4 * s6 + c4 * c5 * c6
    # Rz(q1) Ry(q2+q3) times that: u is the row in the arm's vertical plane.
    u0, u1, u2 = cb * c5 + sb * w20, cb * w01 + sb * w21, cb * w02 + sb * w22
    rows = (
        (c1 * u0 - s1 * w10, c1 * u1 - s1 * w11, c1 * u2 - s1 * w12),
        (s1 * u0 + c1 * w10, s1 * u1 + c1 * w11, s1 * u2 + c1 * w12),
        (-sb * c5 + cb * w20, -sb * w01 + cb * w21, -sb * w02 + cb * w22),
    )
    reach = _UPPER_X * c2 + _UPPER_Z * s2 + _FOREARM * cb
    height = _SHOULDER_Z - _UPPER_X * s2 + _UPPER_Z * c2 - _FOREARM * sb
    position = (c1 * reach + _TOOL * rows[0][0], s1 * reach + _TOOL * rows[1][0], height + _TOOL * rows[2][0])
    return rows, position


def forward(q_rad: JointAngles) -> tuple[np.ndarray, np.ndarray]:
    """Return the end-effector (rotation (3, 3), position_m (3,)) in the base frame for six joint angles in
    rad."""
    q1, q2, q3, q4, q5, q6 = (float(v) for v in q_rad)
    angles = (q1, q2, q2 + q3, q4, q5, q6)
    rows, position = _pose_entries([math.sin(a) for a in angles], [math.cos(a) for a in angles])
    return np.array(rows), np.array(position)


def forward_batch(q_rad: np.ndarray) -> np.ndarray:
    """Return the (..., 4, 4) end-effector poses in the base frame for (..., 6) joint angles in rad."""
    q = np.asarray(q_rad, dtype=float)
    angles = [q[..., 0], q[..., 1], q[..., 1] + q[..., 2], q[..., 3], q[..., 4], q[..., 5]]
    rows, position = _pose_entries([np.sin(a) for a in angles], [np.cos(a) for a in angles])
    pose = np.zeros((*q.shape[:-1], 4, 4))
    for i in range(3):
        for j in range(3):
            pose[..., i, j] = rows[i][j]
        pose[..., i, 3] = position[i]
    pose[..., 3, 3] = 1.0
    return pose


def _wrap(angle: float) -> float:
    return angle - _TWO_PI * math.floor((angle + math.pi) / _TWO_PI)


def _into_limits(angle: float, joint: int, seed: float) -> float | None:
    """The equivalent angle within the joint's limits that is nearest to the seed, or None."""
    base, best = _wrap(angle), None
    for value in (base, base - _TWO_PI, base + _TWO_PI):
        if _LOWER[joint] - 1e-9 <= value <= _UPPER[joint] + 1e-9:
            value = min(max(value, _LOWER[joint]), _UPPER[joint])
            if best is None or abs(value - seed) < abs(best - seed):
                best = value
    return best


def closed_form_solutions(
    rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles
) -> list[tuple[float, ...]]:
    """Return every joint vector within the limits (up to 8) that reaches the pose exactly; empty when out of
    reach.

    The seed only decides what is free: the split of forearm_roll and wrist_rotate where their axes are
    parallel, and the waist where the wrist is above the shoulder.
    """
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = np.asarray(rotation).tolist()
    seed = [float(v) for v in seed_rad]
    x, y, z = (float(v) for v in position_m)
    wx, wy, height = x - _TOOL * r00, y - _TOOL * r10, z - _TOOL * r20 - _SHOULDER_Z
    distance = math.hypot(wx, wy)
    waist = math.atan2(wy, wx) if distance > 1e-9 else seed[0]
    cos_bend = (distance**2 + height**2 - _UPPER_LENGTH**2 - _FOREARM**2) / (2.0 * _UPPER_LENGTH * _FOREARM)
    if abs(cos_bend) > 1.0 + 1e-9:
        return []
    bend_magnitude = math.acos(max(-1.0, min(1.0, cos_bend)))
    found: list[tuple[float, ...]] = []
    for turn, reach in ((waist, distance), (waist + math.pi, -distance)):
        q1 = _into_limits(turn, 0, seed[0])
        if q1 is None:
            continue
        s1, c1 = math.sin(q1), math.cos(q1)
        for bend in (-bend_magnitude, bend_magnitude):
            q3 = _into_limits(-_UPPER_ANGLE - bend, 2, seed[2])
            elevation = math.atan2(height, reach) - math.atan2(
                _FOREARM * math.sin(bend), _UPPER_LENGTH + _FOREARM * math.cos(bend)
            )
            q2 = _into_limits(_UPPER_ANGLE - elevation, 1, seed[1])
            if q2 is None or q3 is None:
                continue
            sb, cb = math.sin(q2 + q3), math.cos(q2 + q3)
            # Wrist rotation seen from the forearm: (Rz(q1) Ry(q2+q3))^T R; only the needed entries.
            a0, a1, a2 = c1 * r00 + s1 * r10, c1 * r01 + s1 * r11, c1 * r02 + s1 * r12
            w00, w01, w02 = cb * a0 - sb * r20, cb * a1 - sb * r21, cb * a2 - sb * r22
            w10, w11, w12 = c1 * r10 - s1 * r00, c1 * r11 - s1 * r01, c1 * r12 - s1 * r02
            w20 = sb * a0 + cb * r20
            sin_wrist = math.hypot(w01, w02)
            if sin_wrist < 1e-9:
                together = math.atan2(-w12, w11)  # only forearm_roll + wrist_rotate is determined
                choices = [(seed[3], 0.0 if w00 > 0.0 else math.pi, together - seed[3])]
            else:
                choices = [
                    (math.atan2(w10, -w20), math.atan2(sin_wrist, w00), math.atan2(w01, w02)),
                    (math.atan2(-w10, w20), math.atan2(-sin_wrist, w00), math.atan2(-w01, -w02)),
                ]
            for roll, angle, rotate in choices:
                q4, q5 = _into_limits(roll, 3, seed[3]), _into_limits(angle, 4, seed[4])
                q6 = _into_limits(rotate, 5, seed[5])
                if q4 is not None and q5 is not None and q6 is not None:
                    found.append((q1, q2, q3, q4, q5, q6))
    return found


def jacobian(q_rad: JointAngles) -> np.ndarray:
    """Return the (6, 6) geometric Jacobian: rows are ee linear then angular velocity in base axes per joint
    rate."""
    q1, q2, q3, q4, _, _ = (float(v) for v in q_rad)
    rotation, position = forward(q_rad)
    s1, c1, b = math.sin(q1), math.cos(q1), q2 + q3
    plane = np.array([c1, s1, 0.0])
    up = np.array([0.0, 0.0, 1.0])
    pitch_axis = np.array([-s1, c1, 0.0])
    shoulder = up * _SHOULDER_Z
    elbow = shoulder + plane * (_UPPER_X * math.cos(q2) + _UPPER_Z * math.sin(q2))
    elbow = elbow + up * (_UPPER_Z * math.cos(q2) - _UPPER_X * math.sin(q2))
    forearm_axis = plane * math.cos(b) - up * math.sin(b)
    wrist = elbow + forearm_axis * _FOREARM
    forearm_up = plane * math.sin(b) + up * math.cos(b)
    wrist_axis = pitch_axis * math.cos(q4) + forearm_up * math.sin(q4)
    axes = np.array([up, pitch_axis, pitch_axis, forearm_axis, wrist_axis, rotation[:, 0]])
    origins = np.array([np.zeros(3), shoulder, elbow, wrist, wrist, wrist])
    return np.vstack([np.cross(axes, position - origins).T, axes.T])


def damped_inverse(
    rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles, *, iterations: int = 40
) -> IkResult:
    """Damped least squares from the seed, within joint limits: a nearby compromise where no exact answer
    exists."""
    limits = (JOINT_LOWER_RAD, JOINT_UPPER_RAD)
    return solvers.damped_inverse(forward, jacobian, limits, rotation, position_m, seed_rad, iterations=iterations)


def inverse(
    rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles, *, damped_iterations: int = 40
) -> IkResult:
    """Return the joint vector nearest to the seed that reaches the pose; exact where it exists, else damped.

    `rotation` (3, 3) and `position_m` (3,) in the base frame, `seed_rad` six current joint angles. Both
    residuals of an exact answer are at rounding level. Raises ValueError on non-finite input.
    """
    check_finite(rotation, position_m, seed_rad)
    solutions = closed_form_solutions(rotation, position_m, seed_rad)
    if not solutions:
        return damped_inverse(rotation, position_m, seed_rad, iterations=damped_iterations)
    seed = [float(v) for v in seed_rad]
    nearest = min(solutions, key=lambda q: sum((a - b) ** 2 for a, b in zip(q, seed, strict=True)))
    return solvers.result(forward, np.array(nearest), rotation, position_m, "closed_form")
