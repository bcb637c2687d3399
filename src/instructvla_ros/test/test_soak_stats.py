"""What the soak concludes, without a graph."""

from __future__ import annotations

import argparse
import json
import math
import threading
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from instructvla_ros.cli.soak_stats import CommandJudge, FollowsAgain, Injected, OrderSent, SoakReport, jitter_ms

READY_RAD = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])


@pytest.fixture
def judge() -> CommandJudge:
    judge = CommandJudge()
    judge.goal(0.0, READY_RAD)
    return judge


def moved(waist_rad: float) -> np.ndarray:
    return READY_RAD + np.array([waist_rad, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_a_goal_within_two_periods_of_the_allowed_speed_is_safe(judge: CommandJudge) -> None:
    judge.goal(0.02, moved(0.0628))
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
    judge.state(0.0, stopped=stopped)
    judge.goal(1.5, goal)
    assert any(reason in said and "1.5 s after the first goal" in said for said in judge.unsafe), judge.unsafe


def test_a_goal_just_after_a_stop_may_still_come_to_rest(judge: CommandJudge) -> None:
    judge.state(0.0, stopped=True)
    judge.state(0.9, stopped=True)
    judge.goal(0.9, moved(0.001))
    assert judge.unsafe == []
    judge.goal(1.1, moved(0.002))
    assert len(judge.unsafe) == 1


def test_a_way_through_the_table_is_noticed(judge: CommandJudge) -> None:
    q = READY_RAD.copy()
    while judge.unsafe == [] and q[1] < 1.5:
        q = q + np.array([0.0, 0.02, 0.0, 0.0, 0.0, 0.0])
        judge.goal(0.02, q)
    assert "box" in judge.unsafe[0]


def test_after_a_stop_the_first_goal_may_be_elsewhere_but_not_without_one(judge: CommandJudge) -> None:
    judge.state(0.0, stopped=True)
    judge.state(6.0, stopped=False)
    judge.goal(6.0, moved(0.5))
    assert judge.unsafe == []
    judge.state(7.0, stopped=False)
    judge.goal(7.0, moved(0.0))
    assert len(judge.unsafe) == 1


def test_a_goal_that_is_taken_before_the_state_sent_ahead_of_it_is_judged_after_it(judge: CommandJudge) -> None:
    order = OrderSent(patience_s=1.0)
    judge.state(0.0, stopped=True)
    order.add(6.02, lambda: judge.goal(6.02, moved(0.5)))
    order.add(6.0, lambda: judge.state(6.0, stopped=False))
    assert judge.goals == 1, "another may still come that was sent before"
    order.add(7.1, lambda: judge.goal(7.1, moved(0.51)))
    assert judge.goals == 2
    order.end()
    assert judge.goals == 3 and judge.unsafe == []


def test_the_bars_are_the_promised_ones() -> None:
    def report(growth: float, recovery_s: float, unsafe: tuple[str, ...] = ()) -> SoakReport:
        fault = Injected("image: drop 1", 6.0, recovery_s, ("F01",))
        return SoakReport(1800.0, 90_000, unsafe, (fault,), {"sim_node": growth}, 1.0, 30.0)

    assert report(0.049, 5.0).misses == []
    assert "5.1" in report(0.0, 5.1).misses[0]
    assert "memory of sim_node" in report(0.05, 1.0).misses[0]
    assert "unsafe" in report(0.0, 1.0, ("bad",)).misses[0]
    assert ("image: drop 1", "6.0 s, recovery 5.0 s, F01") in report(0.0, 5.0).rows()


def test_f12_after_a_kill_only_an_instruction_that_was_accepted_since_counts_as_followed() -> None:
    follows = FollowsAgain(newest_id=7)
    assert not follows.at(7, executing=True), "the rest of the old latent"
    follows.accepted(7)
    assert not follows.at(7, executing=True), "a node that counts anew gives an old id again"
    follows.accepted(8)
    assert not follows.at(8, executing=False)
    assert not follows.at(9, executing=True), "somebody else's"
    assert follows.at(8, executing=True)


def test_the_report_has_the_99th_percentile_of_the_jitter_of_the_joint_goals_in_its_rows_and_in_its_json() -> None:
    fault = Injected("kill reasoning_node", 0.0, math.inf)
    report = SoakReport(60.0, 3000, (), (fault,), {"sim_node": math.nan}, 1.25, 30.0)
    assert dict(report.rows())["jitter of joint goals"] == "p99 1.2 ms, longest gap 30 ms"
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["p99_jitter_ms"] == 1.25 and json.loads(text)["faults"][0]["recovery_s"] is None
    assert "recovery after kill reasoning_node: inf" in report.misses[0]


def test_jitter_is_the_deviation_from_the_period() -> None:
    times = [0.02 * i for i in range(100)] + [2.03]
    p99_ms, longest_ms = jitter_ms(times, 0.02)
    assert longest_ms == pytest.approx(50.0) and 0.0 <= p99_ms < 30.0
    assert np.isnan(jitter_ms([1.0], 0.02)).all()


def test_f24_a_time_in_which_no_goal_was_meant_to_come_is_no_gap() -> None:
    assert jitter_ms([1.0, 1.02, 1.05, np.nan, np.nan, 8.0, 8.02], 0.02)[1] == pytest.approx(30.0)


class KilledGraph:
    """Client and supervisor of a graph whose reasoning node was killed: the arm goes on with the old latent, requests
    are not answered before the supervisor has looked three times, and the first answer is lost."""

    pids: ClassVar = {"reasoning_node": 4711}

    def __init__(self) -> None:
        self.looked, self.calls = threading.Semaphore(0), 0
        self.soak: Any = None

    def ended(self) -> None:
        self.looked.release()

    def call(self, *_: Any) -> Any:
        self.calls += 1
        for _look in range(3):
            assert self.looked.acquire(timeout=30.0), "nobody looks after the nodes while a service is waited for"
        if self.calls == 1:
            raise TimeoutError("no answer")
        self.soak._heard.instruction_id = 8
        return SimpleNamespace(accepted=True, instruction_id=8)


@pytest.mark.ros
def test_f12_recovery_from_a_kill_is_not_over_while_the_node_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = pytest.importorskip("instructvla_msgs.msg")
    from instructvla_ros.cli import soak as module

    killed: list[int] = []
    monkeypatch.setattr(module.os, "kill", lambda pid, _: killed.append(pid))
    graph = KilledGraph()
    graph.soak = soak = module._Soak(argparse.Namespace(seed=0), graph, "wx250s")  # type: ignore[arg-type]
    soak._client = graph
    soak._heard = module._Heard(messages.SafetyState.MODE_EXECUTING, "", 7)
    outcome = soak._kill("reasoning_node")
    assert killed == [4711] and graph.calls == 2
    assert outcome.lasted_s < 0.1 and 0.2 < outcome.recovery_s < 60.0
