"""The numbers by which predicted actions are compared with recorded ones. Pure functions of arrays.

Actions are (..., 7): translation (m), roll-pitch-yaw (rad), gripper opening 0..1, per policy step of `dt_s`. Unknown
recorded values are NaN and give NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

MIN_MOTION_M = 0.002
"""Directions are compared only where the recorded step is at least so long."""
GRIPPER_SIDE = 0.5
GRIPPER_WINDOW_S = 2.0
"""A predicted opening or closing further away in time than this is another one."""
_WORD = re.compile(r"[a-z0-9]+")
_EMPTY_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "at",
        "by",
        "for",
        "from",
        "i",
        "in",
        "into",
        "is",
        "it",
        "of",
        "on",
        "onto",
        "please",
        "robot",
        "should",
        "the",
        "then",
        "to",
        "up",
        "with",
    ]
)


def rotation_matrices(rpy_rad: np.ndarray) -> np.ndarray:
    """(..., 3) roll, pitch, yaw -> (..., 3, 3) Rz Ry Rx."""
    (sr, sp, sy), (cr, cp, cy) = (np.moveaxis(f(rpy_rad), -1, 0) for f in (np.sin, np.cos))
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def translation_error_mm(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Length of the difference of the translations, (...,) mm."""
    return 1e3 * np.linalg.norm(predicted[..., :3] - recorded[..., :3], axis=-1)


def rotation_error_deg(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Angle between the two rotations, (...,) deg."""
    a, b = rotation_matrices(predicted[..., 3:6]), rotation_matrices(recorded[..., 3:6])
    # |A - B| = 2 sqrt(2) sin(angle / 2): exact also for small angles, where the trace is not.
    half_sine = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8.0)
    return np.degrees(2.0 * np.arcsin(np.clip(half_sine, 0.0, 1.0)))


def direction_cosine(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Cosine between the translations, (...,); NaN where the recorded one is shorter than MIN_MOTION_M."""
    a, b = predicted[..., :3], recorded[..., :3]
    long_b = np.linalg.norm(b, axis=-1)
    scale = np.maximum(np.linalg.norm(a, axis=-1) * long_b, 1e-12)
    return np.where(long_b >= MIN_MOTION_M, np.sum(a * b, axis=-1) / scale, np.nan)


def gripper_agreement(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """1.0 where both openings are on the same side of one half, else 0.0; (...,)."""
    same = (predicted[..., 6] >= GRIPPER_SIDE) == (recorded[..., 6] >= GRIPPER_SIDE)
    return np.where(np.isfinite(recorded[..., 6]), same.astype(float), np.nan)


def path_error_mm(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Distance of the end points of the summed translations after each step, (N, F, 7) -> (N, F) mm."""
    gap = np.cumsum(predicted[..., :3] - recorded[..., :3], axis=-2)
    return 1e3 * np.linalg.norm(gap, axis=-1)


def jerk_m_s3(actions: np.ndarray, dt_s: float) -> np.ndarray:
    """Root mean square of the third derivative of the position along a chunk, (N, F, 7) -> (N,) m/s³; F >= 3."""
    velocity = actions[..., :3] / dt_s
    third = np.diff(velocity, n=2, axis=-2) / dt_s**2
    return np.sqrt(np.mean(np.sum(third**2, axis=-1), axis=-1))


def seam_jump_mm(
    before: np.ndarray, before_stamp_s: float, after: np.ndarray, after_stamp_s: float, dt_s: float
) -> float:
    """How much the translation of the same moment differs between a chunk (F, 7) and the next, mm; NaN where the first
    does not reach so far."""
    step = int(np.floor((after_stamp_s - before_stamp_s) / dt_s + 1e-6))
    if not 0 <= step < len(before):
        return float("nan")
    return float(1e3 * np.linalg.norm(after[0, :3] - before[step, :3]))


def switches(times_s: np.ndarray, openings: np.ndarray) -> list[tuple[float, bool]]:
    """When an opening crosses one half and whether it opens, for values (n,) at ascending times."""
    known = np.isfinite(openings)
    times, sides = times_s[known], openings[known] >= GRIPPER_SIDE
    places = np.flatnonzero(np.diff(sides.astype(np.int8)))
    return [(float(times[place + 1]), bool(sides[place + 1])) for place in places]


def gripper_timing(
    predicted: Sequence[tuple[float, bool]], recorded: Sequence[tuple[float, bool]]
) -> tuple[list[float], int, int]:
    """(lateness of each matched switch in s, recorded ones that were missed, predicted ones that were not recorded).

    Each recorded switch takes the nearest free predicted one of its direction within GRIPPER_WINDOW_S.
    """
    free = list(predicted)
    late: list[float] = []
    for time_s, opens in recorded:
        near = [p for p in free if p[1] == opens and abs(p[0] - time_s) <= GRIPPER_WINDOW_S]
        if near:
            best = min(near, key=lambda p: abs(p[0] - time_s))
            free.remove(best)
            late.append(best[0] - time_s)
    return late, len(recorded) - len(late), len(free)


def words(text: str) -> list[str]:
    """The words of a text that carry meaning, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if word not in _EMPTY_WORDS]


def word_f1(text: str, reference: str) -> float:
    """Harmonic mean of the shares of words that both have, counting repetitions; NaN without a reference."""
    a, b = words(text), words(reference)
    if not b:
        return float("nan")
    common = sum(min(a.count(word), b.count(word)) for word in set(a))
    return 2.0 * common / (len(a) + len(b))


def word_recall(text: str, reference: str) -> float:
    """Share of the reference's words that the text has too; NaN without a reference."""
    wanted, there = set(words(reference)), set(words(text))
    return len(wanted & there) / len(wanted) if wanted else float("nan")
