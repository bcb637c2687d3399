"""From the pose that is wanted to joints that the arm may take (F09)."""

from __future__ import annotations

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.safety import JointLimiter, SafetyConfig, Verdict

_REFINEMENTS = 10  # damped iterations where no exact answer exists: enough from a neighbouring posture, about 1 ms


def joints_near(
    arm: ArmModel, safety: SafetyConfig, limiter: JointLimiter, rotation: np.ndarray, position_m: np.ndarray,
    seed_rad: np.ndarray,
) -> tuple[np.ndarray, bool] | Verdict:  # fmt: skip
    """Joints (n,) near `seed_rad` that reach the pose, and whether exactly; else why not."""
    answer = arm.inverse(rotation, position_m, seed_rad, damped_iterations=_REFINEMENTS)
    joints = limiter.within(answer.q_rad)
    if answer.method == "closed_form" and float(np.max(np.abs(joints - seed_rad))) > safety.max_joint_jump_rad:
        answer = arm.damped(rotation, position_m, seed_rad, iterations=_REFINEMENTS)
        joints = limiter.within(answer.q_rad)
    jump_rad = float(np.max(np.abs(joints - seed_rad)))
    if jump_rad > safety.max_joint_jump_rad:
        return Verdict(False, "F09", f"a joint would jump by {jump_rad:.2f} rad, limit {safety.max_joint_jump_rad}")
    if (
        answer.position_residual_m > safety.ik_position_tolerance_m
        or answer.rotation_residual_rad > safety.ik_rotation_tolerance_rad
    ):
        off = f"{answer.position_residual_m * 1000:.0f} mm and {answer.rotation_residual_rad:.2f} rad"
        return Verdict(False, "F09", f"no joint posture reaches the target (best is {off} off); step refused")
    return joints, answer.solved and bool((joints == answer.q_rad).all())
