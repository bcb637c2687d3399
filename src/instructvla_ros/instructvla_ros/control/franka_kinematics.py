"""Forward and closed-form inverse kinematics of the Franka FR3 and Panda, which share their geometry.

Seven joints leave one freedom. With joint 7 fixed the rest is exact: the wrist centre (where axes 5 and 6 meet) and
the shoulder (axes 1 and 2) span a triangle with the elbow, which gives joint 4; joint 6 then has two choices, joint 2
two more. Joint 7 itself is chosen so that the posture stays near the seed.

Geometry: modified Denavit-Hartenberg lengths of the vendor's description (robot interface B2). Frames: `link0` ->
tool. The tool frame sits at the vendor's TCP with its axes named as those of a WidowX gripper are (x out of the
gripper, y across the fingers), so that the home posture has roll = pitch = yaw = 0 in the policy's sense. `TOOL_IN_TCP`
converts.
"""

from __future__ import annotations

import math

import numpy as np

from instructvla_ros.control.chain import Origin, SerialChain
from instructvla_ros.control.inverse import IkResult, JointAngles, check_finite, damped_step, result
from instructvla_ros.control.rotations import rotation_vector

TOOL_IN_TCP = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
"""Rotation tool -> TCP; it is its own inverse."""
HOME_RAD = np.array([0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4])
for _constant in (TOOL_IN_TCP, HOME_RAD):
    _constant.setflags(write=False)

_D1, _D3, _D5, _A4, _A7 = 0.333, 0.316, 0.384, 0.0825, 0.088
_FLANGE, _TCP, _HAND_YAW = 0.107, 0.1034, -math.pi / 4
_QUARTER = math.pi / 2
_ORIGINS = (
    Origin((0.0, 0.0, _D1)),
    Origin(rpy_rad=(-_QUARTER, 0.0, 0.0)),
    Origin((0.0, -_D3, 0.0), (_QUARTER, 0.0, 0.0)),
    Origin((_A4, 0.0, 0.0), (_QUARTER, 0.0, 0.0)),
    Origin((-_A4, _D5, 0.0), (-_QUARTER, 0.0, 0.0)),
    Origin(rpy_rad=(_QUARTER, 0.0, 0.0)),
    Origin((_A7, 0.0, 0.0), (_QUARTER, 0.0, 0.0)),
)
_TOOL = (
    Origin((0.0, 0.0, _FLANGE)),
    Origin(rpy_rad=(0.0, 0.0, _HAND_YAW)),
    Origin((0.0, 0.0, _TCP)),
    Origin(rpy_rad=(math.pi, -_QUARTER, 0.0)),  # TOOL_IN_TCP
)
_UPPER_ARM, _FOREARM = math.hypot(_D3, _A4), math.hypot(_D5, _A4)
_ELBOW_OFFSET = math.atan2(_D3, _A4) + math.atan2(_D5, _A4)
_TWO_PI = 2.0 * math.pi
_COARSE, _FINE = 48, 768  # values of joint 7 that are tried; the fine set where the coarse one misses a narrow range
_NEAR_M, _NEAR_RAD = 0.15, 0.8  # targets this near to the seed's pose are approached from the seed
_POSTURE_GAIN = 0.03  # part of the way home in one call
_DAMPING = 0.01


