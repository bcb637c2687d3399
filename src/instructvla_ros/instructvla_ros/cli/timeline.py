"""What was said and done when, for the film: tracks of texts that change over time."""

from __future__ import annotations

import bisect
import threading


class Timeline:
    """Texts by track and time (s). Written from any thread, in the order of time within a track."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, list[float]] = {}
        self._texts: dict[str, list[str]] = {}

    def note(self, track: str, time_s: float, text: str) -> None:
        """From this time on the track shows this text."""
        with self._lock:
            texts = self._texts.setdefault(track, [])
            if texts and texts[-1] == text:
                return
            texts.append(text)
            self._times.setdefault(track, []).append(time_s)

    def at(self, track: str, time_s: float) -> str:
        """The text of a track at a time; "" before its first."""
        with self._lock:
            place = bisect.bisect_right(self._times.get(track, []), time_s)
            return self._texts[track][place - 1] if place else ""
