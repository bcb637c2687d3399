"""Joint states by name, and the 8-D state vector that the policy sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.inverse import JointAngles
from instructvla_ros.control.rotations import R_DOWN, matrix_to_rpy
from instructvla_ros.control.types import JointSample
from instructvla_ros.control.wx250s import WX250S

_BEYOND_RAD = 0.2
STATE_DIM = 8
STATE_NAMES = tuple(f"state_{number}" for number in range(STATE_DIM))
"""Joint names under which a data set that knows no joints keeps the policy's state in a bag."""


class JointStateReader:
    """Maps joint states by name, in any order and with extra names. Keeps the mapping of the last layout.

    A posture far beyond the joint limits is none: a WidowX's driver that cannot read its servos goes on publishing,
    every joint half a turn back. `told_opening`: of a gripper that is not measured.

    `of_data_set`: the policy's state under `STATE_NAMES` is taken too. It moves no arm: nothing is known of its joints.
    """

    def __init__(self, arm: ArmModel = WX250S, *, of_data_set: bool = False) -> None:
        self._arm, self._of_data_set = arm, of_data_set
        self._wanted = (*arm.joint_names, *([arm.fingers.joint] if arm.fingers.joint else []))
        self.told_opening = 1.0
        self._layout: tuple[str, ...] | None = None
        self._indices: list[int] = []

    def read(self, names: Sequence[str], positions: Sequence[float], stamp_s: float, received_s: float) -> JointSample:
        """Return the sample; raises ValueError that names the joints that are missing, not finite or impossible."""
        layout = tuple(names)
        if self._of_data_set and layout == STATE_NAMES:
            if len(positions) != STATE_DIM or not np.isfinite(positions).all():
                raise ValueError(f"state of a data set is {list(positions)}; {STATE_DIM} finite numbers were expected")
            return JointSample(np.empty(0), math.nan, stamp_s, received_s, np.asarray(positions, np.float32))
        if layout != self._layout:
            missing = [name for name in self._wanted if name not in layout]
            if missing:
                raise ValueError(
                    f"joint state lacks {', '.join(missing)} (it has: {', '.join(layout) or 'nothing'}); "
                    f"check the topic's name and that the driver runs a {self._arm.name} with its gripper"
                )
            self._indices = [layout.index(name) for name in self._wanted]
            self._layout = layout
        if len(positions) != len(layout):
            raise ValueError(f"joint state has {len(layout)} names but {len(positions)} positions")
        values = [float(positions[i]) for i in self._indices]
        for name, value in zip(self._wanted, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(f"joint state has {value} for {name}; a finite position was expected")
        arm = self._arm
        arm_rad = np.array(values[: arm.joints])
        beyond = np.maximum(arm.lower_rad - arm_rad, arm_rad - arm.upper_rad) > _BEYOND_RAD
        if beyond.any():
            said = ", ".join(f"{arm.joint_names[i]} at {arm_rad[i]:.2f} rad" for i in np.flatnonzero(beyond))
            raise ValueError(f"joint state has {said}, over {_BEYOND_RAD} rad beyond the limits; are the servos read?")
        finger_m = values[-1] if arm.fingers.joint else arm.fingers.position_m(self.told_opening)
        return JointSample(arm_rad, finger_m, float(stamp_s), float(received_s))


def state_of(sample: JointSample, arm: ArmModel = WX250S) -> np.ndarray:
    """The policy's state (8,) float32 at a sample."""
    return state_vector(sample.arm_rad, sample.finger_m, arm) if sample.state is None else sample.state


def state_vector(arm_rad: JointAngles, finger_m: float, arm: ArmModel = WX250S) -> np.ndarray:
    """The policy's state (8,) float32: x, y, z (m, base frame), roll, pitch, yaw of R_base_ee @ R_DOWN.T, 0,
    opening."""
    rotation, position = arm.forward(arm_rad)
    roll, pitch, yaw = matrix_to_rpy(rotation @ R_DOWN.T)
    x, y, z = position.tolist()
    return np.array([x, y, z, roll, pitch, yaw, 0.0, arm.fingers.opening(finger_m)], dtype=np.float32)
