"""From one joint target per policy step (5 Hz) to joint goals at the control rate (50 Hz)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class InterpolatorConfig:
    """`ramp_s`: time from one target to the next at full ease, before time scaling.

    Shorter than a policy step on purpose: the servos' own 250 ms profile smooths and delays what they
    receive, and a goal that took the whole step would leave the arm more than a step behind the policy.
    """

    ramp_s: float = 0.1


class JointInterpolator:
    """A cubic per segment that starts at the present goal and its velocity and ends at rest on the target.

    A segment is stretched (all joints alike, so the path is kept) until no joint exceeds its velocity limit.
    The cubic never overshoots: the start velocity is limited to three times the mean slope of its joint and
    dropped when it points away from the target. One thread owns an object.
    """

    def __init__(self, config: InterpolatorConfig, velocity_limit_rad_s: np.ndarray) -> None:
        self._ramp_s = config.ramp_s
        self._limit = np.asarray(velocity_limit_rad_s, dtype=float)
        self._start: np.ndarray | None = None
        self._change = np.zeros(len(self._limit))
        self._start_slope = np.zeros(len(self._limit))
        self._began_s = 0.0
        self._duration_s = config.ramp_s
        self._resting = True

    def jump_to(self, goal_rad: np.ndarray) -> None:
        """Rest at `goal_rad` from now on: for anchoring and for holding."""
        self._start = np.array(goal_rad, dtype=float)
        self._change = np.zeros_like(self._start)
        self._start_slope = np.zeros_like(self._start)
        self._resting = True

    def move_to(self, target_rad: np.ndarray, now_s: float) -> None:
        """Begin a segment from the goal at `now_s` to `target_rad`. Raises RuntimeError before `jump_to`."""
        start = self.goal(now_s)
        velocity = self._velocity(now_s)
        change = target_rad - start
        # A cubic from rest to rest peaks at 1.5 times its mean slope; with a start velocity at most at the
        # larger of both.
        needed = float(np.max(1.5 * np.abs(change) / self._limit))
        self._duration_s = max(self._ramp_s, needed)
        slope = velocity * self._duration_s
        slope = np.where(
            slope * change > 0.0, np.sign(change) * np.minimum(np.abs(slope), 3.0 * np.abs(change)), 0.0
        )
        self._start, self._change, self._start_slope = start, change, slope
        self._began_s, self._resting = now_s, False

    def goal(self, now_s: float) -> np.ndarray:
        """The joint goal (rad) at `now_s`; constant once the segment is over."""
        if self._start is None:
            raise RuntimeError(
                "the interpolator has no starting posture; call jump_to with measured joints first"
            )
        if self._resting:
            return self._start.copy()
        u = (now_s - self._began_s) / self._duration_s
        if u >= 1.0:
            self.jump_to(self._start + self._change)
            return self._start.copy()
        u = max(u, 0.0)
        ease, lead = u * u * (3.0 - 2.0 * u), u * (1.0 - u) ** 2
        return self._start + ease * self._change + lead * self._start_slope

    def _velocity(self, now_s: float) -> np.ndarray:
        if self._resting:
            return np.zeros_like(self._change)
        u = min(max((now_s - self._began_s) / self._duration_s, 0.0), 1.0)
        rate = 6.0 * u * (1.0 - u) * self._change + (1.0 - u) * (1.0 - 3.0 * u) * self._start_slope
        return rate / self._duration_s

    def at_rest(self, now_s: float) -> bool:
        """True when the target has been reached (the goal no longer changes)."""
        return self._resting or now_s >= self._began_s + self._duration_s
