"""What ends an instruction that is followed by the action, and how it is said to have gone."""

from __future__ import annotations

import math

import pytest

from instructvla_ros.policy.execution import Execution, Outcome, check_time_limit
from instructvla_ros.policy.instructions import InstructionError
from instructvla_ros.policy.task_status import TaskStatus


@pytest.fixture
def execution() -> Execution:
    return Execution(3, time_limit_s=10.0, now_s=100.0)


def verdict(success: bool, **details: object) -> TaskStatus:
    return TaskStatus(success, details)


def test_nothing_ends_it_before_its_time(execution: Execution) -> None:
    execution.on_time(109.9)
    execution.on_instruction(3)
    execution.on_verdict(verdict(False, instruction_id=3))
    assert execution.ending is None and execution.elapsed_s(109.0) == 9.0


def test_at_the_time_limit_it_is_said_whether_anybody_judged(execution: Execution) -> None:
    other = Execution(4, 10.0, 100.0)
    other.on_verdict(verdict(False, instruction_id=4))
    for made, said in ((execution, "no success check judged it"), (other, "did not see it done")):
        made.on_time(110.0)
        assert made.ending is not None and made.ending.outcome is Outcome.TIME_LIMIT and said in made.ending.reason


@pytest.mark.parametrize(
    "status",
    [
        verdict(True),
        verdict(True, instruction_id=2),
        verdict(True, instruction_id=0),
        verdict(True, instruction_id=3, problem="cannot tell"),
    ],
)
def test_a_success_of_something_else_does_not_count(execution: Execution, status: TaskStatus) -> None:
    execution.on_verdict(status)
    assert execution.ending is None


def test_the_first_end_counts(execution: Execution) -> None:
    execution.on_verdict(verdict(True, instruction_id=3))
    execution.on_instruction(4)
    execution.on_latch("stop service", fault=False)
    execution.on_time(200.0)
    assert execution.ending is not None and execution.ending.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(("fault", "outcome"), [(False, Outcome.STOPPED), (True, Outcome.FAULT)])
def test_a_latched_controller_ends_it_with_its_reason(execution: Execution, fault: bool, outcome: Outcome) -> None:
    execution.on_latch("three bad chunks", fault=fault)
    assert execution.ending is not None
    assert (execution.ending.outcome, execution.ending.reason) == (outcome, "three bad chunks")


def test_a_newer_instruction_supersedes(execution: Execution) -> None:
    execution.on_instruction(4)
    assert execution.ending is not None and execution.ending.outcome is Outcome.SUPERSEDED


@pytest.mark.parametrize("given_s", [-1.0, math.nan, math.inf, 1e5])
def test_a_time_limit_that_is_none_is_refused(given_s: float) -> None:
    with pytest.raises(InstructionError, match="time limit"):
        check_time_limit(given_s, 60.0)


def test_without_a_time_limit_the_default_holds() -> None:
    assert check_time_limit(0.0, 60.0) == 60.0
    assert check_time_limit(5.0, 60.0) == 5.0


def test_the_outcomes_are_those_of_the_action() -> None:
    action = pytest.importorskip("instructvla_msgs.action")
    for outcome in Outcome:
        assert getattr(action.ExecuteInstruction.Result, f"OUTCOME_{outcome.name}") == outcome
