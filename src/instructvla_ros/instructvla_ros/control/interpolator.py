"""From one joint target per policy step (5 Hz) to joint goals at the control rate (50 Hz).

`JointInterpolator` is for drives that smooth their goals themselves, `JointTracker` for those that follow them as they
are and need bounded accelerations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from instructvla_ros.control.arm import ArmModel

_NO_START = "the interpolator has no starting posture; call jump_to with measured joints first"
_STILL_RAD_S = 1e-9
_LEAST_PATH_RAD = 0.02  # speeds are scaled by the length of a joint's path, at least this


@dataclass(frozen=True)
class InterpolatorConfig:
    """`ramp_s`: time from one target to the next at full ease, before time scaling.

    For a WidowX shorter than a policy step on purpose: the servos' own 250 ms profile smooths and delays what they
    receive, and a goal that took the whole step would leave the arm more than a step behind the policy.
    """

    ramp_s: float = 0.1

    def longest_s(self, period_s: float) -> float:
        """A goal moves by no more than is allowed in this time, however late it comes: two control periods."""
        return 2.0 * period_s


@dataclass(frozen=True)
class TrackerConfig(InterpolatorConfig):
    """`acceleration_fraction`: part of the arm's acceleration limits that goals may use.

    `lead_s`: each goal is for so long after it was made, a few control periods against jitter. `brake_s`: when none
    comes after it, the arm comes to rest in this time, or in a longer one where its acceleration limits ask for it.
    """

    ramp_s: float = 0.2
    acceleration_fraction: float = 0.3
    lead_s: float = 0.04
    brake_s: float = 0.08

    def longest_s(self, period_s: float) -> float:
        """As above; and the arm goes on by itself while it leads and brakes."""
        return max(super().longest_s(period_s), self.lead_s + self.brake_s)


def braking_s(velocity_rad_s: np.ndarray, config: TrackerConfig, limit_rad_s2: np.ndarray | None) -> float:
    """Time in which an arm that hears nothing more comes to rest from this velocity: `brake_s`, or longer where a joint
    would have to brake harder than the arm's acceleration limit."""
    if limit_rad_s2 is None:
        return config.brake_s
    return max(config.brake_s, float(np.max(np.abs(velocity_rad_s) / limit_rad_s2)))


class Interpolator(Protocol):
    """One thread owns an object; `now_s` never goes back."""

    def jump_to(self, goal_rad: np.ndarray) -> None:
        """Rest at `goal_rad` from now on: for anchoring."""

    def halt(self, goal_rad: np.ndarray) -> np.ndarray:
        """Come to rest, `goal_rad` having been sent last; returns where (n,)."""

    def move_to(self, target_rad: np.ndarray, now_s: float, least_s: float = 0.0) -> None:
        """Go to `target_rad` from where the goal is; no joint is faster than if it took `least_s` at one speed. Raises
        RuntimeError before `jump_to`."""

    def goal(self, now_s: float) -> np.ndarray:
        """The joint goal (rad) at `now_s`."""

    def at_rest(self, now_s: float) -> bool:
        """True when the target has been reached (the goal no longer changes)."""

    @property
    def velocity(self) -> np.ndarray:
        """The velocity (rad/s) of the last goal."""


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
        self._asked_s = 0.0
        self._resting = True

    def jump_to(self, goal_rad: np.ndarray) -> None:
        """Rest at `goal_rad` from now on: for anchoring and for holding."""
        self._start = np.array(goal_rad, dtype=float)
        self._change = np.zeros_like(self._start)
        self._start_slope = np.zeros_like(self._start)
        self._resting = True

    def halt(self, goal_rad: np.ndarray) -> np.ndarray:
        """Rest at `goal_rad` at once: the drives ease into it. Returns it."""
        self.jump_to(goal_rad)
        return goal_rad

    def move_to(self, target_rad: np.ndarray, now_s: float, least_s: float = 0.0) -> None:
        """Begin a segment from the goal at `now_s` to `target_rad`. Raises RuntimeError before `jump_to`."""
        start = self.goal(now_s)
        velocity = self._velocity(now_s)
        change = target_rad - start
        # A cubic from rest to rest peaks at 1.5 times its mean slope; with a start velocity at most at the
        # larger of both.
        needed = 1.5 * max(float(np.max(np.abs(change) / self._limit)), least_s)
        self._duration_s = max(self._ramp_s, needed)
        slope = velocity * self._duration_s
        slope = np.where(slope * change > 0.0, np.sign(change) * np.minimum(np.abs(slope), 3.0 * np.abs(change)), 0.0)
        self._start, self._change, self._start_slope = start, change, slope
        self._began_s, self._resting = now_s, False

    @property
    def velocity(self) -> np.ndarray:
        """The velocity (rad/s) of the last goal."""
        return self._velocity(self._asked_s)

    def goal(self, now_s: float) -> np.ndarray:
        """The joint goal (rad) at `now_s`; constant once the segment is over."""
        self._asked_s = now_s
        if self._start is None:
            raise RuntimeError(_NO_START)
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


