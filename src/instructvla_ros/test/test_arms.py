"""Every arm that the package knows, the neutral outputs made from it, and what its model refuses."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from instructvla_ros.cli.bench_ik import measure
from instructvla_ros.control import FR3, ArmModel, JointSample
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.control.rotations import R_DOWN, matrix_to_quaternion, rotation_angle, rpy_to_matrix
from instructvla_ros.control.state import JointStateReader, state_vector
from instructvla_ros.control.trajectory import stream_points
from instructvla_ros.robots import arms

ARMS = pytest.mark.parametrize("arm", arms().values(), ids=arms().keys())


@ARMS
def test_an_arm_has_one_limit_for_each_joint_and_a_home_within_them(arm: ArmModel) -> None:
    assert len(arm.lower_rad) == len(arm.upper_rad) == len(arm.velocity_rad_s) == arm.joints
    assert (arm.lower_rad < arm.upper_rad).all() and (arm.velocity_rad_s > 0).all()
    with pytest.raises(ValueError, match="read-only"):
        arm.home_rad[0] = 1.0


@ARMS
def test_small_motions_from_home_are_solved(arm: ArmModel) -> None:
    home = np.clip(arm.home_rad + 0.2, arm.lower_rad, arm.upper_rad)
    rotation, position = arm.forward(home)
    answer = arm.inverse(rotation, position + [0.0, 0.01, -0.01], home, damped_iterations=20)
    assert answer.solved and np.abs(answer.q_rad - home).max() < 0.3


@pytest.mark.parametrize("name", ["fr3", "panda", "ur5e"])
def test_at_home_a_downward_gripper_has_no_roll_pitch_and_yaw(name: str) -> None:
    arm = arms()[name]
    assert rotation_angle(arm.forward(arm.home_rad)[0], R_DOWN) < 1e-9
    np.testing.assert_allclose(state_vector(arm.home_rad, arm.fingers.open_m, arm)[3:], [0, 0, 0, 0, 1], atol=1e-6)


@ARMS
def test_joint_states_are_read_by_name_in_any_order(arm: ArmModel) -> None:
    names = [arm.fingers.joint, "something_else", *reversed(arm.joint_names)]
    sample = JointStateReader(arm).read(names, [0.01, 9.0, *reversed(arm.home_rad)], 1.0, 2.0)
    assert isinstance(sample, JointSample)
    np.testing.assert_array_equal(sample.arm_rad, arm.home_rad)
    assert sample.finger_m == 0.01


def test_an_arm_whose_home_lies_outside_its_limits_is_refused() -> None:
    with pytest.raises(ValueError, match="outside its joint limits"):
        dataclasses.replace(FR3, home_rad=np.full(7, 3.0))


def test_an_arm_with_an_array_of_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(FR3, velocity_rad_s=np.ones(6))


def test_the_bench_of_the_kinematics_reports_what_it_measured() -> None:
    report = measure(FR3, 30, near=False)
    assert report.solved == 1.0
    assert report.position_mm < 0.1 and report.rotation_deg < 0.1
    assert "fr3" in report.line() and "100.00 %" in report.line()


# What is published.


def test_a_streamed_trajectory_passes_the_goal_and_ends_at_rest_with_constant_deceleration() -> None:
    goal, velocity = np.array([0.1, -0.2]), np.array([0.4, -0.1])
    passing, stop = stream_points(goal, velocity, TrackerConfig(lead_s=0.04, brake_s=0.2))
    assert (passing.time_s, stop.time_s) == pytest.approx((0.04, 0.24))
    np.testing.assert_array_equal(passing.velocities_rad_s, velocity)
    np.testing.assert_array_equal(stop.velocities_rad_s, np.zeros(2))
    np.testing.assert_allclose(stop.positions_rad - goal, 0.5 * 0.2 * velocity)


def test_a_streamed_trajectory_brakes_no_joint_harder_than_the_arms_acceleration_limit() -> None:
    limits = FR3.acceleration_rad_s2
    assert limits is not None
    velocity = 0.3 * FR3.velocity_rad_s  # as fast as the default allows: 1.6 rad/s at the wrist
    passing, stop = stream_points(FR3.home_rad, velocity, TrackerConfig(), limits)
    brake_s = stop.time_s - passing.time_s
    assert (np.abs(velocity) / brake_s <= limits * (1.0 + 1e-9)).all() and brake_s > 0.15
    np.testing.assert_allclose(stop.positions_rad - FR3.home_rad, 0.5 * brake_s * velocity)
    slow = stream_points(FR3.home_rad, 0.1 * velocity, TrackerConfig(), limits)[1]
    assert slow.time_s == pytest.approx(0.12), "brake_s suffices"


@pytest.mark.parametrize("rpy", [(0.0, 0.0, 0.0), (0.3, -0.2, 1.0), (math.pi, 0.0, 0.0), (0.1, 1.5, -3.0)])
def test_a_quaternion_is_of_unit_length_and_turns_as_its_matrix(rpy: tuple[float, float, float]) -> None:
    rotation = rpy_to_matrix(*rpy)
    x, y, z, w = matrix_to_quaternion(rotation)
    assert x * x + y * y + z * z + w * w == pytest.approx(1.0)
    vector, axis = np.array([0.3, -0.5, 0.7]), np.array([x, y, z])
    turned = vector + 2 * w * np.cross(axis, vector) + 2 * np.cross(axis, np.cross(axis, vector))
    np.testing.assert_allclose(turned, rotation @ vector, atol=1e-9)


class TestRoutes:
    """Pure parts of the routes; they import the messages of ROS."""

    @pytest.fixture(autouse=True)
    def routes(self) -> None:
        pytest.importorskip("rclpy")
        from instructvla_ros.nodes import routes

        self.routes = routes

    def test_a_pose_is_told_in_the_vendors_frame(self) -> None:
        rotation, position = self.routes.command_pose(FR3, FR3.home_rad)
        np.testing.assert_allclose(rotation, np.diag([1.0, -1.0, -1.0]), atol=1e-12)
        np.testing.assert_allclose(position, FR3.forward(FR3.home_rad)[1])

    def test_the_flange_lies_behind_the_tcp_and_is_turned_by_the_hands_eighth(self) -> None:
        franka = pytest.importorskip("instructvla_ros.nodes.franka_driver")
        rotation, position = self.routes.command_pose(FR3, FR3.home_rad, franka.OFFSETS["link8"])
        np.testing.assert_allclose(position - FR3.forward(FR3.home_rad)[1], [0.0, 0.0, 0.1034], atol=1e-12)
        assert rotation_angle(rotation, np.diag([1.0, -1.0, -1.0])) == pytest.approx(math.pi / 4)

    def test_a_twist_leads_towards_the_goal_and_is_limited(self) -> None:
        config = self.routes.TwistConfig(gain_per_s=4.0, max_linear_m_s=0.3)
        rotation, position = FR3.forward(FR3.home_rad)
        near = FR3.inverse(rotation, position + [0.01, 0.0, 0.0], FR3.home_rad).q_rad
        linear, angular = self.routes.twist_towards(FR3, FR3.home_rad, near, config)
        np.testing.assert_allclose(linear, [0.04, 0.0, 0.0], atol=1e-6)
        np.testing.assert_allclose(angular, 0.0, atol=1e-6)
        far = FR3.inverse(rotation, position + [0.2, 0.0, 0.0], FR3.home_rad).q_rad
        assert np.linalg.norm(self.routes.twist_towards(FR3, FR3.home_rad, far, config)[0]) == pytest.approx(0.3)

    def test_a_unitless_twist_is_divided_by_servos_scales(self) -> None:
        config = self.routes.TwistConfig(unitless=True, linear_scale_m_s=0.4)
        rotation, position = FR3.forward(FR3.home_rad)
        near = FR3.inverse(rotation, position + [0.01, 0.0, 0.0], FR3.home_rad).q_rad
        assert self.routes.twist_towards(FR3, FR3.home_rad, near, config)[0][0] == pytest.approx(0.1, abs=1e-6)
