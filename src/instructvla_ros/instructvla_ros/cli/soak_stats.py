"""What `instructvla bench soak` concludes from what it heard: pure, so that it can be checked without a graph."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.safety import SafetyConfig
from instructvla_ros.control.wx250s import WX250S

MEMORY_BAR = 0.05
RECOVERY_BAR_S = 5.0
_ARC_M = 0.011  # between targets in the box the way is straight in joint space
_STOPPED_FOR_S = 1.0  # a goal sent before the stop may still be on its way to rest


class OrderSent:
    """Hands events on in the order in which they were sent. An executor that was kept waiting takes what has come
    topic by topic: a goal before the state that was sent ahead of it. `patience_s`: how much later another may come."""

    def __init__(self, patience_s: float = 1.0) -> None:
        self._patience_s = patience_s
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def add(self, sent_s: float, event: Callable[[], None]) -> None:
        """An event came; those sent long enough before it are handed on."""
        heapq.heappush(self._waiting, (sent_s, next(self._number), event))
        self._hand_on(sent_s - self._patience_s)

    def end(self) -> None:
        """Nothing comes any more: the rest is handed on."""
        self._hand_on(math.inf)

    def _hand_on(self, until_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= until_s:
            heapq.heappop(self._waiting)[2]()


class CommandJudge:
    """Looks at every joint goal on the wire, from outside: finite, within the joint limits, not too fast, in the box,
    and none that moves while the arm is stopped. Written apart from the gate on purpose.

    To be told in the order in which goals and states were sent, with the time at which each was, in s.
    """

    def __init__(self, arm: ArmModel = WX250S, safety: SafetyConfig | None = None, period_s: float = 0.02) -> None:
        safety = safety or SafetyConfig()
        self._arm = arm
        self._lower_m, self._upper_m = np.array(safety.workspace_lower_m), np.array(safety.workspace_upper_m)
        # A tick that comes late may carry two periods' worth.
        self._step_rad = arm.velocity_rad_s * safety.velocity_fraction * 2.0 * period_s + 1e-4
        self._last: np.ndarray | None = None
        self._least_m = np.full(3, math.inf)
        self._stopped_since_s: float | None = None
        self._first_s: float | None = None
        self.goals = 0
        self.unsafe: list[str] = []

    def state(self, sent_s: float, *, stopped: bool) -> None:
        """The controller said whether it is stopped. Where it leaves a stop, the next goal may be anywhere near the
        measured posture."""
        if stopped and self._stopped_since_s is None:
            self._stopped_since_s = sent_s
        elif not stopped and self._stopped_since_s is not None:
            self._stopped_since_s = None
            self._last = None
            self._least_m = np.full(3, math.inf)

    def goal(self, sent_s: float, goal: Sequence[float]) -> None:
        """A joint goal was sent."""
        self._first_s = sent_s if self._first_s is None else self._first_s
        self.goals += 1
        when = f", {sent_s - self._first_s:.1f} s after the first goal"
        self.unsafe += [f"{problem}{when}" for problem in self._problems(sent_s, np.asarray(goal, dtype=float))]

    def _problems(self, sent_s: float, q: np.ndarray) -> Iterator[str]:
        if q.shape != self._arm.lower_rad.shape or not np.isfinite(q).all():
            yield f"not finite or of wrong size: {q}"
            return
        if (q < self._arm.lower_rad - 1e-3).any() or (q > self._arm.upper_rad + 1e-3).any():
            yield f"beyond a joint limit: {q}"
        tip_m = self._arm.forward(q)[1]
        excess_m = np.maximum(np.maximum(self._lower_m - tip_m, tip_m - self._upper_m), 0.0)
        if self._last is not None:
            change = np.abs(q - self._last)
            if (change > self._step_rad).any():
                yield f"a joint moves {change.max():.3f} rad in one goal"
            stopped = self._stopped_since_s is not None and sent_s - self._stopped_since_s > _STOPPED_FOR_S
            if stopped and change.max() > 1e-6:
                yield "a goal moves although the arm is stopped"
            if (excess_m > self._least_m + _ARC_M).any():
                yield f"the gripper leaves the workspace box: {tip_m}"
        self._least_m = np.minimum(self._least_m, excess_m)
        self._last = q


@dataclass(frozen=True)
class Injected:
    """One fault and what came of it. `recovery_s`: from its end until the arm followed an instruction again; infinite
    if it did not. A kill ends at once, and only an instruction that was accepted after it counts. `held`: the fault ids
    that the controller gave meanwhile."""

    name: str
    lasted_s: float
    recovery_s: float
    held: tuple[str, ...] = ()


class FollowsAgain:
    """Whether the arm follows an instruction that was accepted after a kill. What it still does of an older one, on the
    latent that the dead node had left, is no recovery. `newest_id`: the newest instruction at the kill."""

    def __init__(self, newest_id: int) -> None:
        self._newest_id = newest_id
        self._accepted: set[int] = set()

    def accepted(self, instruction_id: int) -> None:
        """An instruction was given after the kill, and taken."""
        self._accepted.add(instruction_id)

    def at(self, instruction_id: int, *, executing: bool) -> bool:
        """Whether it is so, when the controller says this."""
        return executing and instruction_id > self._newest_id and instruction_id in self._accepted


@dataclass(frozen=True)
class SoakReport:
    """One soak."""

    seconds: float
    goals: int
    unsafe: tuple[str, ...]
    faults: tuple[Injected, ...]
    memory_growth: Mapping[str, float]
    p99_jitter_ms: float
    longest_gap_ms: float
    reasons: tuple[str, ...] = field(default=())

    @property
    def misses(self) -> list[str]:
        """The bars that were missed, in words; empty when all are met."""
        found = [f"unsafe commands: {len(self.unsafe)}, first: {self.unsafe[0]}"] if self.unsafe else []
        found += [
            f"memory of {name} grew by {growth:.1%}, bar {MEMORY_BAR:.0%}"
            for name, growth in self.memory_growth.items()
            if growth >= MEMORY_BAR
        ]
        found += [
            f"recovery after {fault.name}: {fault.recovery_s:.1f} s, bar {RECOVERY_BAR_S:g} s"
            for fault in self.faults
            if fault.recovery_s > RECOVERY_BAR_S
        ]
        return found

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, for a table."""
        growth = ", ".join(f"{name} {value:+.1%}" for name, value in self.memory_growth.items())
        rows = [
            ("joint goals", f"{self.goals} in {self.seconds:.0f} s, unsafe {len(self.unsafe)}"),
            ("jitter of joint goals", f"p99 {self.p99_jitter_ms:.1f} ms, longest gap {self.longest_gap_ms:.0f} ms"),
            ("memory growth", growth or "not measured"),
        ]
        for fault in self.faults:
            held = ", ".join(fault.held) or "no hold"
            rows.append((fault.name, f"{fault.lasted_s:.1f} s, recovery {fault.recovery_s:.1f} s, {held}"))
        return rows

    def as_dict(self) -> dict[str, object]:
        """For JSON, which knows no infinity: what did not happen or was not measured is null there."""
        return _finite(asdict(self)) | {"misses": self.misses}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def jitter_ms(times_s: Sequence[float], period_s: float) -> tuple[float, float]:
    """99th percentile of the deviation from the period, and the longest gap, in ms; NaN with fewer than two. A NaN in
    the times: for a while none was meant to come."""
    gaps_s = np.diff(times_s)
    gaps_s = gaps_s[np.isfinite(gaps_s)]
    if not len(gaps_s):
        return math.nan, math.nan
    return float(np.percentile(np.abs(gaps_s - period_s), 99) * 1e3), float(gaps_s.max() * 1e3)
