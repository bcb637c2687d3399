"""Joint goals between policy steps, and the gripper's PWM loop."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_ros.control import WX250S, FrankaController, WidthArmConfig
from instructvla_ros.control.gripper import GripperConfig, GripperLoop, WidthConfig, WidthGripper
from instructvla_ros.control.interpolator import InterpolatorConfig, JointInterpolator, JointTracker, TrackerConfig
from instructvla_ros.control.trajectory import stream_points

FINGERS = WX250S.fingers
STARTED_RAD = 3.0 * 0.02**2 * (1 + 2) + 1e-9  # two periods from rest, which is the lead, at 3 rad/s2


def interpolator(ramp_s: float = 0.1, limit: float = 1.5) -> JointInterpolator:
    made = JointInterpolator(InterpolatorConfig(ramp_s), np.full(2, limit))
    made.jump_to(np.zeros(2))
    return made


def test_a_segment_starts_at_the_present_goal_and_ends_at_rest_on_the_target() -> None:
    ramp = interpolator()
    ramp.move_to(np.array([0.05, -0.02]), 1.0)
    np.testing.assert_allclose(ramp.goal(1.0), [0, 0])
    np.testing.assert_allclose(ramp.goal(1.1), [0.05, -0.02])
    np.testing.assert_allclose(ramp.goal(9.0), [0.05, -0.02])
    assert ramp.at_rest(1.1) and not interpolator_is_resting_midway()


def interpolator_is_resting_midway() -> bool:
    ramp = interpolator()
    ramp.move_to(np.array([0.05, 0.0]), 0.0)
    return ramp.at_rest(0.05)


def test_goals_never_overshoot_and_velocity_has_no_jump_within_a_chain_of_segments() -> None:
    ramp = interpolator()
    times = np.arange(0.0, 0.5, 0.001)
    values = []
    for t in times:
        if abs(t - 0.0) < 1e-9:
            ramp.move_to(np.array([0.1, 0.0]), t)
        if abs(t - 0.06) < 1e-9:
            ramp.move_to(np.array([0.15, 0.0]), t)
        values.append(ramp.goal(float(t))[0])
    velocity = np.diff(values) / 0.001
    assert (velocity >= -1e-9).all()
    assert max(values) <= 0.15 + 1e-9
    assert np.abs(np.diff(velocity)).max() < 0.15  # rad/s per ms: no step in velocity at the seam


def test_a_turn_back_does_not_carry_the_old_velocity() -> None:
    ramp = interpolator()
    ramp.move_to(np.array([0.1, 0.0]), 0.0)
    middle = ramp.goal(0.05)[0]
    ramp.move_to(np.array([0.0, 0.0]), 0.05)
    assert max(ramp.goal(0.05 + 0.001 * k)[0] for k in range(100)) <= middle + 1e-9


def test_a_large_change_is_stretched_so_that_the_fastest_joint_keeps_its_limit() -> None:
    ramp = interpolator(limit=1.0)
    ramp.move_to(np.array([0.4, 0.2]), 0.0)
    goals = np.array([ramp.goal(0.001 * k) for k in range(700)])
    assert (np.abs(np.diff(goals, axis=0)) / 0.001).max() <= 1.0 + 1e-3
    np.testing.assert_allclose(goals[:, 0], 2 * goals[:, 1], atol=1e-12)  # same path, only slower
    np.testing.assert_allclose(goals[-1], [0.4, 0.2])


def test_asking_before_the_first_posture_is_a_clear_error() -> None:
    with pytest.raises(RuntimeError, match="jump_to"):
        JointInterpolator(InterpolatorConfig(), np.ones(2)).goal(0.0)


@pytest.mark.parametrize("opening", [0.0, 0.25, 1.0])
def test_opening_and_finger_metres_are_inverses(opening: float) -> None:
    assert FINGERS.opening(FINGERS.position_m(opening)) == pytest.approx(opening)


def test_openings_out_of_range_are_clipped() -> None:
    assert FINGERS.position_m(1.7) == FINGERS.open_m
    assert FINGERS.opening(0.0) == 0.0
    assert FINGERS.position_m(-3.0) == FINGERS.closed_m


def close_on_an_object(loop: GripperLoop, object_m: float = 0.025) -> list[float]:
    """Close at a finger speed of 0.1 m/s until the object stops the finger; returns the PWM of 40 ticks."""
    finger, sent = FINGERS.open_m, []
    loop.request(0.0, 0.0)
    for tick in range(40):
        pwm = loop.pwm(finger, 0.02 * tick)
        assert pwm is not None
        sent.append(pwm)
        finger = max(object_m, finger - 0.002)
    return sent


def test_closing_starts_at_full_pwm_with_the_closing_sign() -> None:
    assert close_on_an_object(GripperLoop())[0] == -350.0


def test_pwm_is_relieved_after_contact_and_stays_in_the_vendors_range() -> None:
    sent = close_on_an_object(GripperLoop())
    assert sent[5] == -350.0
    assert sent[-1] == -200.0
    assert all(150.0 <= -value <= 250.0 for value in sent[-10:])


def test_opening_after_contact_uses_full_pwm_again() -> None:
    loop = GripperLoop()
    close_on_an_object(loop)
    loop.request(1.0, 0.9)
    assert loop.pwm(0.025, 0.92) == 350.0


def test_near_the_wanted_opening_the_pwm_is_proportional_and_then_zero() -> None:
    loop = GripperLoop(GripperConfig(binarize=False))
    loop.request(0.5, 0.0)
    assert loop.pwm(0.025, 0.0) == pytest.approx(0.001 * 300 * 350, rel=1e-6)
    assert loop.pwm(0.0261, 0.02) == 0.0


def test_f23_a_wavering_opening_between_the_thresholds_changes_nothing() -> None:
    loop = GripperLoop()
    loop.request(1.0, 0.0)
    for tick, opening in enumerate([0.45, 0.55, 0.41, 0.59]):
        loop.request(opening, 1.0 + tick)
    assert loop.opening == 1.0


def test_f23_a_change_within_the_dwell_time_waits() -> None:
    loop = GripperLoop()
    loop.request(0.0, 0.0)
    loop.request(1.0, 0.2)
    assert loop.opening == 0.0
    loop.request(1.0, 0.41)
    assert loop.opening == 1.0


def test_holding_keeps_squeezing_an_object_but_stops_a_free_gripper() -> None:
    held, free = GripperLoop(), GripperLoop()
    close_on_an_object(held)
    held.hold(0.025)
    assert held.pwm(0.025, 0.9) == -200.0
    free.request(0.0, 0.0)
    free.pwm(0.03, 0.0)
    free.hold(0.03)
    assert free.pwm(0.03, 0.02) == 0.0


def test_without_a_measurement_only_a_held_object_is_squeezed() -> None:
    loop = GripperLoop()
    assert loop.relief() == 0.0
    close_on_an_object(loop)
    assert loop.relief() == -200.0


def test_nothing_is_sent_before_anything_was_asked_for() -> None:
    assert GripperLoop().pwm(0.02, 0.0) is None


def tracker(speed: float = 0.8, acceleration: float = 10.0) -> JointTracker:
    made = JointTracker(TrackerConfig(), np.full(2, speed), np.full(2, acceleration), 0.02)
    made.jump_to(np.zeros(2))
    return made


def follow(made: JointTracker, seconds: float, begin_s: float = 0.0) -> np.ndarray:
    """Goals at 50 Hz, (n, 2)."""
    return np.array([made.goal(begin_s + 0.02 * k) for k in range(round(seconds / 0.02) + 1)])


def test_the_tracker_comes_to_rest_on_its_target_and_stays() -> None:
    made = tracker()
    made.move_to(np.array([0.1, -0.03]), 0.0)
    goals = follow(made, 2.0)
    np.testing.assert_allclose(goals[-1], [0.1, -0.03], atol=1e-9)
    assert made.at_rest(2.0)
    step = 0.5 * 3.0 * 0.02**2  # what one tick of full acceleration covers
    assert goals[:, 0].max() <= 0.1 + step and goals[:, 1].min() >= -0.03 - step


def test_the_tracker_keeps_to_30_percent_of_the_acceleration_under_any_sequence_of_targets() -> None:
    made, rng, goals = tracker(), np.random.default_rng(0), [np.zeros((1, 2))]
    for step in range(60):
        made.move_to(rng.uniform(-0.3, 0.3, 2), 0.2 * step)
        goals.append(follow(made, 0.18, 0.2 * step)[0 if step == 0 else 1 :])
        goals.append(made.goal(0.2 * (step + 1))[None])
    positions = np.concatenate(goals)
    velocity = np.diff(positions, axis=0) / 0.02
    assert np.abs(velocity).max() <= 0.8 + 1e-9
    assert np.abs(np.diff(velocity, axis=0)).max() / 0.02 <= 3.0 + 1e-6


def test_the_tracker_brakes_within_its_limits_where_it_said_it_would() -> None:
    made = tracker()
    made.move_to(np.array([1.0, 0.5]), 0.0)
    moving = follow(made, 0.4)
    end = made.halt(moving[-1])
    stopped = follow(made, 1.0, 0.42)
    np.testing.assert_allclose(stopped[-1], end, atol=1e-3)
    assert np.linalg.norm(end - moving[-1]) > 0.01, "it was moving"
    assert np.abs(np.diff(stopped, 2, axis=0)).max() / 0.02**2 <= 3.0 + 1e-6


@pytest.mark.parametrize("late_s", [0.06, 0.1, 0.5, 3.0])
def test_after_a_late_tick_the_tracker_goes_on_from_where_the_arm_has_braked_to(late_s: float) -> None:
    made = tracker()
    made.move_to(np.array([1.0, 1.0]), 0.0)
    before = follow(made, 0.6)[-1]
    velocity = made.velocity
    stop = before + 0.5 * TrackerConfig().brake_s * velocity
    goal = made.goal(0.6 + late_s)
    assert (goal >= before).all(), "the arm never goes back"
    assert (goal <= stop + velocity * TrackerConfig().lead_s + 1e-9).all(), "nothing is paid back"
    if late_s > 0.12:
        np.testing.assert_allclose(goal, stop, atol=STARTED_RAD)
        assert np.abs(made.velocity).max() <= 3.0 * TrackerConfig().lead_s + 1e-9, "it starts again from rest"


def test_after_a_late_tick_a_fast_arm_has_braked_by_its_acceleration_limit_and_not_faster() -> None:
    made = JointTracker(TrackerConfig(), np.array([1.6]), np.array([10.0]), 0.02)
    made.jump_to(np.zeros(1))
    made.move_to(np.array([3.0]), 0.0)
    before, velocity = follow(made, 1.2)[-1], made.velocity
    assert velocity[0] > 1.5
    stop = stream_points(before, velocity, TrackerConfig(), np.array([10.0]))[1].positions_rad
    np.testing.assert_allclose(made.goal(1.2 + 1.0), stop, atol=STARTED_RAD)


def test_a_lead_shorter_than_the_control_period_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lead_s is 0.04 s, the control period 0.05 s: .* give a longer lead"):
        FrankaController(WidthArmConfig(tick_period_s=0.05))


def test_a_tracker_without_a_start_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="jump_to"):
        JointTracker(TrackerConfig(), np.ones(2), np.ones(2), 0.02).goal(0.0)


def test_a_width_gripper_asks_for_the_open_width_and_for_nothing_before_a_request() -> None:
    gripper = WidthGripper(WidthConfig(open_width_m=0.06))
    assert gripper.output(0.03, 0.0).width_m is None
    gripper.request(0.9, 0.0)
    assert gripper.output(0.03, 0.0).width_m == 0.06
    gripper.request(0.1, 0.1)
    assert gripper.output(0.03, 0.1).width_m == 0.06, "within the dwell time"
    gripper.request(0.1, 0.6)
    assert gripper.output(0.03, 0.6).width_m == 0.0
    gripper.hold(0.01)
    assert gripper.output(0.01, 0.7).width_m == 0.0, "a held object stays held"
