"""Frozen values of the bag tools. Times are nanoseconds since the epoch, on the clock that received the messages."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class BagError(ValueError):
    """Nothing of the bag can be read; the message says what was found, what was expected and how to mend it."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a bag, in words, and where it was found. `count` says how often."""

    where: str
    what: str
    count: int = 1

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.where}: {self.what}{times}"


class Problems:
    """Collects problems; the same one twice is counted, so that a bag of a million bad messages stays readable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, where: str, what: str, count: int = 1) -> None:
        """Add one; from any thread."""
        with self._lock:
            self._counts[where, what] = self._counts.get((where, what), 0) + count

    def all(self) -> tuple[Problem, ...]:
        """In alphabetical order, which does not depend on the threads that found them."""
        with self._lock:
            return tuple(Problem(where, what, count) for (where, what), count in sorted(self._counts.items()))


@dataclass(frozen=True)
class Channel:
    """A topic as one storage file knows it. `encoding` is ros2msg, ros2idl or "" where there is no definition."""

    topic: str
    type_name: str
    definition: str = ""
    encoding: str = ""
    serialization: str = "cdr"


@dataclass(frozen=True)
class Record:
    """One message as it is stored: CDR bytes, and when it was received."""

    topic: str
    type_name: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class Topic:
    """A topic of a bag and when each of its messages was received, ascending."""

    name: str
    type_name: str
    times_ns: np.ndarray
    definition: str = ""
    encoding: str = ""

    @property
    def count(self) -> int:
        """Number of messages."""
        return len(self.times_ns)

    @property
    def rate_hz(self) -> float:
        """Mean rate between the first and the last message; 0 for fewer than two."""
        span_ns = int(self.times_ns[-1] - self.times_ns[0]) if self.count > 1 else 0
        return (self.count - 1) / (span_ns * 1e-9) if span_ns > 0 else 0.0

    @property
    def longest_gap_s(self) -> float:
        """Longest time between two messages; 0 for fewer than two."""
        return float(np.diff(self.times_ns).max() * 1e-9) if self.count > 1 else 0.0


@dataclass(frozen=True)
class BagInfo:
    """What metadata.yaml says, as far as it is there. `custom` is what a recorder noted beside the messages."""

    version: int = 0
    storage: str = ""
    compression_mode: str = ""
    distribution: str = ""
    message_count: int | None = None
    custom: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
