"""Frozen values that cross the boundaries of the control code. Times are seconds on one injected clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


class Mode(str, Enum):
    """What the controller is doing; every mode but MOVING keeps the last joint goal."""

    WAITING = "waiting"  # no usable joint state yet, or a reset is waiting for a fresh one
    HOMING = "homing"  # on the way to a fixed posture
    HOLD = "hold"  # anchored, and for the stated reason not following a chunk
    MOVING = "moving"  # following a chunk
    STOPPED = "stopped"  # latched by stop(); only reset() leaves it
    FAULT = "fault"  # latched after repeated bad input; only reset() leaves it


@dataclass(frozen=True)
class ActionChunk:
    """F policy steps in base axes. Step k is meant for [stamp_s + k*dt_s, stamp_s + (k+1)*dt_s).

    `delta_xyz_m` (F, 3), `delta_rpy_rad` (F, 3), `gripper` (F,) absolute opening 0..1 with 1 open.
    The fields equal those of the model library's chunk, so either may be given to the controller.
    """

    delta_xyz_m: np.ndarray
    delta_rpy_rad: np.ndarray
    gripper: np.ndarray
    dt_s: float
    stamp_s: float
    instruction_id: int = 0
    seq: int = 0
    latent_seq: int = 0


@dataclass(frozen=True)
class ActionStep:
    """One step of a chunk (or of an ensemble of chunks) and where it came from."""

    delta_xyz_m: tuple[float, float, float]
    delta_rpy_rad: tuple[float, float, float]
    gripper: float
    dt_s: float
    chunk_seq: int = 0
    step: int = 0
    instruction_id: int = 0


@dataclass(frozen=True)
class ExecutedStep:
    """The step that began in this tick, after limiting. `began_s` is its place on the step grid."""

    delta_xyz_m: tuple[float, float, float]
    delta_rpy_rad: tuple[float, float, float]
    gripper: float
    chunk_seq: int
    step: int
    instruction_id: int
    began_s: float
    dt_s: float
    clamped: bool


@dataclass(frozen=True)
class JointSample:
    """One accepted joint state. `arm_rad` (n,) in the order of the arm's joint names, `finger_m` the measured finger,
    both finite. Recorded data may know the policy's `state` (8,) and no joints."""

    arm_rad: np.ndarray
    finger_m: float
    stamp_s: float
    received_s: float
    state: np.ndarray | None = None


@dataclass(frozen=True)
class Command:
    """What to send in this tick. None means: send nothing for that joint group.

    `joint_goal_rad` (n,) for the arm and the speed `joint_velocity_rad_s` (n,) at which it passes there. For the
    gripper what its drive understands: `gripper_pwm` (positive opens) or `gripper_width_m` between the fingers.
    """

    joint_goal_rad: np.ndarray | None
    gripper_pwm: float | None
    step: ExecutedStep | None
    mode: Mode
    reason: str
    fault_id: str
    joint_velocity_rad_s: np.ndarray | None = None
    gripper_width_m: float | None = None
