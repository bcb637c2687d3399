"""One instruction followed to its end: what ends it, and how it went. Pure; one thread, times given by the caller."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from instructvla_ros.policy.instructions import InstructionError
from instructvla_ros.policy.task_status import TaskStatus

MAX_TIME_LIMIT_S = 3600.0


class Outcome(IntEnum):
    """As in the result of ExecuteInstruction.action."""

    UNKNOWN = 0
    SUCCEEDED = 1
    TIME_LIMIT = 2
    CANCELED = 3
    SUPERSEDED = 4
    STOPPED = 5
    FAULT = 6
    REJECTED = 7


@dataclass(frozen=True)
class Ending:
    """How it ended, with the reason in words."""

    outcome: Outcome
    reason: str


def check_time_limit(given_s: float, default_s: float) -> float:
    """The time limit (s) of a request, where 0 stands for the default; raises InstructionError for what is none."""
    if given_s == 0.0:
        return default_s
    if not 0.0 < given_s <= MAX_TIME_LIMIT_S:  # NaN fails too
        raise InstructionError(
            f"time limit is {given_s} s; give up to {MAX_TIME_LIMIT_S:.0f} s, or 0 for the default of {default_s:.0f} s"
        )
    return given_s


class Execution:
    """What happens is told by the `on_` methods; the first thing that ends the execution counts."""

    def __init__(self, instruction_id: int, time_limit_s: float, now_s: float) -> None:
        self.instruction_id, self._limit_s, self._began_s = instruction_id, time_limit_s, now_s
        self._judged = False
        self.ending: Ending | None = None

    def elapsed_s(self, now_s: float) -> float:
        """Seconds since acceptance."""
        return now_s - self._began_s

    def end(self, outcome: Outcome, reason: str) -> None:
        """Ended, unless it had before."""
        self.ending = self.ending or Ending(outcome, reason)

    def on_time(self, now_s: float) -> None:
        """The clock went on."""
        if self.elapsed_s(now_s) >= self._limit_s:
            what = "a success check did not see it done" if self._judged else "no success check judged it"
            self.end(Outcome.TIME_LIMIT, f"the time limit of {self._limit_s:.0f} s came first; {what}")

    def on_instruction(self, instruction_id: int) -> None:
        """An instruction was accepted."""
        if instruction_id > self.instruction_id:
            self.end(Outcome.SUPERSEDED, f"instruction {instruction_id} replaced it")

    def on_latch(self, reason: str, *, fault: bool) -> None:
        """The controller has stopped and waits for a reset."""
        self.end(Outcome.FAULT if fault else Outcome.STOPPED, reason or "the controller was stopped")

    def on_verdict(self, status: TaskStatus) -> None:
        """What a success check says. One of another instruction, or of none, does not count."""
        if status.details.get("instruction_id") != self.instruction_id or status.details.get("problem"):
            return
        self._judged = True
        if status.success:
            self.end(Outcome.SUCCEEDED, "the success check says that it is done")
