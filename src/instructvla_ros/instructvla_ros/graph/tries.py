"""How often a node that crashed is started again, the same under `instructvla up` and `ros2 launch`."""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 60.0


class Tries:
    """At most `most` new starts within any `WINDOW_S`."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._begun_s: list[float] = []

    def again(self) -> bool:
        """Whether there may be one more start now; if so, it is counted."""
        now_s = self._clock()
        self._begun_s = [begun_s for begun_s in self._begun_s if now_s - begun_s < WINDOW_S]
        if len(self._begun_s) >= self._most:
            return False
        self._begun_s.append(now_s)
        return True

    def __str__(self) -> str:
        return f"{len(self._begun_s)} of {self._most} within {WINDOW_S:g} s"
