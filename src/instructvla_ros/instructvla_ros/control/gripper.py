"""The WidowX gripper: policy opening 0..1, finger metres and a 50 Hz PWM loop with relief after contact.

The driver's gripper runs in PWM mode and has no position loop of its own; positive PWM opens. A closed
gripper that keeps pushing at full PWM overloads the servo, so the limit drops once the fingers are stopped by
an object.
"""

from __future__ import annotations

from dataclasses import dataclass

FINGER_CLOSED_M = 0.015
FINGER_OPEN_M = 0.037


@dataclass(frozen=True)
class GripperConfig:
    """Gains and limits of the loop. PWM values are the driver's units; the vendor's own range is 150..350."""

    gain_per_m: float = 300.0
    max_pwm: float = 350.0
    relief_pwm: float = 200.0
    deadband_m: float = 0.0003
    # Contact: closing is asked for, yet the finger has been slower than this for this long.
    contact_speed_m_s: float = 0.004
    contact_time_s: float = 0.16
    contact_error_m: float = 0.0015
    # The policy's opening is read as open or closed with hysteresis and a minimum time between changes.
    binarize: bool = True
    close_below: float = 0.4
    open_above: float = 0.6
    dwell_s: float = 0.4


def opening_to_finger_m(opening: float) -> float:
    """Finger position in metres of an opening 0..1 (1 open); values outside are clipped."""
    return FINGER_CLOSED_M + min(max(opening, 0.0), 1.0) * (FINGER_OPEN_M - FINGER_CLOSED_M)


def finger_to_opening(finger_m: float) -> float:
    """Opening 0..1 of a left-finger position in metres; the inverse of `opening_to_finger_m`, clipped."""
    return min(max((finger_m - FINGER_CLOSED_M) / (FINGER_OPEN_M - FINGER_CLOSED_M), 0.0), 1.0)


class GripperLoop:
    """Proportional loop with memory of the wanted opening and of contact. One thread owns an object."""

    def __init__(self, config: GripperConfig | None = None) -> None:
        self._config = config or GripperConfig()
        self.reset()

    def reset(self) -> None:
        """Forget the wanted opening; the loop sends nothing until `request` or `hold`."""
        self.opening: float | None = None
        self.in_contact = False
        self._changed_s: float | None = None
        self._slow_since_s: float | None = None
        self._last: tuple[float, float] | None = None

    def request(self, opening: float, now_s: float) -> None:
        """Ask for an opening 0..1. With `binarize`, small wavering and changes within the dwell time are
        ignored."""
        config = self._config
        if config.binarize:
            if opening <= config.close_below:
                wanted = 0.0
            elif opening >= config.open_above:
                wanted = 1.0
            else:
                return
        else:
            wanted = min(max(opening, 0.0), 1.0)
        if wanted == self.opening:
            return
        if (
            config.binarize
            and self._changed_s is not None
            and 0.0 <= now_s - self._changed_s < config.dwell_s
        ):
            return
        if self.opening is None or wanted > self.opening:
            self.in_contact = False
        self.opening, self._changed_s, self._slow_since_s = wanted, now_s, None

    def hold(self, finger_m: float) -> None:
        """Stop moving: keep squeezing what is held, otherwise stay at the present opening."""
        if not self.in_contact:
            self.opening = finger_to_opening(finger_m)
            self._changed_s = None

    def pwm(self, finger_m: float, now_s: float) -> float | None:
        """The PWM to send for the measured left-finger position, or None before anything was asked for."""
        if self.opening is None:
            return None
        config = self._config
        error_m = opening_to_finger_m(self.opening) - finger_m
        self._watch_contact(error_m, finger_m, now_s)
        if abs(error_m) < config.deadband_m and not self.in_contact:
            return 0.0
        limit = config.relief_pwm if self.in_contact else config.max_pwm
        effort = min(max(error_m * config.gain_per_m, -1.0), 1.0) * config.max_pwm
        return min(max(effort, -limit), limit)

    def relief(self) -> float:
        """The PWM when the finger cannot be measured: keep a held object with the relieved force, else
        nothing."""
        return -self._config.relief_pwm if self.in_contact else 0.0

    def _watch_contact(self, error_m: float, finger_m: float, now_s: float) -> None:
        config, last = self._config, self._last
        if last is not None and now_s <= last[1]:
            return
        self._last = (finger_m, now_s)
        closing = error_m < -config.contact_error_m
        if not closing or last is None:
            self._slow_since_s = None
            if error_m > config.contact_error_m or abs(error_m) < config.deadband_m:
                self.in_contact = False
            return
        speed = abs(finger_m - last[0]) / (now_s - last[1])
        if speed > config.contact_speed_m_s:
            self._slow_since_s = None
        elif self._slow_since_s is None:
            self._slow_since_s = now_s
        elif now_s - self._slow_since_s >= config.contact_time_s:
            self.in_contact = True
