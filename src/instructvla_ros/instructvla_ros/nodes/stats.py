"""Rates and latencies for /diagnostics; pure, injected clock."""

from __future__ import annotations

from collections import deque

import numpy as np


class RateMeter:
    """Events per second over the last `window` events, and the longest gap among them. One writer."""

    def __init__(self, window: int = 50) -> None:
        self._times: deque[float] = deque(maxlen=window + 1)
        self.count = 0

    def note(self, now_s: float) -> None:
        """An event happened."""
        self._times.append(now_s)
        self.count += 1

    def rate_hz(self, now_s: float) -> float:
        """Mean rate; falls towards 0 when events stop."""
        if len(self._times) < 2:
            return 0.0
        times = list(self._times)
        # The running gap counts once it is longer than a period, so that a stopped source is seen at once.
        period = (times[-1] - times[0]) / (len(times) - 1)
        span = times[-1] - times[0] + max(0.0, now_s - times[-1] - period)
        return (len(times) - 1) / span if span > 0.0 else 0.0

    def longest_gap_s(self) -> float:
        """Longest time between two successive events of the window; 0 with fewer than two."""
        return float(np.diff(self._times).max()) if len(self._times) >= 2 else 0.0


class LatencyStats:
    """p50, p95 and maximum of the last `window` latencies; the first `warm_up` ones are left out."""

    def __init__(self, window: int = 200, warm_up: int = 2) -> None:
        self._values: deque[float] = deque(maxlen=window)
        self._skip = warm_up

    def note(self, latency_s: float) -> None:
        """Record one latency in seconds."""
        if self._skip > 0:
            self._skip -= 1
        else:
            self._values.append(latency_s)

    def summary(self) -> str:
        """For people: milliseconds."""
        if not self._values:
            return "none yet"
        p50, p95 = np.percentile(list(self._values), (50, 95)) * 1e3
        return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {max(self._values) * 1e3:.1f} ms"
