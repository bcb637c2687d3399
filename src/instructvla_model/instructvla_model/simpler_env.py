"""The policy's side of SimplerEnv: its states in, its actions out, for the two robots it simulates.

SimplerEnv asks for one action a step: translation, axis times angle, and a gripper command in the robot's own
convention. Its end-effector pose is (8,): x, y, z, quaternion w, x, y, z, gripper opening.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from instructvla_model.ensemble import AdaptiveEnsemble

_R_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # a gripper that points down


@dataclass(frozen=True)
class SimplerSetup:
    """What differs between the robots. `dataset` names the statistics; `sticky_steps` 0: absolute gripper."""

    dataset: str
    n_chunks: int
    sticky_steps: int


SETUPS = {
    "widowx_bridge": SimplerSetup("bridge_dataset", 7, 0),
    "google_robot": SimplerSetup("fractal20220817_data", 2, 10),
}


def setup(name: str) -> SimplerSetup:
    """The set-up of that name; ValueError lists the names otherwise."""
    if name not in SETUPS:
        raise ValueError(f"SimplerEnv set-up {name!r} does not exist; expected one of {sorted(SETUPS)}")
    return SETUPS[name]


def _matrix(quaternion_wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion_wxyz / np.linalg.norm(quaternion_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def state_vector(name: str, end_effector: np.ndarray) -> np.ndarray:
    """The policy's state (8,) of SimplerEnv's end-effector pose (8,); not normalised.

    widowx_bridge: x, y, z, roll, pitch, yaw from gripper-down, 0, opening; google_robot: x, y, z, quaternion x, y,
    z, w, closing.
    """
    setup(name)
    pose = np.asarray(end_effector, dtype=np.float64)
    if name == "google_robot":
        return np.concatenate([pose[:3], pose[4:7], pose[3:4], 1.0 - pose[7:8]])
    r = _matrix(pose[3:7]) @ _R_DOWN.T
    roll, yaw = math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])
    pitch = math.atan2(-r[2, 0], math.hypot(r[0, 0], r[1, 0]))
    return np.array([*pose[:3], roll, pitch, yaw, 0.0, pose[7]])


def axis_angle(rpy_rad: np.ndarray) -> np.ndarray:
    """Fixed-axis roll, pitch, yaw -> rotation axis times angle, (3,), angle in 0..pi."""
    half_r, half_p, half_y = np.asarray(rpy_rad, dtype=np.float64) / 2
    cr, sr, cp, sp = math.cos(half_r), math.sin(half_r), math.cos(half_p), math.sin(half_p)
    cy, sy = math.cos(half_y), math.sin(half_y)
    w = cr * cp * cy + sr * sp * sy
    v = np.array([sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy])
    length = float(np.linalg.norm(v))
    if length < 1e-12:
        return np.zeros(3)
    angle = 2.0 * math.atan2(length, w)
    return v / length * (angle if angle <= math.pi else angle - 2.0 * math.pi)


class StickyGripper:
    """Opening 0..1 -> change of it, said once when it is more than a half and then repeated for some steps.

    The opening that changes are measured from moves only when a change was said.
    """

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._last: float | None = None
        self._said, self._left = 0.0, 0

    def step(self, opening: float) -> float:
        change = 0.0 if self._last is None else self._last - opening
        if self._last is None:
            self._last = opening
        if abs(change) > 0.5 and self._left == 0:
            self._said, self._left, self._last = change, self._repeats, opening
        if self._left:
            self._left -= 1
            return self._said
        return change


class SimplerActions:
    """Chunks (F, 7) of the policy, one for each step -> actions (7,) for SimplerEnv, ensembled."""

    def __init__(self, name: str) -> None:
        self._setup = setup(name)
        self.reset()

    def reset(self) -> None:
        """A new episode or task."""
        self._ensemble = AdaptiveEnsemble(self._setup.n_chunks)
        self._sticky = StickyGripper(self._setup.sticky_steps)

    def step(self, chunk_FA: np.ndarray) -> np.ndarray:
        action = self._ensemble.step(chunk_FA)
        opening = float(action[6])
        gripper = self._sticky.step(opening) if self._setup.sticky_steps else 2.0 * (opening > 0.5) - 1.0
        return np.concatenate([action[:3], axis_angle(action[3:6]), [gripper]])
