"""For how long somebody has said nothing, by the clock of one who looks in every tick."""

from __future__ import annotations

_LONGEST_LOOK_S = 0.1


class Silence:
    """What lies between two looks counts up to a tenth of a second: after more it was the one who looks who slept, and
    a clock that stands still, as in a simulation, counts for nothing. One thread owns an object."""

    def __init__(self) -> None:
        self._news = False
        self._silent_s: float | None = None  # None before the first news
        self._looked_s: float | None = None

    def note(self) -> None:
        """There is news."""
        self._news = True

    def forgive(self) -> None:
        """The silence so far does not count."""
        self._silent_s = None if self._silent_s is None else 0.0

    def look(self, now_s: float) -> float:
        """Seconds without news; 0 before the first. Call in every tick."""
        elapsed_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if self._news:
            self._news, self._silent_s = False, 0.0
        elif self._silent_s is not None:
            self._silent_s += min(max(elapsed_s, 0.0), _LONGEST_LOOK_S)
        return self._silent_s or 0.0