class FrankaKinematics:
    """For the joint limits of one model. `home_rad` is the posture that the redundancy drifts towards. Immutable."""

    def __init__(self, lower_rad: np.ndarray, upper_rad: np.ndarray, home_rad: np.ndarray = HOME_RAD) -> None:
        self._lower, self._upper, self._home = lower_rad, upper_rad, home_rad
        self._chain = SerialChain(_ORIGINS, _TOOL, lower_rad, upper_rad)
        self.forward = self._chain.forward
        self.jacobian = self._chain.jacobian
        self.damped_inverse = self._chain.damped_inverse

    def solutions(self, rotation: np.ndarray, position_m: np.ndarray, q7_rad: np.ndarray) -> np.ndarray:
        """Every posture (n, 7) within the limits that reaches the tool pose exactly with one of the given values of
        joint 7 (k,); n = 0 when out of reach."""
        tcp = rotation @ TOOL_IN_TCP
        s, c = math.sin(-_HAND_YAW), math.cos(-_HAND_YAW)
        x7, y7, z7 = c * tcp[:, 0] + s * tcp[:, 1], c * tcp[:, 1] - s * tcp[:, 0], tcp[:, 2]
        # From here on vectors are (3, 1, 1, k); the other axes are for the choices of the elbow and of joint 6.
        s7, c7 = np.sin(q7_rad), np.cos(q7_rad)
        x6, z6 = np.outer(x7, c7) - np.outer(y7, s7), np.outer(x7, s7) + np.outer(y7, c7)
        to_shoulder = np.array([[0.0], [0.0], [_D1]]) - (position_m - (_FLANGE + _TCP) * z7)[:, None] + _A7 * x6
        distance2 = (to_shoulder * to_shoulder).sum(0)
        vx, vy = (to_shoulder * x6).sum(0), -z7 @ to_shoulder
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = (_UPPER_ARM**2 + _FOREARM**2 - distance2) / (2 * _UPPER_ARM * _FOREARM)
            bend = np.arccos(cosine)  # not a number where out of reach; so is all that follows
            q4 = np.stack([bend, _TWO_PI - bend]) + (_ELBOW_OFFSET - _TWO_PI)
            s4, c4 = np.sin(q4), np.cos(q4)
            along = _D5 + _D3 * c4 - _A4 * s4  # of the shoulder, seen from the wrist down the forearm
            aside = _A4 - _A4 * c4 - _D3 * s4
            swing = np.arccos(-along / np.hypot(vx, vy))
        middle = np.arctan2(vx, vy)
        q6 = np.stack([middle + swing, middle - swing], axis=1)  # (elbow, joint 6, k)
        s6, c6 = np.sin(q6), np.cos(q6)
        x6, z6, to_shoulder = x6[:, None, None], z6[:, None, None], to_shoulder[:, None, None]
        y6 = -z7[:, None, None, None]
        s4, c4, along, aside = s4[:, None], c4[:, None], along[:, None], aside[:, None]
        z5 = s6 * x6 + c6 * y6
        x4 = (to_shoulder + along * z5) / np.where(np.abs(aside) > 1e-9, aside, np.nan)
        q5 = np.arctan2((z6 * x4).sum(0), (_cross(z5, z6) * x4).sum(0))
        z3, x3 = s4 * x4 + c4 * z5, c4 * x4 - s4 * z5
        level = np.hypot(z3[0], z3[1])
        found = []
        for sign in (1.0, -1.0):
            q2 = np.arctan2(sign * level, z3[2])
            q1 = np.where(level > 1e-9, np.arctan2(sign * z3[1], sign * z3[0]), 0.0)
            s1, c1, s2, c2 = np.sin(q1), np.cos(q1), np.sin(q2), np.cos(q2)
            q3 = np.arctan2(c1 * x3[1] - s1 * x3[0], c2 * (c1 * x3[0] + s1 * x3[1]) - s2 * x3[2])
            shape = q6.shape
            q = np.stack([q1, q2, q3, np.broadcast_to(q4[:, None], shape), q5, q6, np.broadcast_to(q7_rad, shape)], -1)
            found.append(q.reshape(-1, 7))
        q = np.concatenate(found)
        # Every joint's range is less than a turn: at most one equivalent angle is within it.
        q = self._lower + np.mod(q - self._lower + 1e-9, _TWO_PI) - 1e-9
        with np.errstate(invalid="ignore"):
            inside = (q <= self._upper + 1e-9).all(axis=1)
        return np.clip(q[inside], self._lower, self._upper)

    def inverse(
        self, rotation: np.ndarray, position_m: np.ndarray, seed_rad: JointAngles, *, damped_iterations: int = 40
    ) -> IkResult:
        """Return a posture near the seed that reaches the tool pose; exact where it exists, else damped.

        Near the seed the smallest motion is taken, with a slight pull of the elbow towards home; further away, of all
        postures on a grid of joint 7 the nearest one. Raises ValueError on non-finite input.
        """
        check_finite(rotation, position_m, seed_rad)
        seed = np.clip(np.asarray(seed_rad, dtype=float), self._lower, self._upper)
        grids = [np.linspace(self._lower[6], self._upper[6], count) for count in (_COARSE, _FINE)]
        near = self._small_motion(rotation, position_m, seed)
        if near is not None:
            grids.insert(0, near[6:])
        for grid in grids:
            found = self.solutions(rotation, position_m, grid)
            if len(found):
                nearest = found[np.argmin(((found - (seed if near is None else near)) ** 2).sum(1))]
                if len(grid) > 1 or np.abs(nearest - seed).max() < _TWO_PI / 4:
                    return result(self.forward, nearest, rotation, position_m, "closed_form")
        return self.damped_inverse(rotation, position_m, seed, iterations=damped_iterations)

    def _small_motion(self, rotation: np.ndarray, position_m: np.ndarray, seed: np.ndarray) -> np.ndarray | None:
        """Roughly where the smallest motion leads; None for a target that is not near the seed's pose."""
        q, pull = seed, _POSTURE_GAIN * (self._home - seed)
        for _ in range(2):
            now_rotation, now_position, jacobian = self._chain.forward_and_jacobian(q)
            translation, turn = position_m - now_position, rotation_vector(rotation @ now_rotation.T)
            if translation @ translation > _NEAR_M**2 or turn @ turn > _NEAR_RAD**2:
                return None
            # The pull acts along the freedom that does not move the tool: what it would move is taken back.
            lost = np.split(jacobian @ pull, 2)
            step = pull + damped_step(jacobian, translation - lost[0], turn - lost[1], _DAMPING)
            q = np.clip(q + np.clip(step, -0.3, 0.3), self._lower, self._upper)
            pull = np.zeros(7)
        return q


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along the first axis, broadcasting; numpy's own is many times slower."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
