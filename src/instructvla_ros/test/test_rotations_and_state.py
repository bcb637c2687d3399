"""Rotations, Bridge's delta convention against 4x4 matrices, and the state vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructvla_ros.control import FR3, kinematics, without_gripper
from instructvla_ros.control.rotations import (
    R_DOWN,
    apply_delta,
    matrix_to_rpy,
    rotation_angle,
    rotation_vector,
    rpy_to_matrix,
)
from instructvla_ros.control.state import STATE_NAMES, JointStateReader, state_of, state_vector

NAMES = [*kinematics.JOINT_NAMES, "gripper", "left_finger", "right_finger"]


def homogeneous(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def about(axis: int, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    rotation = np.eye(3)
    rotation[i, i] = rotation[j, j] = c
    rotation[i, j], rotation[j, i] = -s, s
    return rotation


def test_roll_pitch_yaw_is_yaw_times_pitch_times_roll_and_back() -> None:
    rng = np.random.default_rng(0)
    for roll, pitch, yaw in rng.uniform(-1.5, 1.5, (200, 3)):
        expected = about(2, yaw) @ about(1, pitch) @ about(0, roll)
        np.testing.assert_allclose(rpy_to_matrix(roll, pitch, yaw), expected, atol=1e-12)
        np.testing.assert_allclose(matrix_to_rpy(expected), (roll, pitch, yaw), atol=1e-9)


def test_roll_pitch_yaw_at_the_gimbal_lock_still_gives_the_same_rotation() -> None:
    rotation = rpy_to_matrix(0.3, math.pi / 2, -0.4)
    np.testing.assert_allclose(rpy_to_matrix(*matrix_to_rpy(rotation)), rotation, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.7, 3.0, math.pi])
def test_the_rotation_vector_is_axis_times_angle(angle: float) -> None:
    axis = np.array([0.48, -0.6, 0.64])
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew
    vector = rotation_vector(rotation)
    assert np.linalg.norm(vector) == pytest.approx(angle, abs=1e-7)
    np.testing.assert_allclose(np.abs(vector), np.abs(axis * angle), atol=1e-6)
    assert rotation_angle(rotation, np.eye(3)) == pytest.approx(angle, abs=1e-7)


def test_the_delta_convention_equals_bridges_4x4_matrices() -> None:
    """Go to the measured point, turn, come back, then shift: pre-multiplied onto the previous target."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        target = homogeneous(rpy_to_matrix(*rng.uniform(-1, 1, 3)), rng.uniform(-0.3, 0.3, 3))
        measured, xyz, rpy = rng.uniform(-0.3, 0.3, 3), rng.uniform(-0.05, 0.05, 3), rng.uniform(-0.3, 0.3, 3)
        turn = homogeneous(about(2, rpy[2]) @ about(1, rpy[1]) @ about(0, rpy[0]), np.zeros(3))
        there, back = homogeneous(np.eye(3), measured + xyz), homogeneous(np.eye(3), -measured)
        expected = there @ turn @ back @ target
        rotation, position = apply_delta(target[:3, :3], target[:3, 3], measured, xyz, rpy)
        np.testing.assert_allclose(homogeneous(rotation, position), expected, atol=1e-12)


def test_pure_translations_do_not_depend_on_the_measured_position() -> None:
    target = np.array([0.2, 0.0, 0.1])
    _, a = apply_delta(np.eye(3), target, np.zeros(3), (0.01, 0.02, 0.03), (0.0, 0.0, 0.0))
    _, b = apply_delta(np.eye(3), target, np.ones(3), (0.01, 0.02, 0.03), (0.0, 0.0, 0.0))
    np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_allclose(a, [0.21, 0.02, 0.13], atol=1e-12)


def test_a_gripper_pointing_straight_down_has_zero_roll_pitch_and_yaw() -> None:
    rotation = R_DOWN
    answer = kinematics.inverse(rotation, np.array([0.3, 0.0, 0.15]), np.array([0, -0.5, 0.5, 0, 1.5, 0.0]))
    assert answer.solved
    state = state_vector(answer.q_rad, 0.026)
    np.testing.assert_allclose(state, [0.3, 0.0, 0.15, 0, 0, 0, 0, 0.5], atol=1e-6)
    assert state.dtype == np.float32


def test_yaw_of_the_gripper_is_yaw_of_the_state() -> None:
    rotation = rpy_to_matrix(0.0, 0.0, 0.6) @ R_DOWN
    answer = kinematics.inverse(rotation, np.array([0.3, 0.05, 0.1]), np.array([0, -0.5, 0.5, 0, 1.5, 0.0]))
    np.testing.assert_allclose(state_vector(answer.q_rad, 0.015)[3:6], [0, 0, 0.6], atol=1e-6)


def test_joint_states_are_read_by_name_in_any_order_with_extra_names() -> None:
    reader = JointStateReader()
    values = dict(zip(NAMES, (number / 10 for number in range(1, 10)), strict=True))
    shuffled = ["camera_tilt", *reversed(NAMES)]
    sample = reader.read(shuffled, [99.0, *[values[n] for n in reversed(NAMES)]], 1.0, 2.0)
    np.testing.assert_array_equal(sample.arm_rad, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (sample.finger_m, sample.stamp_s, sample.received_s) == (0.8, 1.0, 2.0)


def test_an_arm_without_a_gripper_needs_no_finger_and_its_opening_is_what_was_told_last() -> None:
    reader = JointStateReader(without_gripper(FR3))
    names, positions = FR3.joint_names, FR3.home_rad.tolist()
    openings = []
    for told in (None, 0.0, 0.5):
        reader.told_opening = reader.told_opening if told is None else told
        openings.append(float(state_of(reader.read(names, positions, 0.0, 0.0), FR3)[7]))
    assert openings == pytest.approx([1.0, 0.0, 0.5])


def test_a_joint_state_without_a_joint_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match="lacks elbow"):
        JointStateReader().read([n for n in NAMES if n != "elbow"], [0.0] * 8, 0.0, 0.0)


def test_a_joint_state_with_nan_names_the_joint() -> None:
    with pytest.raises(ValueError, match="nan for shoulder"):
        JointStateReader().read(NAMES, [0.0, math.nan, *[0.0] * 7], 0.0, 0.0)


def test_a_joint_state_with_fewer_positions_than_names_is_refused() -> None:
    with pytest.raises(ValueError, match="9 names but 3 positions"):
        JointStateReader().read(NAMES, [0.0] * 3, 0.0, 0.0)


def test_a_data_sets_state_moves_no_arm_and_is_eight_numbers() -> None:
    with pytest.raises(ValueError, match="joint state lacks"):
        JointStateReader().read(STATE_NAMES, [0.0] * 8, 0.0, 0.0)
    reader = JointStateReader(of_data_set=True)
    np.testing.assert_array_equal(state_of(reader.read(STATE_NAMES, [0.5] * 8, 0.0, 0.0)), np.full(8, 0.5))
    for wrong in ([0.5] * 7, [math.nan] * 8):
        with pytest.raises(ValueError, match="8 finite numbers"):
            reader.read(STATE_NAMES, wrong, 0.0, 0.0)
