"""Kinematics against an independent matrix-exponential computation and against itself, round trip."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructvla_ros.control import kinematics
from instructvla_ros.control.rotations import rotation_angle, rotation_vector


def exponential(matrix: np.ndarray) -> np.ndarray:
    """Plain power series; the matrices here have norm below 4, so 60 terms reach rounding level."""
    total, term = np.eye(4), np.eye(4)
    for n in range(1, 60):
        term = term @ matrix / n
        total = total + term
    return total


def product_of_exponentials(q_rad: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    for (wx, wy, wz, vx, vy, vz), angle in zip(kinematics.SCREW_AXES, q_rad, strict=True):
        twist = np.array([[0, -wz, wy, vx], [wz, 0, -wx, vy], [-wy, wx, 0, vz], [0, 0, 0, 0.0]])
        pose = pose @ exponential(twist * angle)
    return pose @ kinematics.HOME_POSE


@pytest.fixture(scope="module")
def postures() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform(kinematics.JOINT_LOWER_RAD, kinematics.JOINT_UPPER_RAD, (2000, 6))


def test_the_zero_posture_is_the_vendors_home_pose() -> None:
    rotation, position = kinematics.forward(np.zeros(6))
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(position, [0.458325, 0.0, 0.36065], atol=1e-12)


def test_forward_kinematics_equals_the_product_of_exponentials(postures: np.ndarray) -> None:
    for q in postures[:200]:
        rotation, position = kinematics.forward(q)
        expected = product_of_exponentials(q)
        np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-10)
        np.testing.assert_allclose(position, expected[:3, 3], atol=1e-10)


def test_batched_forward_kinematics_equals_the_single_one(postures: np.ndarray) -> None:
    batch = kinematics.forward_batch(postures[:60].reshape(5, 12, 6)).reshape(60, 4, 4)
    for q, pose in zip(postures[:60], batch, strict=True):
        rotation, position = kinematics.forward(q)
        np.testing.assert_allclose(pose[:3, :3], rotation, atol=1e-12)
        np.testing.assert_allclose(pose[:3, 3], position, atol=1e-12)
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


def test_the_jacobian_equals_finite_differences_of_the_forward_kinematics(postures: np.ndarray) -> None:
    for q in postures[:20]:
        analytic, h = kinematics.jacobian(q), 1e-6
        for joint in range(6):
            d = np.zeros(6)
            d[joint] = h
            (r1, p1), (r0, p0) = kinematics.forward(q + d), kinematics.forward(q - d)
            np.testing.assert_allclose(analytic[:3, joint], (p1 - p0) / (2 * h), atol=1e-6)
            np.testing.assert_allclose(analytic[3:, joint], rotation_vector(r1 @ r0.T) / (2 * h), atol=1e-6)


def test_inverse_kinematics_round_trip_on_2000_random_reachable_poses(postures: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    solved = 0
    for q in postures:
        expected = product_of_exponentials(q) if rng.random() < 0.05 else None
        rotation, position = kinematics.forward(q)
        if expected is not None:
            rotation, position = expected[:3, :3], expected[:3, 3]
        seed = np.clip(q + rng.normal(size=6) * 0.3, kinematics.JOINT_LOWER_RAD, kinematics.JOINT_UPPER_RAD)
        answer = kinematics.inverse(rotation, position, seed)
        reached_rotation, reached_position = kinematics.forward(answer.q_rad)
        within = (answer.q_rad >= kinematics.JOINT_LOWER_RAD).all() and (
            answer.q_rad <= kinematics.JOINT_UPPER_RAD
        ).all()
        solved += (
            answer.solved
            and within
            and np.linalg.norm(reached_position - position) <= 1e-4
            and rotation_angle(reached_rotation, rotation) <= math.radians(0.1)
        )
    assert solved >= 0.999 * len(postures)


def test_inverse_kinematics_stays_on_the_branch_of_its_seed(postures: np.ndarray) -> None:
    kept = 0
    for q in postures:
        answer = kinematics.inverse(*kinematics.forward(q), q)
        kept += np.abs(answer.q_rad - q).max() < 1e-5
    assert kept >= 0.995 * len(postures)


def test_every_branch_reaches_the_same_pose() -> None:
    rotation, position = kinematics.forward([0.2, -0.3, 0.4, 0.3, 0.9, 0.2])
    solutions = kinematics.closed_form_solutions(rotation, position, np.zeros(6))
    assert len(solutions) >= 2
    assert len({tuple(np.round(q, 6)) for q in solutions}) == len(solutions)
    for q in solutions:
        reached = kinematics.forward(q)
        np.testing.assert_allclose(reached[0], rotation, atol=1e-9)
        np.testing.assert_allclose(reached[1], position, atol=1e-9)


def test_a_stretched_wrist_keeps_the_seeds_forearm_roll() -> None:
    q = np.array([0.3, -0.2, 0.5, 0.4, 0.0, 0.1])
    answer = kinematics.inverse(*kinematics.forward(q), [0.3, -0.2, 0.5, 0.4, 0.0, 0.0])
    np.testing.assert_allclose(answer.q_rad, q, atol=1e-6)


def test_a_pose_out_of_reach_gives_the_damped_compromise_with_its_residual() -> None:
    rotation, position = kinematics.forward(np.zeros(6))
    answer = kinematics.inverse(rotation, position + [0.5, 0.0, 0.0], np.full(6, 0.05))
    assert not answer.solved
    assert answer.method == "damped"
    reached = kinematics.forward(answer.q_rad)[1]
    assert answer.position_residual_m == pytest.approx(
        np.linalg.norm(reached - position - [0.5, 0.0, 0.0]), abs=1e-9
    )
    assert 0.2 < answer.position_residual_m <= 0.65


def test_the_damped_solver_finds_a_reachable_neighbour_by_itself() -> None:
    q = np.array([0.2, -0.5, 0.6, 0.1, 1.2, 0.1])
    answer = kinematics.damped_inverse(*kinematics.forward(q), q + 0.1)
    assert answer.solved


def test_a_pose_that_is_not_finite_is_refused_with_a_message() -> None:
    with pytest.raises(ValueError, match="not finite"):
        kinematics.inverse(np.full((3, 3), np.nan), np.zeros(3), np.zeros(6))
