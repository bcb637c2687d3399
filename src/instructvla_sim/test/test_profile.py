"""Servo profiles: continuity, duration, limits."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim.profile import RPM_UNIT_RAD_S, hold, time_profile, velocity_profile

ONE = np.ones(1)


def test_time_profile_lasts_exactly_its_duration_and_ends_at_rest_on_the_goal() -> None:
    made = time_profile(0 * ONE, 0 * ONE, 0.5 * ONE, 1.0, 250 * ONE, 100 * ONE)
    before, _ = made.at(1.249)
    after, speed = made.at(1.25)
    assert before[0] < 0.5
    assert after[0] == pytest.approx(0.5)
    assert speed[0] == 0.0


def test_a_new_goal_on_the_way_keeps_position_and_velocity_continuous() -> None:
    first = time_profile(0 * ONE, 0 * ONE, 0.5 * ONE, 0.0, 250 * ONE, 100 * ONE)
    position, velocity = first.at(0.12)
    second = time_profile(position, velocity, -0.2 * ONE, 0.12, 250 * ONE, 100 * ONE)
    moved, speed = second.at(0.12 + 1e-6)
    assert moved[0] == pytest.approx(position[0], abs=1e-5)
    assert speed[0] == pytest.approx(velocity[0], abs=1e-3)
    assert second.at(0.12 + 0.25)[0][0] == pytest.approx(-0.2)


def test_profile_velocity_is_the_derivative_of_its_position() -> None:
    made = time_profile(0.1 * ONE, 0.7 * ONE, -0.4 * ONE, 0.0, 2000 * ONE, 300 * ONE)
    for t in np.linspace(0.01, 1.99, 57):
        slope = (made.at(t + 1e-5)[0] - made.at(t - 1e-5)[0]) / 2e-5
        assert made.at(t)[1][0] == pytest.approx(slope[0], abs=1e-3)


def test_acceleration_time_beyond_half_the_duration_is_cut_to_a_triangle() -> None:
    made = time_profile(0 * ONE, 0 * ONE, 1.0 * ONE, 0.0, 200 * ONE, 500 * ONE)
    assert made.ramp_s[0] == pytest.approx(0.1)
    assert made.at(0.1)[0][0] == pytest.approx(0.5)


def test_zero_duration_steps_at_once() -> None:
    made = time_profile(0 * ONE, 0 * ONE, 1.0 * ONE, 0.0, 0 * ONE, 0 * ONE)
    assert made.at(1e-6)[0][0] == pytest.approx(1.0)


def test_velocity_profile_never_exceeds_its_register() -> None:
    made = velocity_profile(0 * ONE, 0 * ONE, 1.0 * ONE, 0.0, 40 * ONE, 50 * ONE)
    times = np.linspace(0, made.total_s[0], 200)
    speeds = np.array([made.at(t)[1][0] for t in times])
    assert speeds.max() <= 40 * RPM_UNIT_RAD_S + 1e-9
    assert made.at(made.total_s[0])[0][0] == pytest.approx(1.0)


def test_hold_stays_where_it_is() -> None:
    assert hold(0.3 * ONE, 5.0).at(9.0)[0][0] == pytest.approx(0.3)
