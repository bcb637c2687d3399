"""What a bad wire does to a stream of messages. Pure: the clock and the dice come from the caller.

A fault is written as people say it: `delay 0.5`, `drop 0.3 for 10`, `corrupt`, `none`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

MessageT = TypeVar("MessageT")

KINDS = {
    "none": (0.0, "messages pass as they are"),
    "delay": (0.5, "each message comes so many seconds later"),
    "drop": (1.0, "each message is lost with this probability"),
    "duplicate": (1.0, "each message comes so many times more"),
    "freeze": (1.0, "the content of the last message is repeated under new stamps"),
    "corrupt": (1.0, "each message is spoiled with this probability, each time in another way"),
    "shift": (1.0, "stamps are moved by so many seconds, as by a clock that is wrong"),
}
"""Kinds of faults: amount where none is given, and meaning."""

_MOST = {"drop": 1.0, "corrupt": 1.0, "freeze": 1.0, "duplicate": 100.0, "delay": 60.0}


@dataclass(frozen=True)
class Fault:
    """One kind of fault, how much of it, and for how long."""

    kind: str = "none"
    amount: float = 0.0
    seconds: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read `KIND [AMOUNT] [for SECONDS]`; raises ValueError that says what was expected."""
        words = text.split()
        usage = f"{text!r} is no fault; expected KIND [AMOUNT] [for SECONDS] with one of {', '.join(KINDS)}"
        if not words or words[0] not in KINDS:
            raise ValueError(usage)
        kind, rest, seconds = words[0], words[1:], math.inf
        try:
            if "for" in rest:
                at = rest.index("for")
                (duration,) = rest[at + 1 :]
                seconds, rest = float(duration), rest[:at]
            amount = float(rest[0]) if rest else KINDS[kind][0]
        except ValueError as error:
            raise ValueError(usage) from error
        if len(rest) > 1 or not math.isfinite(amount) or not seconds > 0.0:
            raise ValueError(usage)
        if kind != "shift" and not 0.0 <= amount <= _MOST.get(kind, 0.0):
            raise ValueError(f"{kind} {amount:g} is not possible; expected 0..{_MOST.get(kind, 0.0):g}")
        return cls(kind, amount, seconds)

    def __str__(self) -> str:
        duration = "" if self.seconds == math.inf else f" for {self.seconds:g}"
        return f"{self.kind} {self.amount:g}{duration}" if self.kind != "none" else "none"


@dataclass(frozen=True)
class Handling(Generic[MessageT]):
    """What the engine must be able to do with a kind of message; each returns a new message or the same, changed.

    `restamp(content, like)`: the content under the stamp of another. `shift(message, seconds)`: stamp moved.
    `corrupt(message, n)`: spoiled in the n-th way.
    """

    restamp: Callable[[MessageT, MessageT], MessageT]
    shift: Callable[[MessageT, float], MessageT]
    corrupt: Callable[[MessageT, int], MessageT]


class FaultyStream(Generic[MessageT]):
    """One stream with at most one fault at a time. One thread owns an object."""

    def __init__(self, handling: Handling[MessageT], seed: int = 0) -> None:
        self._handling = handling
        self._dice = np.random.default_rng(seed)
        self._fault, self._until_s = Fault(), math.inf
        self._waiting: list[tuple[float, int, MessageT]] = []
        self._content: MessageT | None = None
        self._count = self._spoiled = 0

    def set(self, fault: Fault, now_s: float) -> None:
        """From now on this fault, for as long as it says."""
        self._fault, self._until_s, self._content = fault, now_s + fault.seconds, None

    def fault(self, now_s: float) -> Fault:
        """The fault at this time."""
        if now_s >= self._until_s:
            self._fault, self._until_s = Fault(), math.inf
        return self._fault

    def take(self, message: MessageT, now_s: float) -> None:
        """A message has come in."""
        fault = self.fault(now_s)
        if fault.kind == "drop" and self._dice.random() < fault.amount:
            return
        if fault.kind == "freeze":
            if self._content is None:
                self._content = message
            message = self._handling.restamp(self._content, message)
        elif fault.kind == "shift":
            message = self._handling.shift(message, fault.amount)
        elif fault.kind == "corrupt" and self._dice.random() < fault.amount:
            self._spoiled += 1
            message = self._handling.corrupt(message, self._spoiled)
        due_s = now_s + (fault.amount if fault.kind == "delay" else 0.0)
        for _ in range(1 + (int(fault.amount) if fault.kind == "duplicate" else 0)):
            self._count += 1
            heapq.heappush(self._waiting, (due_s, self._count, message))

    def due(self, now_s: float) -> list[MessageT]:
        """The messages that come out by now, in order."""
        found = []
        while self._waiting and self._waiting[0][0] <= now_s:
            found.append(heapq.heappop(self._waiting)[2])
        return found
