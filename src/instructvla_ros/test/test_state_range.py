"""States unlike those of the training data are noticed."""

from __future__ import annotations

import numpy as np

from instructvla_ros.policy.state_range import WINDOW, StateRange

LOW, HIGH = [0.1, -0.3, 0.0, 0.0], [0.4, 0.3, 0.0, 1.0]  # the third dimension is padding
INSIDE, OUTSIDE = np.array([0.25, 0.0, 5.0, 0.5]), np.array([0.5, 0.0, 0.0, 0.5])


def test_f18_more_than_a_fifth_of_the_states_outside_the_range_is_a_warning_that_names_the_dimension() -> None:
    watched = StateRange(LOW, HIGH)
    for i in range(WINDOW):
        watched.note(OUTSIDE if i % 5 == 0 else INSIDE)
    assert watched.problem == ""
    watched.note(OUTSIDE)  # the oldest, which fell out, was outside too
    watched.note(OUTSIDE)
    assert "21%" in watched.problem and "dimension 0" in watched.problem and "F18" in watched.problem


def test_f18_the_margin_is_a_tenth_of_the_span() -> None:
    for x, odd in ((0.429, False), (0.431, True)):
        watched = StateRange(LOW, HIGH)
        for _ in range(30):
            watched.note(np.array([x, 0.0, 0.0, 0.5]))
        assert bool(watched.problem) == odd


def test_f18_a_few_states_are_no_verdict_and_good_ones_end_the_warning() -> None:
    watched = StateRange(LOW, HIGH)
    for _ in range(19):
        watched.note(OUTSIDE)
    assert not watched.problem
    watched.note(OUTSIDE)
    assert watched.problem
    for _ in range(WINDOW):
        watched.note(INSIDE)
    assert not watched.problem
