"""The last check of every joint goal, and what the controller does with a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from instructvla_ros.control import WX250S, Mode, WidowXControllerConfig
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.gate import KeepOut, MotionGate, Passage
from instructvla_ros.control.pictures import FrozenPicture, is_black
from instructvla_ros.control.safety import SafetyConfig

READY_RAD = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])
TICK_S = 0.02
LONGEST_S = 0.2
FASTEST_RAD = 0.5 * np.pi * TICK_S  # half of pi rad/s for one tick


def gate(arm: ArmModel = WX250S, **changed: Any) -> MotionGate:
    return MotionGate(arm, replace(SafetyConfig(), **changed), TICK_S, LONGEST_S)


def passage(change_rad: float = 0.0, joint: int = 0, **changed: Any) -> Passage:
    goal = READY_RAD.copy()
    goal[joint] += change_rad
    return replace(Passage(goal, READY_RAD, READY_RAD, TICK_S, Mode.MOVING, True), **changed)


def test_f10_a_goal_may_move_at_half_the_joint_speed_and_no_faster() -> None:
    assert gate().check(passage(0.999 * FASTEST_RAD)).ok
    verdict = gate().check(passage(1.01 * FASTEST_RAD))
    assert (verdict.ok, verdict.fault_id) == (False, "F10") and "waist" in verdict.reason


def test_f10_a_goal_that_comes_very_late_moves_no_farther_for_it() -> None:
    far = FASTEST_RAD * LONGEST_S / TICK_S
    assert gate().check(passage(0.999 * far, elapsed_s=0.9)).ok
    assert gate().check(passage(1.01 * far, elapsed_s=0.9)).fault_id == "F10"


def test_f10_a_goal_beyond_a_joint_limit_is_refused_and_from_beyond_only_the_way_back_is_open() -> None:
    limit = WX250S.upper_rad[5]
    inside, beyond = READY_RAD.copy(), READY_RAD.copy()
    inside[5], beyond[5] = limit - 0.01, limit + 0.01
    out = gate().check(replace(passage(), goal_rad=beyond, previous_rad=inside))
    assert (out.ok, out.fault_id) == (False, "F10")
    assert gate().check(replace(passage(), goal_rad=inside, previous_rad=beyond)).ok


def test_f10_the_acceleration_of_an_arm_that_states_limits_is_bounded() -> None:
    arm = replace(WX250S, acceleration_rad_s2=np.full(6, 10.0))
    watched = gate(arm)
    assert watched.check(passage(0.19 * TICK_S)).ok  # from rest to 0.19 rad/s in 20 ms: 9.5 rad/s2
    verdict = gate(arm).check(passage(0.21 * TICK_S))
    assert (verdict.ok, verdict.fault_id) == (False, "F10") and "acceleration" in verdict.reason


def test_f10_an_arm_that_has_braked_by_itself_since_the_last_goal_was_not_made_to_jump() -> None:
    watched = gate(replace(WX250S, acceleration_rad_s2=np.full(6, 10.0)))
    moving = 0.15
    assert watched.check(passage(moving * TICK_S)).ok
    assert watched.check(passage(0.08 * moving, elapsed_s=0.14)).ok
    assert watched.check(passage(0.1 * moving * TICK_S)).ok


def test_f10_after_a_late_goal_the_next_may_not_speed_up_faster_for_it() -> None:
    watched = gate(replace(WX250S, acceleration_rad_s2=np.full(6, 10.0)))
    assert watched.check(passage(0.01, elapsed_s=0.9)).ok
    assert watched.check(passage(1.4 * TICK_S)).fault_id == "F10"


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.HOLD, Mode.HOMING])
def test_f10_a_goal_does_not_run_away_from_a_joint_that_does_not_follow(mode: Mode) -> None:
    ahead, step = np.zeros(6), np.zeros(6)
    ahead[5], step[5] = 0.49, 0.02
    at = replace(passage(), previous_rad=READY_RAD + ahead, mode=mode)
    verdict = gate().check(replace(at, goal_rad=at.previous_rad + step))
    assert (verdict.ok, verdict.fault_id) == (False, "F10")
    assert "wrist_rotate would be 0.51 rad ahead" in verdict.reason
    far = replace(at, previous_rad=READY_RAD + 2 * ahead)
    assert gate().check(replace(far, goal_rad=far.previous_rad - step)).ok, "the way back is open"


def test_f10_a_stopped_arm_may_still_brake_where_its_goal_is_far_ahead() -> None:
    ahead, step = np.zeros(6), np.zeros(6)
    ahead[5], step[5] = 0.5, 0.02
    at = replace(passage(), previous_rad=READY_RAD + ahead)
    watched = gate()
    watched.check(replace(at, goal_rad=at.previous_rad, previous_rad=at.previous_rad - step))
    assert watched.check(replace(at, goal_rad=at.previous_rad + 0.5 * step, mode=Mode.STOPPED)).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_f06_a_goal_that_is_not_finite_never_passes(value: float) -> None:
    for mode in Mode:
        verdict = gate().check(passage(value, mode=mode))
        assert (verdict.ok, verdict.fault_id) == (False, "F06")


@pytest.mark.parametrize("mode", [Mode.STOPPED, Mode.FAULT])
def test_f22_a_stopped_arm_may_stay_but_not_move(mode: Mode) -> None:
    assert gate().check(passage(mode=mode)).ok
    verdict = gate().check(passage(0.002, mode=mode))
    assert (verdict.ok, verdict.fault_id) == (False, "F22")


def test_f22_after_a_stop_the_first_goal_begins_at_the_measured_posture() -> None:
    far = replace(passage(anchored=False), measured_rad=READY_RAD + 0.2)
    assert gate().check(passage(anchored=False)).ok
    assert gate().check(far).fault_id == "F22"


def test_f08_goals_pass_no_lower_than_the_table_plane() -> None:
    lower = np.array([0.0, 0.01, 0.0, 0.0, 0.0, 0.0])
    watched, posture, verdict = gate(), READY_RAD, None
    while verdict is None or verdict.ok:
        posture = posture + lower
        before = posture - lower
        verdict = watched.check(replace(passage(), goal_rad=posture, previous_rad=before, measured_rad=before))
    assert verdict.fault_id == "F08" and "z" in verdict.reason
    assert WX250S.forward(posture)[1][2] < 0.0 <= WX250S.forward(posture - lower)[1][2]


def test_f08_from_below_the_table_plane_only_the_way_up_is_open() -> None:
    lower = np.array([0.0, 0.01, 0.0, 0.0, 0.0, 0.0])
    below = READY_RAD.copy()
    while WX250S.forward(below)[1][2] > -0.03:
        below = below + lower
    at = replace(passage(), previous_rad=below, measured_rad=below)
    up, down = (replace(at, goal_rad=below + s * lower) for s in (-1.0, 8.0))
    assert gate().check(up).ok
    assert gate().check(replace(down, elapsed_s=LONGEST_S)).fault_id == "F08"


def test_f08_goals_do_not_enter_a_keep_out_box_but_may_leave_it() -> None:
    tip = WX250S.forward(READY_RAD)[1]
    ahead = READY_RAD.copy()
    ahead[0] += 0.02
    middle = WX250S.forward(ahead)[1]
    box = (*(middle - 0.004), *(middle + 0.004))
    assert KeepOut(box).depth_m(tip) == 0.0 < KeepOut(box).depth_m(middle)
    entering = replace(passage(), goal_rad=ahead)
    assert gate().check(entering).ok
    assert gate(keep_out_m=box).check(entering).fault_id == "F08"
    assert gate(keep_out_m=box).check(replace(entering, goal_rad=READY_RAD, previous_rad=ahead)).ok


def test_a_keep_out_box_needs_six_numbers_and_one_without_volume_is_none() -> None:
    with pytest.raises(ValueError, match="six"):
        SafetyConfig(keep_out_m=(0.0,) * 5)
    assert KeepOut((0.0,) * 6).depth_m(np.zeros(3)) == 0.0


def test_f08_a_step_into_a_keep_out_box_is_refused_and_the_arm_holds(bench_factory: Callable[..., Any]) -> None:
    tip = WX250S.forward(READY_RAD)[1]
    box = (tip[0] + 0.02, tip[1] - 0.1, tip[2] - 0.1, tip[0] + 0.1, tip[1] + 0.1, tip[2] + 0.1)
    bench = bench_factory(WidowXControllerConfig(safety=SafetyConfig(keep_out_m=box)))
    bench.controller.on_instruction(1, bench.now_s)
    bench.tick()
    bench.chunk(xyz=(0.03, 0.0, 0.0))
    command = bench.tick()
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F08") and "keep-out" in command.reason
    bench.tick(40)
    assert np.ptp(bench.goals[-40:], axis=0).max() < 1e-9


def test_three_refused_goals_in_a_row_latch_a_fault_and_none_of_them_is_sent(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = bench.goals[-1]
    spoiled = np.full(6, np.nan)
    monkeypatch.setattr(bench.controller._interpolator, "goal", lambda now_s: spoiled)
    commands = [bench.tick() for _ in range(4)]
    assert [c.mode for c in commands] == [Mode.HOLD, Mode.HOLD, Mode.FAULT, Mode.FAULT]
    assert all(c.fault_id == "F06" and (c.joint_goal_rad == still).all() for c in commands)
    monkeypatch.undo()
    bench.controller.reset(bench.now_s)
    assert bench.tick(2).mode is Mode.HOLD


def test_something_outside_can_make_the_arm_hold_until_it_is_over(bench: Any) -> None:
    bench.chunk(xyz=(0.02, 0.0, 0.0))
    assert bench.tick(3).mode is Mode.MOVING
    bench.controller.hold_for("F14", "two commanders")
    command = bench.tick()
    assert (command.mode, command.reason, command.fault_id) == (Mode.HOLD, "two commanders", "F14")
    bench.tick(20)
    assert np.ptp(bench.goals[-20:], axis=0).max() < 1e-9
    bench.controller.hold_for("F14", "")
    bench.chunk(xyz=(0.02, 0.0, 0.0), seq=1)
    assert bench.tick(2).mode is Mode.MOVING


def test_f12_after_reanchoring_only_chunks_made_later_move_the_arm(bench: Any) -> None:
    bench.chunk(xyz=(0.02, 0.0, 0.0))
    bench.tick(3)
    before_s, measured_rad = bench.now_s, bench.q.copy()
    bench.controller.reanchor(bench.now_s)
    assert bench.controller.tick(bench.now_s + 0.001).joint_goal_rad is None
    command = bench.tick()
    np.testing.assert_allclose(command.joint_goal_rad, measured_rad, atol=1e-9)
    bench.chunk(xyz=(0.02, 0.0, 0.0), stamp_s=before_s - 0.1, seq=1)
    assert bench.tick(2).mode is Mode.HOLD
    bench.chunk(xyz=(0.02, 0.0, 0.0), seq=2)
    assert bench.tick(2).mode is Mode.MOVING


def test_f03_three_identical_pictures_after_a_motion_are_frozen_and_a_resting_arm_proves_nothing() -> None:
    picture = FrozenPicture(3, 0.05)
    picture.on_joints(READY_RAD, 0.0)
    for i in range(10):
        picture.on_picture(7, 0.1 * i)
    assert not picture.frozen
    picture.on_joints(READY_RAD + 0.06, 1.0)
    picture.on_picture(7, 0.99)  # taken before the motion
    for i in range(3):
        assert not picture.frozen
        picture.on_picture(7, 1.1 + 0.1 * i)
    assert picture.frozen
    picture.on_picture(8, 1.5)
    assert not picture.frozen


def test_f03_a_camera_that_repeats_its_picture_under_new_stamps_holds_the_arm(bench: Any) -> None:
    bench.feed_images = False

    def run(digest: Callable[[int], int]) -> Any:
        for i in range(40):
            bench.controller.on_image(bench.now_s, bench.now_s, digest(i))
            bench.chunk(xyz=(0.0, 0.02, 0.0), seq=int(bench.now_s * 1000))
            command = bench.tick()
        return command

    assert run(lambda i: i).mode is Mode.MOVING
    command = run(lambda i: -1)
    assert (command.mode, command.fault_id) == (Mode.HOLD, "F03") and "picture" in command.reason
    assert run(lambda i: i).mode is Mode.MOVING


def test_f03_a_picture_without_light_is_black_and_a_dim_one_is_not() -> None:
    dark = np.random.default_rng(0).integers(0, 8, (64, 80, 3), dtype=np.uint8)
    assert is_black(dark)
    dark[32:40, 32:40] = 30
    assert not is_black(dark)
