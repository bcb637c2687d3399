"""The whole controller on a fake clock, with an arm that follows by a lag."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from instructvla_ros.control import WX250S, Mode, WidowXControllerConfig, kinematics
from instructvla_ros.control.rotations import rotation_angle, rpy_to_matrix
from instructvla_ros.control.safety import SafetyConfig, Verdict

LIMIT_RAD_PER_TICK = 0.5 * math.pi * 0.02


def test_without_a_joint_state_nothing_is_sent(bench_factory: Callable) -> None:
    bench = bench_factory()
    bench.feed_joints = False
    command = bench.tick()
    assert command.joint_goal_rad is None and command.gripper_pwm is None
    assert (command.mode, command.fault_id) == (Mode.WAITING, "")
    assert bench.tick(6).fault_id == "F05"


def test_the_first_goal_is_the_measured_posture(bench_factory: Callable) -> None:
    bench = bench_factory()
    start = bench.q.copy()
    command = bench.tick()
    np.testing.assert_allclose(command.joint_goal_rad, start)
    assert command.mode is Mode.HOLD and "no action chunk" in command.reason


def test_a_translation_chunk_moves_the_end_effector_by_the_sum_of_its_steps(bench) -> None:
    start = kinematics.forward(bench.q)[1]
    bench.chunk(steps=5, xyz=(0.01, -0.005, 0.004))
    assert bench.tick(5).mode is Mode.MOVING
    command = bench.tick(70)
    np.testing.assert_allclose(kinematics.forward(bench.q)[1], start + 5 * np.array([0.01, -0.005, 0.004]), atol=1e-4)
    assert command.mode is Mode.HOLD and command.fault_id == "F11"


def test_a_rotation_chunk_turns_the_gripper_and_leaves_its_position(bench) -> None:
    rotation, position = kinematics.forward(bench.q)
    bench.chunk(steps=3, rpy=(0.0, 0.0, 0.1))
    bench.tick(60)
    reached_rotation, reached_position = kinematics.forward(bench.q)
    assert rotation_angle(reached_rotation, rpy_to_matrix(0, 0, 0.3) @ rotation) < 1e-3
    assert np.linalg.norm(reached_position - position) < 1e-3


def test_each_executed_step_is_reported_once_with_its_chunk_and_number(bench) -> None:
    bench.chunk(steps=3, seq=7, xyz=(0.005, 0, 0))
    steps = [command.step for command in (bench.tick() for _ in range(40)) if command.step is not None]
    assert [(s.chunk_seq, s.step, s.instruction_id) for s in steps] == [(7, 0, 1), (7, 1, 1), (7, 2, 1)]
    np.testing.assert_allclose(np.diff([s.began_s for s in steps]), 0.2)


def test_joint_goals_never_exceed_half_the_velocity_limit(bench) -> None:
    rng = np.random.default_rng(0)
    for seq in range(40):
        xyz, rpy = rng.uniform(-0.05, 0.05, 3), rng.uniform(-0.25, 0.25, 3)
        bench.chunk(seq=seq, xyz=tuple(xyz), rpy=tuple(rpy), gripper=rng.random())
        bench.tick(10)
    goals = np.array(bench.goals)
    assert np.abs(np.diff(goals, axis=0)).max() <= LIMIT_RAD_PER_TICK + 1e-9
    assert (goals > kinematics.JOINT_LOWER_RAD).all() and (goals < kinematics.JOINT_UPPER_RAD).all()
    assert np.abs(np.diff(goals, axis=0)).max() > 0.005  # it did move


def test_f01_a_stopped_camera_holds_and_a_fresh_one_resumes(bench) -> None:
    bench.chunk(steps=30, xyz=(0.002, 0, 0))
    bench.tick(5)
    bench.feed_images = False
    commands = [bench.tick() for _ in range(40)]
    first = next(i for i, c in enumerate(commands) if c.mode is Mode.HOLD)
    assert 24 <= first <= 26  # 0.5 s at 50 Hz
    assert commands[first].fault_id == "F01" and "camera" in commands[first].reason
    np.testing.assert_array_equal(commands[first].joint_goal_rad, commands[-1].joint_goal_rad)
    bench.feed_images = True
    assert bench.tick(2).mode is Mode.MOVING


@pytest.mark.parametrize("seen", [True, False])
def test_f01_after_five_seconds_without_an_image_the_instruction_is_over_and_a_camera_that_comes_back_moves_nothing(
    bench_factory: Callable, seen: bool
) -> None:
    bench = bench_factory()
    bench.feed_images = seen
    bench.controller.on_instruction(1, bench.now_s)
    bench.tick(2)
    bench.feed_images = False
    commands = [bench.tick() for _ in range(260)]
    faults = [command.mode is Mode.FAULT for command in commands]
    assert 248 <= faults.index(True) <= 252 and all(faults[252:])
    assert commands[-1].fault_id == "F01" and "reset" in commands[-1].reason
    assert (commands[-1].joint_goal_rad == commands[200].joint_goal_rad).all(), "it holds"
    bench.feed_images = True
    bench.chunk(xyz=(0.01, 0, 0))
    assert bench.tick(5).mode is Mode.FAULT and not bench.controller.following
    bench.controller.reset(bench.now_s)
    bench.tick()
    bench.chunk(xyz=(0.01, 0, 0), seq=1)
    assert bench.tick().mode is Mode.HOLD, "the instruction is over"
    bench.chunk(xyz=(0.01, 0, 0), seq=2, instruction_id=2)
    assert bench.tick().mode is Mode.MOVING


def test_f01_an_arm_without_an_instruction_waits_for_its_camera_as_long_as_it_takes(bench) -> None:
    bench.controller.on_instruction(2, bench.now_s, ended=True)
    bench.feed_images = False
    command = bench.tick(600)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F01")
    bench.feed_images = True
    assert bench.tick().fault_id == ""


def test_f03_a_frozen_image_stamp_counts_as_a_stopped_camera(bench) -> None:
    bench.chunk(steps=30, xyz=(0.002, 0, 0))
    bench.feed_images = False
    bench.controller.on_image(3.0, bench.now_s)
    for _ in range(30):
        bench.controller.on_image(3.0, bench.now_s)
        command = bench.tick()
    assert command.fault_id == "F01"


@pytest.mark.parametrize("spoil", [{"elbow": math.nan}, {"wrist_angle": math.inf}, {"shoulder": -math.pi}])
def test_f05_a_joint_state_that_is_not_finite_or_impossible_holds_at_once(bench, spoil: dict[str, float]) -> None:
    bench.chunk(xyz=(0.01, 0, 0))
    bench.tick(3)
    bench.feed_joints = False
    bench.joint_state(**spoil)
    command = bench.tick()
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F05")
    assert np.isfinite(command.joint_goal_rad).all()
    assert next(iter(spoil)) in command.reason


def test_f05_missing_joint_states_hold_after_a_tenth_of_a_second(bench) -> None:
    bench.chunk(xyz=(0.01, 0, 0))
    bench.tick(3)
    bench.feed_joints = False
    modes = [bench.tick().mode for _ in range(8)]
    assert modes[:5] == [Mode.MOVING] * 5
    assert modes[5:] == [Mode.HOLD] * 3


def test_f06_one_nan_chunk_is_dropped_and_three_in_a_row_latch_a_fault(bench) -> None:
    bench.chunk(xyz=(math.nan, 0, 0))
    assert bench.tick().mode is Mode.HOLD
    bench.chunk(seq=1, xyz=(0.01, 0, 0))
    assert bench.tick().mode is Mode.MOVING
    for seq in (2, 3, 4):
        bench.chunk(seq=seq, xyz=(math.nan, 0, 0))
    command = bench.tick()
    assert (command.mode, command.fault_id) == (Mode.FAULT, "F06")
    bench.chunk(seq=5, xyz=(0.01, 0, 0))
    assert bench.tick().mode is Mode.FAULT
    bench.controller.reset(bench.now_s)
    bench.tick(2)
    bench.chunk(seq=6, xyz=(0.01, 0, 0), instruction_id=2)
    assert bench.tick().mode is Mode.MOVING
    assert bench.controller.counts["F06"] == 4


def test_f08_the_target_never_goes_below_the_margin_above_the_table(bench) -> None:
    lowest = []
    for seq in range(12):
        bench.chunk(seq=seq, xyz=(0.0, 0.0, -0.05))
        bench.tick(10)
        lowest.append(bench.controller.target[1][2])
    assert min(lowest) == pytest.approx(0.01, abs=1e-6)
    assert bench.controller.counts["F08"] > 0


def test_f09_a_target_out_of_reach_leaves_the_joints_where_they_are(bench_factory: Callable) -> None:
    config = WidowXControllerConfig(safety=SafetyConfig(workspace_upper_m=(2.0, 2.0, 2.0)))
    bench = bench_factory(config, np.array([0.0, 0.4, -0.3, 0.0, 0.1, 0.0]))
    bench.controller.on_instruction(1, bench.now_s)
    bench.tick()
    for seq in range(20):
        bench.chunk(seq=seq, xyz=(0.05, 0.0, 0.0))
        command = bench.tick(10)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F09")
    np.testing.assert_array_equal(bench.goals[-1], bench.goals[-8])


def test_f10_a_blocked_arm_does_not_wind_up_the_target(bench) -> None:
    frozen = bench.q.copy()
    measured = kinematics.forward(frozen)[1]
    for seq in range(20):
        bench.chunk(seq=seq, xyz=(0.02, 0.0, 0.0))
        for _ in range(10):
            bench.q = frozen.copy()
            command = bench.tick()
    assert np.linalg.norm(bench.controller.target[1] - measured) <= 0.12 + 1e-9
    assert "blocked" in command.reason


def test_f16_a_clock_that_jumps_drops_chunks_and_anchors_anew(bench) -> None:
    bench.chunk(xyz=(0.01, 0, 0))
    bench.tick(5)
    bench.now_s -= 5.0
    command = bench.tick()
    assert command.mode is not Mode.MOVING
    np.testing.assert_allclose(command.joint_goal_rad, bench.q, atol=0.02)
    assert bench.controller.counts["F16"] == 1
    bench.chunk(seq=0, xyz=(0.01, 0, 0))
    assert bench.tick().mode is Mode.MOVING


def test_f20_a_new_instruction_drops_the_old_motion_within_one_tick(bench) -> None:
    bench.chunk(xyz=(0.04, 0, 0))
    bench.tick(3)
    bench.controller.on_instruction(2, bench.now_s)
    first = bench.tick()
    second = bench.tick()
    assert first.mode is Mode.HOLD
    np.testing.assert_array_equal(first.joint_goal_rad, second.joint_goal_rad)
    bench.chunk(seq=1, xyz=(0.04, 0, 0), instruction_id=1)
    assert bench.tick().mode is Mode.HOLD
    bench.chunk(seq=0, xyz=(0.04, 0, 0), instruction_id=2)
    assert bench.tick().mode is Mode.MOVING


def test_an_instruction_that_is_ended_holds_at_once_and_a_later_one_moves_without_a_reset(bench) -> None:
    bench.chunk()
    bench.tick(10)
    bench.controller.on_instruction(2, bench.now_s, ended=True)
    assert not bench.controller.following
    bench.chunk(instruction_id=2)
    assert bench.tick(20).mode is Mode.HOLD
    assert np.ptp(bench.goals[-20:], axis=0).max() < 1e-9
    bench.controller.on_instruction(3, bench.now_s)
    bench.chunk(instruction_id=3)
    assert bench.tick(2).mode is Mode.MOVING


def test_f22_stop_latches_whatever_arrives_and_reset_anchors_at_the_measured_pose(bench) -> None:
    bench.chunk(xyz=(0.03, 0, 0))
    bench.tick(4)
    bench.controller.stop("operator pressed stop")
    held = bench.tick()
    for seq in range(1, 10):
        bench.chunk(seq=seq, xyz=(0.03, 0, 0), instruction_id=1)
        command = bench.tick(5)
        assert (command.mode, command.reason) == (Mode.STOPPED, "operator pressed stop")
        np.testing.assert_array_equal(command.joint_goal_rad, held.joint_goal_rad)
    moved_by_hand = bench.q + 0.1
    bench.q = moved_by_hand.copy()
    bench.controller.reset(bench.now_s)
    bench.feed_joints = False
    assert bench.controller.tick(bench.now_s).joint_goal_rad is None  # not before a fresh joint state
    bench.feed_joints = True
    np.testing.assert_allclose(bench.tick().joint_goal_rad, moved_by_hand)
    np.testing.assert_allclose(bench.controller.target[1], kinematics.forward(moved_by_hand)[1], atol=1e-9)
    bench.chunk(seq=20, xyz=(0.01, 0, 0), instruction_id=1)
    command = bench.tick()  # the stop has ended instruction 1
    assert command.mode is Mode.HOLD and "give a new one" in command.reason
    bench.chunk(seq=21, xyz=(0.01, 0, 0), instruction_id=2)
    assert bench.tick().mode is Mode.MOVING


def test_f22_an_instruction_heard_while_stopped_moves_nothing_after_the_reset(bench) -> None:
    bench.chunk(xyz=(0.03, 0, 0))
    bench.tick(4)
    bench.controller.stop("operator pressed stop")
    bench.controller.on_instruction(2, bench.now_s)  # it was on its way when the stop came
    bench.controller.reset(bench.now_s)
    bench.tick()
    assert not bench.controller.following
    bench.chunk(seq=20, xyz=(0.01, 0, 0), instruction_id=2)
    assert bench.tick().mode is Mode.HOLD
    bench.chunk(seq=21, xyz=(0.01, 0, 0), instruction_id=3)
    assert bench.tick().mode is Mode.MOVING


def test_f22_a_closing_gripper_stops_with_the_arm_although_a_new_instruction_has_just_come(bench) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick(2).gripper_pwm == -350
    bench.finger_m = 0.030
    bench.controller.on_instruction(2, bench.now_s)
    bench.controller.stop("operator pressed stop")
    assert abs(bench.tick().gripper_pwm) < 1.0
    bench.finger_m = 0.031  # pushed by hand: it goes back to where it was stopped
    assert -350 < bench.tick().gripper_pwm < 0


def test_an_activation_ends_what_was_asked_for_before(bench) -> None:
    bench.chunk(xyz=(0.01, 0, 0))
    assert bench.tick().mode is Mode.MOVING
    bench.controller.reset(bench.now_s)
    bench.controller.end_instructions(3)  # instructions were given meanwhile
    bench.tick()
    for seq, number in enumerate((1, 3), 20):
        bench.chunk(seq=seq, xyz=(0.01, 0, 0), instruction_id=number)
        assert bench.tick().mode is Mode.HOLD and not bench.controller.following
    bench.chunk(seq=30, xyz=(0.01, 0, 0), instruction_id=4)
    assert bench.tick().mode is Mode.MOVING


def test_f05_joint_states_that_repeat_themselves_are_no_news(bench) -> None:
    bench.feed_joints = False
    values = dict(zip(WX250S.joint_names, bench.q, strict=True)) | {"left_finger": 0.037}
    stamp_s = bench.now_s
    for age_s in (0.0, 0.5):  # the same one again, and older ones
        for _ in range(10):
            bench.controller.on_joint_state(
                list(values), list(values.values()), None, stamp_s - age_s, bench.now_s
            )
            command = bench.tick()
        assert (command.mode, command.fault_id) == (Mode.HOLD, "F05")
    bench.feed_joints = True
    assert bench.tick().fault_id == ""


def test_f16_joint_states_of_a_clock_that_was_set_back_are_taken(bench) -> None:
    bench.now_s -= 3600.0
    bench.tick()  # the jump
    bench.controller.reset(bench.now_s + 3600.0)  # given before this clock was set back
    bench.tick(2)
    bench.chunk(seq=20, xyz=(0.01, 0, 0))
    assert bench.tick().mode is Mode.MOVING


def test_f22_a_reset_anchors_where_the_arm_is_not_where_it_was(bench) -> None:
    bench.controller.stop("operator pressed stop")
    bench.tick()
    old, before_s = bench.q.copy(), bench.now_s
    bench.feed_joints = False
    bench.tick(50)
    bench.q = old + 0.3
    bench.controller.reset(bench.now_s)
    values = dict(zip(WX250S.joint_names, old, strict=True)) | {"left_finger": 0.037}
    bench.controller.on_joint_state(list(values), list(values.values()), None, before_s, bench.now_s)
    command = bench.tick()
    assert command.joint_goal_rad is None and "1.00 s before the reset" in command.reason
    bench.feed_joints = True
    np.testing.assert_allclose(bench.tick().joint_goal_rad, bench.q)


def test_f19_chunks_that_cannot_be_read_count_as_bad_ones(bench) -> None:
    for _ in range(3):
        bench.controller.on_bad_chunk(Verdict(False, "F19", "5 steps of 3 numbers"))
    command = bench.tick()
    assert (command.mode, command.fault_id) == (Mode.FAULT, "F19") and "5 steps of 3 numbers" in command.reason


def test_f10_on_the_way_home_an_arm_that_does_not_follow_is_not_left_behind(bench) -> None:
    bench.chunk()
    start = bench.q.copy()
    assert bench.controller.go_to(start + np.array([1.5, 0, 0, 0, 0, 0]), bench.now_s) == ""
    worst, reasons = 0.0, set()
    for _ in range(300):
        bench.q = start.copy()  # without power
        command = bench.tick()
        reasons.add(command.reason)
        worst = max(worst, float(np.max(np.abs(command.joint_goal_rad - start))))
    assert worst <= 0.5 + 1e-9
    assert any("without power" in reason for reason in reasons)


def test_the_gripper_closes_when_the_policy_says_so_and_stays_when_stopped(bench) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick().gripper_pwm == -350.0
    bench.finger_m = 0.026
    assert bench.tick(30).gripper_pwm == -200.0
    bench.controller.stop("stop")
    assert bench.tick().gripper_pwm == -200.0
    assert bench.controller.resting_pwm == -200.0


def test_after_a_hold_the_target_starts_again_from_the_held_goal(bench) -> None:
    bench.chunk(steps=30, xyz=(0.02, 0, 0))
    bench.tick(3)
    bench.feed_joints = False
    bench.tick(10)
    held = bench.goals[-1]
    np.testing.assert_allclose(bench.controller.target[1], kinematics.forward(held)[1], atol=1e-9)


def test_the_measured_state_is_none_before_the_first_joint_state_and_then_8_numbers(
    bench_factory: Callable,
) -> None:
    bench = bench_factory()
    assert bench.controller.measured_state() is None and bench.controller.target is None
    bench.tick()
    state = bench.controller.measured_state()
    assert state.shape == (8,) and state.dtype == np.float32
    np.testing.assert_allclose(state[:3], kinematics.forward(bench.q)[1], atol=1e-6)
    assert state[7] == 1.0


def test_the_control_package_imports_neither_rclpy_nor_torch() -> None:
    code = "import sys, instructvla_ros.control; sys.exit(any(m in sys.modules for m in ('rclpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def fall(bench) -> list:
    """It falls by 0.65 rad, and has no torque to follow with; the commands of a second."""
    fallen, commands = bench.goals[0] + [0.0, 0.65, 0.0, 0.0, 0.0, 0.0], []
    for _ in range(50):
        bench.q = fallen.copy()
        commands.append(bench.tick())
    bench.q = fallen
    return commands


def test_f10_an_arm_that_lost_its_torque_is_not_thrown_back_to_its_goal(bench) -> None:
    bench.tick(3)
    command = fall(bench)[-1]
    np.testing.assert_allclose(command.joint_goal_rad, bench.q)
    assert command.mode is Mode.HOLD and bench.controller.counts["F10"] == 1


@pytest.mark.parametrize("fault_id", ["F22", "F24"])
def test_f10_a_stopped_arm_that_was_moved_far_gets_no_goal_before_the_reset(bench, fault_id: str) -> None:
    bench.controller.stop("pressed, or a servo's fault", fault_id)
    held = bench.tick().joint_goal_rad
    commands = fall(bench)
    assert all(c.joint_goal_rad is None or (c.joint_goal_rad == held).all() for c in commands)
    assert commands[-1].joint_goal_rad is None and commands[-1].mode is Mode.STOPPED
    assert bench.controller.counts["F10"] == 1
    bench.controller.reset(bench.now_s)
    np.testing.assert_allclose(bench.tick().joint_goal_rad, bench.q)


def test_f05_one_wrong_joint_state_moves_no_goal(bench) -> None:
    before = bench.tick().joint_goal_rad
    bench.joint_state(shoulder=before[1] + 1.5)
    bench.feed_joints = False
    np.testing.assert_array_equal(bench.tick(20).joint_goal_rad, before)


@pytest.mark.parametrize("anew", ["reset", "reanchor"])
def test_f12_what_is_held_stays_held_when_the_target_is_anchored_anew(bench, anew: str) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick(30).gripper_pwm == -200.0
    getattr(bench.controller, anew)(bench.now_s)
    assert bench.tick(5).gripper_pwm == -200.0
    bench.controller.on_instruction(2, bench.now_s)
    bench.chunk(gripper=1.0, instruction_id=2)
    assert bench.tick().gripper_pwm >= 0.0
