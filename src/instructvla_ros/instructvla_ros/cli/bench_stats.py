"""What `instructvla bench graph` computes from times of arrival: pure, so that it can be checked without a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

CHUNK_RATE_BAR_HZ = 5.0
GAP_BAR_PERIODS = 3.0


@dataclass(frozen=True)
class Spread:
    """Median, 95th percentile and maximum, in milliseconds."""

    p50_ms: float
    p95_ms: float
    max_ms: float

    def text(self) -> str:
        """For people."""
        return f"p50 {self.p50_ms:.0f} ms, p95 {self.p95_ms:.0f} ms, max {self.max_ms:.0f} ms"


@dataclass(frozen=True)
class Report:
    """One measurement of the running graph. Rates in Hz; `cpu_share` in parts of one core by process."""

    seconds: float
    cores: int
    checkpoint: str
    text_seconds: float
    tokens_per_second: float
    chunk_rate_hz: float
    chunk_rate_while_writing_hz: float
    chunk_latency: Spread
    image_age: Spread
    latent_rate_hz: float
    latent_latency: Spread
    goal_rate_hz: float
    longest_goal_gap_periods: float
    joint_state_rate_hz: float
    longest_joint_state_gap_ms: float
    steps_per_second: float
    real_time_factor: float
    cpu_share: Mapping[str, float]

    @property
    def misses(self) -> list[str]:
        """The bars that were missed, in words; empty when all are met."""
        found = []
        if self.chunk_rate_while_writing_hz < CHUNK_RATE_BAR_HZ:
            found.append(
                f"chunks while text is written: {self.chunk_rate_while_writing_hz:.1f} Hz, bar {CHUNK_RATE_BAR_HZ:g} Hz"
            )
        if self.longest_goal_gap_periods > GAP_BAR_PERIODS:
            found.append(f"longest gap of joint goals: {self.longest_goal_gap_periods:.1f} periods, bar 3")
        return found

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, for a table."""
        share = ", ".join(f"{name} {value:.2f}" for name, value in self.cpu_share.items())
        return [
            ("chunks", f"{self.chunk_rate_hz:.1f} Hz; while text is written {self.chunk_rate_while_writing_hz:.1f} Hz"),
            ("chunk latency (expert)", self.chunk_latency.text()),
            ("image age at a chunk's arrival", self.image_age.text()),
            ("latents", f"{self.latent_rate_hz:.1f} Hz; {self.latent_latency.text()}"),
            ("text", f"{self.tokens_per_second:.0f} tokens/s, written during {self.text_seconds:.1f} s"),
            ("joint goals", f"{self.goal_rate_hz:.1f} Hz, longest gap {self.longest_goal_gap_periods:.1f} periods"),
            (
                "joint states",
                f"{self.joint_state_rate_hz:.1f} Hz, longest gap {self.longest_joint_state_gap_ms:.0f} ms",
            ),
            ("policy steps executed", f"{self.steps_per_second:.1f} per s"),
            ("simulation", f"real-time factor {self.real_time_factor:.2f}"),
            ("CPU (cores)", f"{share}; together {sum(self.cpu_share.values()):.2f} of {self.cores}"),
        ]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"misses": self.misses}


def rate_hz(times_s: Sequence[float]) -> float:
    """Mean rate of events; 0 with fewer than two."""
    return (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 and times_s[-1] > times_s[0] else 0.0


def longest_gap_s(times_s: Sequence[float]) -> float:
    """Longest time between two successive events; infinite with fewer than two."""
    return float(np.diff(times_s).max()) if len(times_s) > 1 else float("inf")


def spread(values_s: Sequence[float]) -> Spread:
    """Of latencies in seconds; NaN without any."""
    if not values_s:
        return Spread(float("nan"), float("nan"), float("nan"))
    p50, p95 = np.percentile(values_s, (50, 95)) * 1e3
    return Spread(float(p50), float(p95), float(max(values_s)) * 1e3)


class Writing:
    """The stretches of time in which text was being written, from (time, seq, text so far, final) messages."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self._seq = -1
        self._began_s = 0.0
        self._open = False

    def note(self, now_s: float, seq: int, text: str, final: bool) -> None:
        """A message arrived. A stretch begins with a reasoning's first message and ends with its final one."""
        if seq != self._seq:
            self._seq, self._began_s, self._open = seq, now_s, True
        if final and self._open:
            self._open = False
            if text:
                self.spans.append((self._began_s, now_s))

    @property
    def seconds(self) -> float:
        """Length of all stretches together."""
        return sum(end - begin for begin, end in self.spans)

    def rate_hz(self, times_s: Sequence[float]) -> float:
        """Rate of events within the stretches; 0 where there were none."""
        inside = sum(1 for t in times_s if any(begin <= t <= end for begin, end in self.spans))
        return inside / self.seconds if self.seconds > 0.0 else 0.0
