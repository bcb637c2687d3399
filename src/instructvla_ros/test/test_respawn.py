"""A crashed node is started again, but not for ever."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import instructvla_ros_fakes as fakes  # registered by conftest.py
import pytest

from instructvla_ros.graph.supervisor import Ending, Process, Supervisor
from instructvla_ros.graph.tries import WINDOW_S

CRASH = [sys.executable, "-S", "-c", "import os; os.abort()"]
LEAVE = [sys.executable, "-S", "-c", "pass"]
STAY = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def clock() -> fakes.FakeClock:
    return fakes.FakeClock()


@pytest.fixture
def run(clock: fakes.FakeClock) -> Iterator[Callable[..., Supervisor]]:
    """Starts a node beside one that stays."""
    made: list[Supervisor] = []

    def start(argv: list[str], **options: int) -> Supervisor:
        supervisor = Supervisor([Process("stays", STAY), Process("node", argv, **options)], os.environ, clock=clock)
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in made:
        supervisor.shutdown()


def look_after_its_end(supervisor: Supervisor) -> Ending | None:
    """What the supervisor does once the node's present process has ended."""
    pid = supervisor.pids["node"]
    end_s = time.monotonic() + 60.0
    while time.monotonic() < end_s:
        ending = supervisor.ended()
        if ending is not None or supervisor.pids["node"] != pid:
            return ending
        time.sleep(0.01)
    raise AssertionError("the node did not end")


def test_f12_a_node_that_crashes_is_started_again_three_times_and_then_the_graph_ends(
    run: Callable[..., Supervisor],
) -> None:
    supervisor = run(CRASH, respawns=3)
    assert [look_after_its_end(supervisor) for _ in range(3)] == [None] * 3
    ending = look_after_its_end(supervisor)
    assert ending is not None and ending.status == 6 and "node was killed by signal 6" in ending.reason


def test_f12_after_a_quiet_minute_there_are_three_tries_again(
    run: Callable[..., Supervisor], clock: fakes.FakeClock
) -> None:
    supervisor = run(CRASH, respawns=1)
    assert look_after_its_end(supervisor) is None
    clock.advance(WINDOW_S + 1.0)
    assert look_after_its_end(supervisor) is None
    assert look_after_its_end(supervisor) is not None


def test_a_node_that_leaves_in_order_is_not_started_again(run: Callable[..., Supervisor]) -> None:
    ending = look_after_its_end(run(LEAVE, respawns=3))
    assert ending is not None and "exited with status 0" in ending.reason


def test_a_node_without_respawns_ends_the_graph_at_once(run: Callable[..., Supervisor]) -> None:
    assert look_after_its_end(run(CRASH)) is not None
