"""How a servo moves its commanded position to a goal: time profile and velocity profile, six
joints at once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

RPM_UNIT_RAD_S = 0.229 * 2.0 * np.pi / 60.0
"""One unit of Profile_Velocity under a velocity profile (X-series servos: 0.229 rev/min)."""
RPM2_UNIT_RAD_S2 = 214.577 * 2.0 * np.pi / 3600.0
"""One unit of Profile_Acceleration under a velocity profile (214.577 rev/min²)."""


@dataclass(frozen=True)
class ProfileState:
    """A running profile. Arrays (n,): start and goal in radians, start and cruise velocity in rad/s. `begin_s` is one
    number, or (n,) where the joints began at different times."""

    start_rad: np.ndarray
    start_rad_s: np.ndarray
    goal_rad: np.ndarray
    cruise_rad_s: np.ndarray
    begin_s: float | np.ndarray
    ramp_s: np.ndarray
    total_s: np.ndarray

    def at(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Commanded position and velocity at a time, (n,) each."""
        t = now_s - self.begin_s
        ramp, total = self.ramp_s, self.total_s
        up = np.minimum(t, ramp)
        flat = np.minimum(np.maximum(t - ramp, 0.0), total - 2 * ramp)
        down = np.minimum(np.maximum(t - total + ramp, 0.0), ramp)
        inverse = 1.0 / ramp
        v0, vc = self.start_rad_s, self.cruise_rad_s
        gain = (vc - v0) * inverse
        position = self.start_rad + (v0 + 0.5 * gain * up) * up + vc * flat + vc * (1.0 - 0.5 * down * inverse) * down
        velocity = v0 + gain * up - vc * inverse * down
        done = t >= total
        if done.any():
            position = np.where(done, self.goal_rad, position)
            velocity = np.where(done, 0.0, velocity)
        return position, velocity


def hold(position_rad: np.ndarray, now_s: float) -> ProfileState:
    """A profile that stays where it is."""
    zero = np.zeros_like(position_rad)
    tiny = np.full_like(position_rad, 1e-9)
    return ProfileState(position_rad.copy(), zero, position_rad.copy(), zero, now_s, tiny, 2 * tiny)


def turn(
    position_rad: np.ndarray, velocity_rad_s: np.ndarray, lower_rad: np.ndarray, upper_rad: np.ndarray, now_s: float
) -> ProfileState:
    """Velocity mode: at a constant speed until a limit is reached; without speed it stays where it is."""
    goal = np.where(velocity_rad_s > 0.0, upper_rad, np.where(velocity_rad_s < 0.0, lower_rad, position_rad))
    tiny = np.full_like(position_rad, 1e-9)
    total = np.maximum(np.abs(goal - position_rad) / np.maximum(np.abs(velocity_rad_s), 1e-9), 2 * tiny)
    return ProfileState(position_rad, velocity_rad_s, goal, velocity_rad_s, now_s, tiny, total)


def mix(old: ProfileState, new: ProfileState, take_new: np.ndarray) -> ProfileState:
    """Joints in `take_new` follow `new`, the others go on with `old`."""
    return ProfileState(*(np.where(take_new, getattr(new, f.name), getattr(old, f.name)) for f in fields(old)))


def time_profile(
    position_rad: np.ndarray,
    velocity_rad_s: np.ndarray,
    goal_rad: np.ndarray,
    now_s: float,
    duration_ms: np.ndarray,
    accel_ms: np.ndarray,
) -> ProfileState:
    """Trapezoid that lasts `duration_ms` and keeps position and velocity continuous; 0 ms steps at once."""
    total = np.maximum(np.asarray(duration_ms, dtype=float) * 1e-3, 2e-9)
    ramp = np.clip(np.asarray(accel_ms, dtype=float) * 1e-3, 1e-9, total / 2)
    cruise = (goal_rad - position_rad - 0.5 * velocity_rad_s * ramp) / (total - ramp)
    return ProfileState(position_rad, velocity_rad_s, goal_rad, cruise, now_s, ramp, total)


def velocity_profile(
    position_rad: np.ndarray,
    velocity_rad_s: np.ndarray,
    goal_rad: np.ndarray,
    now_s: float,
    velocity_units: np.ndarray,
    accel_units: np.ndarray,
) -> ProfileState:
    """Trapezoid limited in speed and acceleration (register units); 0 means as fast as the servo can."""
    top = np.where(np.asarray(velocity_units) > 0, np.asarray(velocity_units) * RPM_UNIT_RAD_S, np.pi)
    accel = np.where(np.asarray(accel_units) > 0, np.asarray(accel_units) * RPM2_UNIT_RAD_S2, 40.0)
    distance = goal_rad - position_rad
    peak = np.minimum(top, np.sqrt(np.abs(distance) * accel + 1e-12))
    ramp = np.maximum(peak / accel, 1e-3)
    total = np.maximum(np.abs(distance) / peak + ramp, 2 * ramp)
    made = ProfileState(position_rad, velocity_rad_s, goal_rad, np.zeros_like(goal_rad), now_s, ramp, total)
    cruise = (distance - 0.5 * velocity_rad_s * ramp) / (total - ramp)
    return replace(made, cruise_rad_s=cruise)
