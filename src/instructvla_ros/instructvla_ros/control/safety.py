"""The rules a policy step and a joint goal must pass. Each is a pure function or a small class with an
injected clock.

Fault ids are those of the project's fault list; every message says what was found and what was expected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.types import ActionChunk, ActionStep
from instructvla_ros.control.wx250s import WX250S

MAX_CHUNK_STEPS = 256


@dataclass(frozen=True)
class SafetyConfig:
    """Numbers of the safety rules; the defaults are a WidowX's. Positions are of the end-effector frame in the base
    frame; the table top is z = 0."""

    max_delta_xyz_m: float = 0.05
    max_delta_rpy_rad: float = 0.25
    reject_factor: float = 5.0
    workspace_lower_m: tuple[float, float, float] = (0.10, -0.28, 0.01)
    workspace_upper_m: tuple[float, float, float] = (0.45, 0.28, 0.40)
    # A step that asks for more than this beyond the box is a push; so many in a row and pushing steps are
    # refused.
    push_tolerance_m: float = 0.01
    max_pushes: int = 15
    # The target may not run further ahead of the measured pose than this (a blocked arm must not wind up).
    max_target_lead_m: float = 0.12
    # Nor a joint's goal further ahead of the measured joint, in whatever mode: where the drives are off or the arm is
    # blocked, all that was sent meanwhile would be caught up on at once. Above the lag of a WidowX at full speed.
    max_joint_lead_rad: float = 0.5
    joint_margin_rad: float = 0.005
    velocity_fraction: float = 0.5
    homing_speed_rad_s: float = 0.5  # of the fastest joint on the way to home or sleep
    max_joint_jump_rad: float = 0.5
    ik_position_tolerance_m: float = 0.005
    ik_rotation_tolerance_rad: float = 0.1
    max_joint_state_age_s: float = 0.1
    max_joint_silence_s: float = 0.5
    warn_image_age_s: float = 0.3
    max_image_age_s: float = 0.5  # math.inf switches the image check off
    abort_image_age_s: float = 5.0
    max_bad_chunks: int = 3
    max_clock_jump_s: float = 1.0
    # Boxes that the end effector may not enter: lower x, y, z, upper x, y, z of each; one without volume is none.
    keep_out_m: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    max_refused_goals: int = 3
    # Identical pictures while the arm moved more than `frozen_motion_rad`; 0 switches the check off.
    max_identical_pictures: int = 3
    frozen_motion_rad: float = 0.05

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.workspace_lower_m, self.workspace_upper_m, strict=True)):
            raise ValueError(
                f"workspace_lower_m {self.workspace_lower_m} must be below workspace_upper_m "
                f"{self.workspace_upper_m} on every axis"
            )
        if len(self.keep_out_m) % 6:
            raise ValueError(f"keep_out_m has {len(self.keep_out_m)} numbers; expected six for each box")
        if not 0.0 < self.velocity_fraction <= 1.0:
            raise ValueError(f"velocity_fraction is {self.velocity_fraction}; expected more than 0, at most 1")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one rule. `ok` False means: do not use; a fault id with `ok` True means: used after
    limiting."""

    ok: bool
    fault_id: str = ""
    reason: str = ""


GOOD = Verdict(True)


def check_chunk(chunk: ActionChunk) -> Verdict:
    """Shapes and finiteness of a chunk (F06, F19)."""
    xyz, rpy, gripper = (
        np.asarray(chunk.delta_xyz_m),
        np.asarray(chunk.delta_rpy_rad),
        np.asarray(chunk.gripper),
    )
    steps = len(gripper) if gripper.ndim == 1 else 0
    if not 1 <= steps <= MAX_CHUNK_STEPS or xyz.shape != (steps, 3) or rpy.shape != (steps, 3):
        found = f"shapes {xyz.shape}, {rpy.shape}, {gripper.shape}"
        return Verdict(False, "F19", f"chunk has {found}; expected (F, 3), (F, 3), (F,) with F in 1..{MAX_CHUNK_STEPS}")
    if not (math.isfinite(chunk.dt_s) and 0.01 <= chunk.dt_s <= 2.0 and math.isfinite(chunk.stamp_s)):
        return Verdict(
            False, "F19", f"chunk has dt {chunk.dt_s} s and stamp {chunk.stamp_s} s; dt of 0.01..2 s expected"
        )
    if not (np.isfinite(xyz).all() and np.isfinite(rpy).all() and np.isfinite(gripper).all()):
        return Verdict(False, "F06", "chunk holds a value that is not finite; the whole chunk was dropped")
    return GOOD


