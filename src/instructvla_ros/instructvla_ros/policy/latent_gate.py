"""How long the action expert may go on with one latent action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class LatentUse(Enum):
    """Whether the newest latent action may be used."""

    NONE = "none"
    GOOD = "good"
    AGING = "aging"  # still used, and reported
    EXPIRED = "expired"


@dataclass(frozen=True)
class LatentLimits:
    """A latent is good for `good_chunks` chunks and never used for more than `max_chunks` or `max_age_s`."""

    good_chunks: int = 10
    max_chunks: int = 40
    max_age_s: float = 4.0


class LatentGate:
    """Age of the newest latent in chunks made from it and in seconds since it was received. One owner
    thread."""

    def __init__(self, limits: LatentLimits | None = None) -> None:
        self.limits = limits or LatentLimits()
        self.reset()

    def reset(self) -> None:
        """No latent is known."""
        self._received_s = -math.inf
        self._chunks = 0

    def on_latent(self, now_s: float) -> None:
        """A newer latent was received."""
        self._received_s, self._chunks = now_s, 0

    def on_chunk(self) -> None:
        """A chunk was made from the newest latent."""
        self._chunks += 1

    def age_s(self, now_s: float) -> float:
        """Seconds since the newest latent was received; infinite without one."""
        return now_s - self._received_s

    def use(self, now_s: float) -> tuple[LatentUse, str]:
        """Whether to use the newest latent, and in words why not (or why only just)."""
        age_s, limits = self.age_s(now_s), self.limits
        if age_s == math.inf:
            return LatentUse.NONE, "no latent action for this instruction yet"
        if age_s > limits.max_age_s or self._chunks >= limits.max_chunks:
            reason = f"latent action is {age_s:.1f} s old and served {self._chunks} chunks"
            return LatentUse.EXPIRED, reason + f"; limits are {limits.max_age_s} s and {limits.max_chunks}"
        if self._chunks >= limits.good_chunks:
            return LatentUse.AGING, f"latent action has served {self._chunks} chunks"
        return LatentUse.GOOD, ""
