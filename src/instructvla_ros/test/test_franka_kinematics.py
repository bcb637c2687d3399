"""Kinematics of the arms with a closed form against MuJoCo's, from the vendors' robot descriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructvla_ros.cli.bench_ik import measure
from instructvla_ros.cli.independent_kinematics import IndependentKinematics
from instructvla_ros.control import FR3, PANDA, WX250S, ArmModel
from instructvla_ros.control.franka_kinematics import TOOL_IN_TCP, FrankaKinematics
from instructvla_ros.control.rotations import R_DOWN, rotation_vector

pytest.importorskip("mujoco")

ARMS = pytest.mark.parametrize("arm", [FR3, PANDA, WX250S], ids=lambda arm: arm.name)


def random_postures(arm: ArmModel, count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(arm.lower_rad, arm.upper_rad, (count, arm.joints))


@ARMS
def test_forward_kinematics_equals_that_of_mujoco(arm: ArmModel) -> None:
    independent = IndependentKinematics(arm.name)
    for q in random_postures(arm, 200):
        rotation, position = arm.forward(q)
        expected_rotation, expected_position = independent.forward(q)
        assert np.abs(position - expected_position).max() < 1e-9
        assert np.abs(rotation - expected_rotation).max() < 1e-9


@ARMS
@pytest.mark.parametrize("near", [True, False], ids=["from nearby", "from home"])
def test_inverse_kinematics_solves_1000_random_reachable_poses(arm: ArmModel, near: bool) -> None:
    assert measure(arm, 1_000, near=near).solved >= 0.999


@pytest.mark.slow
@ARMS
@pytest.mark.parametrize("near", [True, False], ids=["from nearby", "from home"])
def test_inverse_kinematics_solves_10000_random_reachable_poses(arm: ArmModel, near: bool) -> None:
    report = measure(arm, 10_000, near=near)
    assert report.solved >= 0.999 and report.position_mm <= 0.1 and report.rotation_deg <= 0.1


def test_the_jacobian_equals_finite_differences_of_the_forward_kinematics() -> None:
    kinematics, h = FrankaKinematics(FR3.lower_rad, FR3.upper_rad), 1e-6
    for q in random_postures(FR3, 10):
        analytic = kinematics.jacobian(q)
        for joint in range(7):
            d = np.zeros(7)
            d[joint] = h
            (r1, p1), (r0, p0) = kinematics.forward(q + d), kinematics.forward(q - d)
            np.testing.assert_allclose(analytic[:3, joint], (p1 - p0) / (2 * h), atol=1e-6)
            np.testing.assert_allclose(analytic[3:, joint], rotation_vector(r1 @ r0.T) / (2 * h), atol=1e-6)


def test_at_home_the_gripper_points_down_with_no_turn_in_the_policys_sense() -> None:
    rotation, position = FR3.forward(FR3.home_rad)
    np.testing.assert_allclose(rotation, R_DOWN, atol=1e-12)
    np.testing.assert_allclose(position, [0.30689, 0.0, 0.48688], atol=1e-5)


def test_the_two_conventions_of_the_tool_frame_are_inverses() -> None:
    np.testing.assert_array_equal(TOOL_IN_TCP @ TOOL_IN_TCP, np.eye(3))


def test_every_solution_reaches_the_pose_with_the_joint_7_that_was_asked_for() -> None:
    kinematics = FrankaKinematics(FR3.lower_rad, FR3.upper_rad)
    q = np.array([1.0, 1.0, 1.0, -2.0, 1.0, 3.0, 0.6])
    rotation, position = kinematics.forward(q)
    found = kinematics.solutions(rotation, position, np.array([0.6]))
    assert len(found) >= 2
    assert np.abs(found - q).max(axis=1).min() < 1e-9
    for solution in found:
        assert solution[6] == pytest.approx(0.6)
        np.testing.assert_allclose(kinematics.forward(solution)[1], position, atol=1e-9)


def test_small_motions_move_no_joint_far_and_the_elbow_does_not_wander_off() -> None:
    """A hundred small circles: the posture at the end is about the one at the beginning."""
    q = np.array([0.4, 0.1, -0.5, -2.2, 0.4, 2.2, 0.9])
    rotation, centre = FR3.forward(q)
    first = None
    for step in range(800):
        angle = 2 * math.pi * step / 8
        answer = FR3.inverse(rotation, centre + 0.03 * np.array([math.cos(angle) - 1, math.sin(angle), 0.0]), q)
        assert answer.solved
        assert np.abs(answer.q_rad - q).max() < 0.15
        q = answer.q_rad
        if step == 400:
            first = q
    assert first is not None and np.abs(q - first).max() < 0.1


def test_a_pose_out_of_reach_gives_the_damped_compromise() -> None:
    rotation, position = FR3.forward(FR3.home_rad)
    answer = FR3.inverse(rotation, position + [0.6, 0.0, 0.0], FR3.home_rad)
    assert not answer.solved
    assert answer.method == "damped"
    assert answer.position_residual_m > 0.1


def test_a_pose_that_is_not_finite_is_refused_with_a_message() -> None:
    with pytest.raises(ValueError, match="not finite"):
        FR3.inverse(np.eye(3), np.array([math.nan, 0, 0]), FR3.home_rad)
