"""The arm behaves as the Interbotix driver with a wx250s behind it."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim import World
from instructvla_sim.arm_types import JOINT_NAMES, finger_to_horn_rad


def _q(world: World) -> np.ndarray:
    return np.array(world.arm.joint_state().positions[:6])


def test_joint_state_has_the_driver_order_and_signed_fingers(world: World) -> None:
    state = world.arm.joint_state()
    assert state.names == (
        "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate",
        "gripper", "left_finger", "right_finger",
    )  # fmt: skip
    assert len(state.positions) == len(state.velocities) == len(state.efforts) == 9
    assert state.positions[7] == pytest.approx(-state.positions[8], abs=1e-4)
    assert state.positions[6] == pytest.approx(finger_to_horn_rad(state.positions[7]))


def test_default_profile_takes_two_seconds(world: World) -> None:
    start = _q(world)
    goal = start + np.array([0.4, 0, 0, 0, 0, 0])
    world.arm.command_group("arm", goal)
    world.step(1.0)
    assert abs(_q(world)[0] - (start[0] + 0.2)) < 0.03
    world.step(1.2)
    assert _q(world) == pytest.approx(goal, abs=0.01)


def test_policy_profile_follows_within_300_ms(world: World) -> None:
    world.arm.set_operating_modes("group", "arm", "position", "time", 250, 100)
    goal = _q(world) + 0.15
    world.arm.command_group("arm", goal)
    world.step(0.35)
    assert _q(world) == pytest.approx(goal, abs=0.01)


def test_out_of_range_goal_is_refused_silently_by_that_servo_only(world: World) -> None:
    world.arm.set_registers("group", "arm", "Profile_Velocity", 200)
    start = _q(world)
    goal = start.copy()
    goal[0] += 0.1
    goal[1] = 2.5
    assert world.arm.command_group("arm", goal)
    world.step(0.6)
    assert _q(world)[0] == pytest.approx(goal[0], abs=0.01)
    assert _q(world)[1] == pytest.approx(start[1], abs=0.01)
    assert world.arm.refused_goals == 1


def test_nan_goal_moves_nothing(world: World) -> None:
    start = _q(world)
    world.arm.command_group("arm", [float("nan")] * 6)
    world.arm.command_single("gripper", float("nan"))
    world.step(0.5)
    assert _q(world) == pytest.approx(start, abs=1e-3)


def test_wrong_length_and_unknown_group_are_ignored(world: World) -> None:
    assert not world.arm.command_group("arm", [0.0] * 5)
    assert not world.arm.command_group("leg", [0.0] * 6)
    assert not world.arm.command_single("knee", 0.0)


def test_single_joint_command_moves_only_that_joint(world: World) -> None:
    start = _q(world)
    world.arm.command_single("wrist_rotate", start[5] + 0.3)
    world.step(2.3)
    moved = _q(world) - start
    assert moved[5] == pytest.approx(0.3, abs=0.01)
    assert np.abs(moved[:5]).max() < 0.01


def test_torque_off_lets_the_arm_droop_and_torque_on_holds_it_there(world: World) -> None:
    start = _q(world)
    world.arm.torque_enable("group", "arm", False)
    world.step(0.4)
    fallen = _q(world)
    assert np.abs(fallen - start).max() > 0.05
    world.arm.torque_enable("group", "arm", True)
    world.step(0.3)
    at = _q(world)
    world.step(0.5)
    assert _q(world) == pytest.approx(at, abs=0.02)


def test_commands_without_torque_do_nothing_until_a_new_goal(world: World) -> None:
    world.arm.torque_enable("single", "wrist_rotate", False)
    before = _q(world)[5]
    world.arm.command_single("wrist_rotate", before + 0.5)
    world.step(2.5)
    assert abs(_q(world)[5] - before) < 0.2


def test_positive_pwm_opens_negative_closes_and_force_follows_pwm(world: World) -> None:
    world.arm.command_single("gripper", -350)
    world.step(0.8)
    assert world.arm.finger_m == pytest.approx(0.015, abs=5e-4)
    world.arm.command_single("gripper", 175)
    world.step(0.1)
    slow = world.arm.finger_m
    world.arm.command_single("gripper", -350)
    world.step(0.8)
    world.arm.command_single("gripper", 350)
    world.step(0.1)
    assert world.arm.finger_m - 0.015 > 1.6 * (slow - 0.015) > 0
    world.step(0.8)
    assert world.arm.finger_m == pytest.approx(0.037, abs=5e-4)
    assert world.gripper_opening == pytest.approx(1.0, abs=0.03)


def test_hardware_error_drops_torque_until_reboot(world: World) -> None:
    world.arm.set_hardware_error("shoulder", 32)
    assert world.arm.get_registers("group", "arm", "Hardware_Error_Status") == (0, 32, 0, 0, 0, 0)
    start = _q(world)[1]
    world.step(0.4)
    assert abs(_q(world)[1] - start) > 0.02
    world.arm.torque_enable("single", "shoulder", True)
    assert world.arm.get_registers("single", "shoulder", "Torque_Enable") == (0,)
    world.arm.reboot("group", "arm", True, smart_reboot=True)
    assert world.arm.get_registers("single", "shoulder", "Torque_Enable") == (1,)
    assert world.arm.get_registers("single", "shoulder", "Hardware_Error_Status") == (0,)


def test_reset_clears_torque_and_errors_of_the_episode_before(world: World) -> None:
    world.arm.set_hardware_error("elbow", 32)
    world.reset(1)
    start = _q(world)
    world.step(0.5)
    assert _q(world) == pytest.approx(start, abs=1e-3)


def test_unknown_register_gives_an_empty_answer(world: World) -> None:
    assert world.arm.get_registers("group", "arm", "Moon_Phase") == ()
    world.arm.set_registers("group", "arm", "Position_P_Gain", 800)
    assert world.arm.get_registers("group", "arm", "Position_P_Gain") == (800,) * 6


@pytest.mark.parametrize(("mode", "profile"), [("telekinesis", "time"), ("position", "lunar")])
def test_unknown_mode_or_profile_is_an_error(world: World, mode: str, profile: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        world.arm.set_operating_modes("group", "arm", mode, profile)


def test_robot_info_names_joints_and_limits(world: World) -> None:
    info = world.arm.robot_info("group", "arm")
    assert info.num_joints == 6
    assert info.joint_names == JOINT_NAMES[:6]
    assert info.joint_state_indices == (0, 1, 2, 3, 4, 5)
    assert info.joint_lower_limits[1] == pytest.approx(np.radians(-108))
    assert info.mode == "position"
    assert world.arm.robot_info("single", "gripper").mode == "pwm"
    with pytest.raises(ValueError, match="expected 'group'"):
        world.arm.robot_info("group", "tail")


def test_velocity_mode_turns_at_the_asked_speed(world: World) -> None:
    world.arm.set_operating_modes("single", "waist", "velocity", "velocity", 0, 0)
    start = _q(world)[0]
    world.arm.command_single("waist", 0.3)
    world.step(1.0)
    assert 0.2 < _q(world)[0] - start < 0.4


def test_velocity_mode_ends_at_the_joints_limit(world: World) -> None:
    world.arm.set_operating_modes("single", "waist", "velocity", "velocity", 0, 0)
    world.arm.command_single("waist", -9.0)  # clipped to the servo's own speed
    world.step(3.0)
    assert _q(world)[0] == pytest.approx(-np.pi, abs=0.02)


def test_one_joint_in_velocity_mode_leaves_the_goals_of_the_others_alone(world: World) -> None:
    world.arm.set_operating_modes("single", "waist", "velocity", "velocity", 0, 0)
    start = _q(world)
    world.arm.command_single("waist", 0.2)
    world.arm.command_single("shoulder", start[1] + 0.3)
    world.step(2.3)
    moved = _q(world) - start
    assert moved[:2] == pytest.approx([0.46, 0.3], abs=0.02)
    assert np.abs(moved[2:]).max() < 0.01
    world.arm.command_single("waist", 0.0)
    world.step(0.2)
    stopped = _q(world)
    world.step(0.5)
    assert _q(world) == pytest.approx(stopped, abs=2e-3)


def test_a_mode_set_on_the_arm_leaves_the_gripper_pressing(world: World) -> None:
    world.arm.command_single("gripper", -200)
    world.arm.set_operating_modes("group", "arm", "position", "time", 250, 100)
    assert world.arm.pwm == -200
    world.arm.set_operating_modes("single", "gripper", "pwm")
    assert world.arm.pwm == 0.0


def test_a_mode_set_on_one_joint_stops_that_joint_alone(world: World) -> None:
    for joint in ("waist", "elbow"):
        world.arm.set_operating_modes("single", joint, "velocity", "velocity", 0, 0)
        world.arm.command_single(joint, 0.2)
    start = _q(world)
    world.arm.set_operating_modes("single", "waist", "position", "time", 250, 100)
    world.step(1.0)
    assert (_q(world) - start)[[0, 2]] == pytest.approx([0.0, 0.2], abs=0.02)


def test_torque_switched_on_one_joint_lets_the_others_reach_their_goals(world: World) -> None:
    world.arm.torque_enable("single", "wrist_rotate", False)
    start = _q(world)
    world.arm.command_single("shoulder", start[1] + 0.3)
    world.step(0.7)
    world.arm.torque_enable("single", "wrist_rotate", True)
    world.step(1.6)
    assert _q(world)[1] - start[1] == pytest.approx(0.3, abs=0.01)


def test_trajectory_is_played_and_a_second_one_is_refused_meanwhile(world: World) -> None:
    world.arm.set_operating_modes("group", "arm", "position", "time", 200, 50)
    start = _q(world)
    points = [start + 0.05, start + 0.10]
    assert world.arm.command_trajectory("group", "arm", [0.0, 0.5], points)
    assert not world.arm.command_trajectory("group", "arm", [0.0, 0.5], points)
    world.step(0.4)
    assert _q(world) == pytest.approx(points[0], abs=0.01)
    world.step(0.6)
    assert _q(world) == pytest.approx(points[1], abs=0.01)
    assert not world.arm.command_trajectory("group", "arm", [0.0], points[:1])


def test_a_second_motor_obeys_what_its_joints_first_one_is_told_and_fails_by_itself(world: World) -> None:
    arm, error = world.arm, "Hardware_Error_Status"
    assert len(arm.get_registers("group", "arm", error)) == 6, "no group has it"
    arm.set_registers("group", "arm", "Profile_Velocity", 250)
    assert arm.get_registers("single", "elbow_shadow", "Profile_Velocity") == (250,)
    arm.set_hardware_error("elbow_shadow", 32)
    assert arm.get_registers("group", "arm", error) == (0,) * 6
    assert arm.get_registers("single", "elbow_shadow", error) == (32,)
    arm.reboot("group", "arm", smart_reboot=True)
    assert arm.get_registers("single", "elbow_shadow", error) == (32,)
    arm.reboot("single", "elbow_shadow", smart_reboot=True)
    assert arm.get_registers("single", "elbow_shadow", error) == (0,)
    assert arm.get_registers("single", "elbow_shadow", "Torque_Enable") == (0,), "as the driver leaves it"
    arm.torque_enable("group", "arm", True)
    assert arm.get_registers("single", "elbow_shadow", "Torque_Enable") == (1,)