class JointTracker:
    """Follows its target with bounded velocity and acceleration, all joints taking about the same time.

    It brakes in time to rest on the target; a new target is taken up at the present velocity. Advances with every call
    of `goal`. After a call that comes later than the lead, the arm has begun to brake by itself: then it goes on from
    there, so that a late tick is neither paid back by one large step nor makes the arm go back.
    """

    def __init__(
        self,
        config: TrackerConfig,
        velocity_limit_rad_s: np.ndarray,
        acceleration_limit_rad_s2: np.ndarray,
        period_s: float,
    ) -> None:
        self._config, self._period_s = config, period_s
        self._speed = velocity_limit_rad_s
        self._limit = acceleration_limit_rad_s2
        self._acceleration = acceleration_limit_rad_s2 * config.acceleration_fraction
        self._goal: np.ndarray | None = None
        self._velocity = np.zeros_like(velocity_limit_rad_s)
        self._target = np.zeros_like(velocity_limit_rad_s)
        self._cruise = velocity_limit_rad_s
        self._last_s: float | None = None
        self._halting = False

    def jump_to(self, goal_rad: np.ndarray) -> None:
        """Rest at `goal_rad` from now on: for anchoring."""
        self._goal = np.array(goal_rad, dtype=float)
        self._target, self._velocity = self._goal.copy(), np.zeros_like(self._goal)
        self._last_s, self._halting = None, False

    def halt(self, goal_rad: np.ndarray) -> np.ndarray:
        """Brake as hard as allowed; returns where that ends (n,)."""
        if self._goal is None:
            raise RuntimeError(_NO_START)
        self._halting, self._cruise = True, self._speed
        self._target = self._braked()
        return self._target.copy()

    def _braked(self) -> np.ndarray:
        """Where the arm comes to rest when it brakes as hard as allowed."""
        assert self._goal is not None
        return self._goal + self._velocity * np.abs(self._velocity) / (2.0 * self._acceleration)

    def move_to(self, target_rad: np.ndarray, now_s: float, least_s: float = 0.0) -> None:
        """Go to `target_rad` in the ramp time, or longer where the limits ask for it."""
        goal = self.goal(now_s)
        self._target, self._halting = np.array(target_rad, dtype=float), False
        brake = self._velocity**2 / (2.0 * self._acceleration)
        path = np.maximum(np.maximum(np.abs(self._target - goal), brake), _LEAST_PATH_RAD)
        duration_s = max(self._config.ramp_s, least_s, float(np.max(path / self._speed)))
        self._cruise = path / duration_s

    def goal(self, now_s: float) -> np.ndarray:
        """The joint goal (rad) at `now_s`."""
        if self._goal is None:
            raise RuntimeError(_NO_START)
        elapsed_s = 0.0 if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        if elapsed_s > self._config.lead_s + 1e-9:
            # The goal is again for the end of the lead: one for earlier would make the arm brake harder still.
            self._coast(elapsed_s - self._config.lead_s)
            elapsed_s = self._config.lead_s
        while elapsed_s > 1e-9:
            self._advance(min(elapsed_s, self._period_s))
            elapsed_s -= self._period_s
        return self._goal.copy()

    def _coast(self, seconds: float) -> None:
        """The arm has braked by itself for so long, as `stream_points` told it to."""
        assert self._goal is not None
        brake_s = braking_s(self._velocity, self._config, self._limit)
        left = max(0.0, 1.0 - seconds / brake_s)  # part of the velocity
        self._goal = self._goal + 0.5 * brake_s * (1.0 - left**2) * self._velocity
        self._velocity = left * self._velocity
        if self._halting:  # it has braked harder than was asked for: it does not start again
            self._target = self._braked()

    def _advance(self, elapsed_s: float) -> None:
        assert self._goal is not None
        left = self._target - self._goal
        gain = self._acceleration * elapsed_s
        # The speed from which braking in steps of this length ends on the target.
        braking = np.sqrt(0.25 * gain**2 + 2.0 * self._acceleration * np.abs(left)) - 0.5 * gain
        wanted = np.sign(left) * np.minimum(np.minimum(braking, np.abs(left) / elapsed_s), self._cruise)
        self._velocity = self._velocity + np.clip(wanted - self._velocity, -gain, gain)
        self._goal = self._goal + self._velocity * elapsed_s

    @property
    def velocity(self) -> np.ndarray:
        """The velocity (rad/s) of the last goal."""
        return self._velocity.copy()

    def at_rest(self, now_s: float) -> bool:
        """True when the target has been reached."""
        if self._goal is None:
            return False
        return bool((np.abs(self._velocity) < _STILL_RAD_S).all() and (np.abs(self._target - self._goal) < 1e-6).all())


def make_interpolator(
    arm: ArmModel, config: InterpolatorConfig, velocity_limit_rad_s: np.ndarray, period_s: float
) -> Interpolator:
    """What leads the goals of this arm from target to target; raises ValueError for settings that do not fit."""
    if not isinstance(config, TrackerConfig):
        return JointInterpolator(config, velocity_limit_rad_s)
    if arm.acceleration_rad_s2 is None:
        raise ValueError(f"arm {arm.name!r} states no acceleration limits; give its controller an InterpolatorConfig")
    if config.lead_s < period_s:
        lead, period = f"lead_s is {config.lead_s} s", f"the control period {period_s} s"
        raise ValueError(f"{lead}, {period}: the arm would brake before each goal; give a longer lead or a higher rate")
    return JointTracker(config, velocity_limit_rad_s, arm.acceleration_rad_s2, period_s)
