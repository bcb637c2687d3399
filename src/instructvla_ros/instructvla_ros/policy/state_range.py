"""Does the robot look like the one the policy was trained on? States outside the training data's range (F18)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

WINDOW = 100
_LEAST = 20  # no verdict on fewer states


class StateRange:
    """Counts which of the last states lie outside [q01, q99] by more than `margin` of that span, in any dimension.

    Dimensions without a span say nothing. One thread owns an object.
    """

    def __init__(self, q01: Sequence[float], q99: Sequence[float], margin: float = 0.1, share: float = 0.2) -> None:
        low, high = np.asarray(q01, dtype=float), np.asarray(q99, dtype=float)
        span = high - low
        self._said = span > 1e-4
        self._low, self._high = low - margin * span, high + margin * span
        self._share = share
        self._outside: deque[np.ndarray] = deque(maxlen=WINDOW)

    def note(self, state: np.ndarray) -> None:
        """A state (d,) that the policy was given."""
        self._outside.append(((state < self._low) | (state > self._high)) & self._said)

    @property
    def problem(self) -> str:
        """What is odd, in words; "" while most states are like those of the training data."""
        if len(self._outside) < _LEAST:
            return ""
        outside = np.stack(self._outside)
        share = float(outside.any(axis=1).mean())
        if share <= self._share:
            return ""
        worst = int(outside.mean(axis=0).argmax())
        return (
            f"{share:.0%} of the last {len(outside)} states lie outside the training data's 1..99 % range, most in "
            f"dimension {worst}; is this the robot, and are these the statistics, of the checkpoint (F18)?"
        )
