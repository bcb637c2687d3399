"""Language motion: a short phrase for the movement that follows each step of an episode.

A step is described by comparing its state with the state two steps later: "move forward down, close
gripper". The last two steps of an episode have no such state and read "stop".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOOK_AHEAD_STEPS = 2
STOP = "stop"

_TRANSLATIONS = (("forward", "backward"), ("left", "right"), ("up", "down"))  # for +, - along x, y, z
_TILTS = ("tilt up", "tilt down")
_ROTATIONS = ("rotate counterclockwise", "rotate clockwise")
_GRIPPERS = ("close gripper", "open gripper")

Code = tuple[int, int, int, int, int, int, int]
"""Signs in {-1, 0, 1} of: x, y, z, upward tilt, unused, counterclockwise turn, closing of the gripper."""


@dataclass(frozen=True)
class MotionThresholds:
    """How much movement in two steps is worth a word.

    Args:
        translation_m: along one axis, metres.
        max_path_m: a longer movement (sum of the absolute parts) is first shortened to this, so that only
            the main directions of a fast movement are named.
        tilt_rad: pitch of the end effector, radians.
        turn_rad: yaw of the end effector, radians.
        gripper: change of the closing, of 1 for fully closed.
    """

    translation_m: float = 0.02
    max_path_m: float = 0.06
    tilt_rad: float = 0.06
    turn_rad: float = 0.1
    gripper: float = 0.02


REFERENCE_THRESHOLDS = MotionThresholds()
WIDOWX_THRESHOLDS = MotionThresholds(gripper=0.1)
"""For measured gripper openings, which tremble by a few hundredths."""


def _sign(value: float, threshold: float) -> int:
    return int(value > threshold) - int(value < -threshold)


def motion_code(
    delta_xyz_m: ArrayLike, R_delta: NDArray[np.floating], delta_closed: float, thresholds: MotionThresholds
) -> Code:
    """Signs of a movement.

    Args:
        delta_xyz_m: (3,) displacement in base axes, metres.
        R_delta: (3, 3) rotation R_end · R_startᵀ in base axes.
        delta_closed: change of the gripper's closing, 1 being from open to closed.
    """
    delta = np.asarray(delta_xyz_m, dtype=np.float64)
    path_m = float(np.abs(delta).sum())
    if path_m > thresholds.max_path_m:
        delta = delta * (thresholds.max_path_m / path_m)
    pitch = float(np.arcsin(np.clip(-R_delta[2, 0], -1.0, 1.0)))
    yaw = float(np.arctan2(R_delta[1, 0], R_delta[0, 0]))
    x, y, z = (_sign(float(part), thresholds.translation_m) for part in delta)
    return (
        x,
        y,
        z,
        _sign(-pitch, thresholds.tilt_rad),
        0,
        _sign(yaw, thresholds.turn_rad),
        _sign(delta_closed, thresholds.gripper),
    )


def describe_motion(code: Code) -> str:
    """The phrase of a code; "stop" when nothing moves."""
    directions = [words[sign < 0] for words, sign in zip(_TRANSLATIONS, code[:3], strict=True) if sign]
    parts = [f"move {' '.join(directions)}"] if directions else []
    for words, sign in ((_TILTS, code[3]), (_ROTATIONS, code[5]), (_GRIPPERS, code[6])):
        if sign:
            parts.append(words[sign < 0])
    return ", ".join(parts) or STOP


def motion_codes(
    positions_m: NDArray[np.floating],
    rotations: NDArray[np.floating],
    closed: NDArray[np.floating],
    thresholds: MotionThresholds = REFERENCE_THRESHOLDS,
) -> list[Code]:
    """Codes of all steps that have a state two steps later.

    Args:
        positions_m: (T, 3) end-effector positions in the base frame, metres.
        rotations: (T, 3, 3) end-effector rotations.
        closed: (T,) gripper closing, 0 open to 1 closed.

    Returns:
        max(T - 2, 0) codes.
    """
    return [
        motion_code(
            positions_m[end] - positions_m[start],
            rotations[end] @ rotations[start].T,
            float(closed[end] - closed[start]),
            thresholds,
        )
        for start, end in (
            (step, step + LOOK_AHEAD_STEPS) for step in range(len(positions_m) - LOOK_AHEAD_STEPS)
        )
    ]


def rotations_from_rpy(rpy_rad: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, 3) roll, pitch, yaw to (T, 3, 3) rotations Rz(yaw) Ry(pitch) Rx(roll)."""
    roll, pitch, yaw = np.asarray(rpy_rad, dtype=np.float64).T
    cr, sr, cp, sp, cy, sy = (
        np.cos(roll),
        np.sin(roll),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(yaw),
        np.sin(yaw),
    )
    rows = (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotations_from_quaternions(quaternions_xyzw: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, 4) quaternions x, y, z, w (normalised here) to (T, 3, 3) rotations."""
    q = np.asarray(quaternions_xyzw, dtype=np.float64)
    x, y, z, w = (q / np.linalg.norm(q, axis=-1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _checked(states: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(states, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 8:
        raise ValueError(f"states have shape {array.shape}: expected (T, 8)")
    if not np.isfinite(array).all():
        raise ValueError("states hold values that are not finite: drop or repair those steps first")
    return array


def language_motion(states: ArrayLike, thresholds: MotionThresholds = WIDOWX_THRESHOLDS) -> list[str]:
    """One phrase per step of an episode.

    Args:
        states: (T, 8) rows [x, y, z, roll, pitch, yaw, 0, gripper opening]; metres, radians, opening 0..1.

    Raises:
        ValueError: when the shape is wrong or a value is not finite.
    """
    array = _checked(states)
    codes = motion_codes(array[:, :3], rotations_from_rpy(array[:, 3:6]), 1.0 - array[:, 7], thresholds)
    return [describe_motion(code) for code in codes] + [STOP] * min(LOOK_AHEAD_STEPS, len(array))


def language_motion_from_quaternions(
    states: ArrayLike, thresholds: MotionThresholds = REFERENCE_THRESHOLDS
) -> list[str]:
    """As `language_motion`, for (T, 8) rows [x, y, z, qx, qy, qz, qw, gripper closed]."""
    array = _checked(states)
    codes = motion_codes(array[:, :3], rotations_from_quaternions(array[:, 3:7]), array[:, 7], thresholds)
    return [describe_motion(code) for code in codes] + [STOP] * min(LOOK_AHEAD_STEPS, len(array))


def all_phrases() -> Iterator[str]:
    """Every phrase that a step can get."""
    for x, y, z, tilt, turn, grip in product((-1, 0, 1), repeat=6):
        yield describe_motion((x, y, z, tilt, 0, turn, grip))
