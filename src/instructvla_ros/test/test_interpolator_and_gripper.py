"""Joint goals between policy steps, and the gripper's PWM loop."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_ros.control.gripper import (
    FINGER_CLOSED_M,
    FINGER_OPEN_M,
    GripperConfig,
    GripperLoop,
    finger_to_opening,
    opening_to_finger_m,
)
from instructvla_ros.control.interpolator import InterpolatorConfig, JointInterpolator


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
    assert finger_to_opening(opening_to_finger_m(opening)) == pytest.approx(opening)


def test_openings_out_of_range_are_clipped() -> None:
    assert opening_to_finger_m(1.7) == FINGER_OPEN_M
    assert finger_to_opening(0.0) == 0.0
    assert opening_to_finger_m(-3.0) == FINGER_CLOSED_M


def close_on_an_object(loop: GripperLoop, object_m: float = 0.025) -> list[float]:
    """Close at a finger speed of 0.1 m/s until the object stops the finger; returns the PWM of 40 ticks."""
    finger, sent = FINGER_OPEN_M, []
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


def test_a_wavering_opening_between_the_thresholds_changes_nothing() -> None:
    loop = GripperLoop()
    loop.request(1.0, 0.0)
    for tick, opening in enumerate([0.45, 0.55, 0.41, 0.59]):
        loop.request(opening, 1.0 + tick)
    assert loop.opening == 1.0


def test_a_change_within_the_dwell_time_waits() -> None:
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
