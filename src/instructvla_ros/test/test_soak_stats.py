"""What the soak concludes, without a graph."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_ros.cli.soak_stats import CommandJudge, Injected, SoakReport, jitter_ms

READY_RAD = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])


@pytest.fixture
def judge() -> CommandJudge:
    judge = CommandJudge()
    judge.note(READY_RAD, stopped=False)
    return judge


def moved(waist_rad: float) -> np.ndarray:
    return READY_RAD + np.array([waist_rad, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_a_goal_within_two_periods_of_the_allowed_speed_is_safe(judge: CommandJudge) -> None:
    judge.note(moved(0.0628), stopped=False)
    assert judge.unsafe == [] and judge.goals == 2


@pytest.mark.parametrize(
    ("goal", "stopped", "reason"),
    [
        (np.full(6, np.nan), False, "finite"),
        (READY_RAD[:5], False, "wrong size"),
        (moved(0.07), False, "in one goal"),
        (moved(3.2), False, "joint limit"),
        (moved(0.001), True, "stopped"),
    ],
)
def test_an_unsafe_goal_is_noticed(judge: CommandJudge, goal: np.ndarray, stopped: bool, reason: str) -> None:
    judge.note(goal, stopped=stopped)
    assert any(reason in said for said in judge.unsafe), judge.unsafe


def test_a_way_through_the_table_is_noticed(judge: CommandJudge) -> None:
    q = READY_RAD.copy()
    while judge.unsafe == [] and q[1] < 1.5:
        q = q + np.array([0.0, 0.02, 0.0, 0.0, 0.0, 0.0])
        judge.note(q, stopped=False)
    assert "box" in judge.unsafe[0]


def test_after_an_anchor_the_first_goal_may_be_elsewhere(judge: CommandJudge) -> None:
    judge.anchored()
    judge.note(moved(0.5), stopped=False)
    assert judge.unsafe == []


def test_the_bars_are_the_promised_ones() -> None:
    def report(growth: float, recovery_s: float, unsafe: tuple[str, ...] = ()) -> SoakReport:
        fault = Injected("image: drop 1", 6.0, recovery_s, ("F01",))
        return SoakReport(1800.0, 90_000, unsafe, (fault,), {"sim_node": growth}, 1.0, 30.0)

    assert report(0.049, 5.0).misses == []
    assert "5.1" in report(0.0, 5.1).misses[0]
    assert "memory of sim_node" in report(0.05, 1.0).misses[0]
    assert "unsafe" in report(0.0, 1.0, ("bad",)).misses[0]
    assert ("image: drop 1", "6.0 s, recovery 5.0 s, F01") in report(0.0, 5.0).rows()


def test_jitter_is_the_deviation_from_the_period() -> None:
    times = [0.02 * i for i in range(100)] + [2.03]
    p99_ms, longest_ms = jitter_ms(times, 0.02)
    assert longest_ms == pytest.approx(50.0) and 0.0 <= p99_ms < 30.0
    assert np.isnan(jitter_ms([1.0], 0.02)).all()