def limit_step(step: ActionStep, config: SafetyConfig) -> tuple[ActionStep, Verdict]:
    """Clamp each axis of a step (F07); a step far beyond the limits is refused rather than clamped."""
    worst_xyz = max(abs(v) for v in step.delta_xyz_m) / config.max_delta_xyz_m
    worst_rpy = max(abs(v) for v in step.delta_rpy_rad) / config.max_delta_rpy_rad
    worst = max(worst_xyz, worst_rpy)
    if worst <= 1.0 and 0.0 <= step.gripper <= 1.0:
        return step, GOOD
    if worst > config.reject_factor:
        limit = f"{config.max_delta_xyz_m} m / {config.max_delta_rpy_rad} rad"
        return step, Verdict(False, "F07", f"step is {worst:.1f} times the limit of {limit}; refused")
    xyz = tuple(min(max(v, -config.max_delta_xyz_m), config.max_delta_xyz_m) for v in step.delta_xyz_m)
    rpy = tuple(min(max(v, -config.max_delta_rpy_rad), config.max_delta_rpy_rad) for v in step.delta_rpy_rad)
    limited = ActionStep(
        (xyz[0], xyz[1], xyz[2]),
        (rpy[0], rpy[1], rpy[2]),
        min(max(step.gripper, 0.0), 1.0),
        step.dt_s,
        step.chunk_seq,
        step.step,
        step.instruction_id,
    )
    return limited, Verdict(True, "F07", f"step of {worst:.2f} times the limit was clamped") if worst > 1.0 else GOOD


class Workspace:
    """Clips target positions to the box and notices continued pushing against it (F08)."""

    def __init__(self, config: SafetyConfig) -> None:
        self._config = config
        self._lower = np.array(config.workspace_lower_m)
        self._upper = np.array(config.workspace_upper_m)
        self._pushes = 0

    def reset(self) -> None:
        """Forget earlier pushes."""
        self._pushes = 0

    def clip(self, wanted_m: np.ndarray, previous_m: np.ndarray) -> tuple[np.ndarray, Verdict]:
        """Return the allowed target. From a start outside the box any way is open except further out."""
        lower, upper = np.minimum(self._lower, previous_m), np.maximum(self._upper, previous_m)
        allowed = np.minimum(np.maximum(wanted_m, lower), upper)
        excess_m = float(np.max(np.abs(wanted_m - allowed)))
        if excess_m == 0.0:
            self._pushes = 0
            return allowed, GOOD
        self._pushes = self._pushes + 1 if excess_m > self._config.push_tolerance_m else 0
        axis = "xyz"[int(np.argmax(np.abs(wanted_m - allowed)))]
        reason = f"target left the workspace box by {excess_m * 1000:.0f} mm along {axis}"
        if self._pushes > self._config.max_pushes:
            return previous_m, Verdict(False, "F08", reason + f", {self._pushes} steps in a row; holding")
        return allowed, Verdict(True, "F08", reason + "; clipped")


class JointLimiter:
    """Keeps joint goals within position limits and, by scaling all joints alike, within velocity limits
    (F10)."""

    def __init__(self, config: SafetyConfig, arm: ArmModel = WX250S) -> None:
        self.lower_rad = arm.lower_rad + config.joint_margin_rad
        self.upper_rad = arm.upper_rad - config.joint_margin_rad
        self.velocity_rad_s = arm.velocity_rad_s * config.velocity_fraction

    def within(self, goal_rad: np.ndarray) -> np.ndarray:
        """The goal clipped to the position limits."""
        return np.minimum(np.maximum(goal_rad, self.lower_rad), self.upper_rad)

    def limit(self, goal_rad: np.ndarray, previous_rad: np.ndarray, elapsed_s: float) -> np.ndarray:
        """The goal that may be sent `elapsed_s` after `previous_rad` was: from beyond the limits only the way back is
        open."""
        lower, upper = np.minimum(self.lower_rad, previous_rad), np.maximum(self.upper_rad, previous_rad)
        change = np.minimum(np.maximum(goal_rad, lower), upper) - previous_rad
        worst = float(np.max(np.abs(change) / self.velocity_rad_s))
        if worst <= elapsed_s or worst == 0.0:
            return previous_rad + change
        return previous_rad + change * (max(elapsed_s, 0.0) / worst)


class Freshness:
    """When something was last received, and whether that is too long ago. A repeated stamp does not count as
    new."""

    def __init__(self) -> None:
        self._stamp_s: float | None = None
        self._received_s: float | None = None

    def reset(self) -> None:
        """Forget everything received."""
        self._stamp_s = self._received_s = None

    def note(self, stamp_s: float, now_s: float) -> bool:
        """Record a message; returns False for one with the stamp of the last (a frozen or duplicated
        source)."""
        if not math.isfinite(stamp_s) or stamp_s == self._stamp_s:
            return False
        self._stamp_s, self._received_s = stamp_s, now_s
        return True

    def age_s(self, now_s: float) -> float:
        """Seconds since the last new message; infinite before the first."""
        return math.inf if self._received_s is None else now_s - self._received_s
