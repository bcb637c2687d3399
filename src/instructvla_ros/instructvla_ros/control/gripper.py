"""Grippers: the policy's opening 0..1 turned into what the drive understands.

`GripperLoop` is for the WidowX, whose driver runs the gripper in PWM mode without a position loop of its own (positive
opens): a closed gripper that keeps pushing at full PWM overloads the servo, so the limit drops once the fingers are
stopped by an object. `WidthGripper` is for grippers that are told a width and hold it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from instructvla_ros.control.wx250s import WX250S


@dataclass(frozen=True)
class OpeningConfig:
    """How the policy's opening is read: as open or closed, with hysteresis and a minimum time between changes."""

    binarize: bool = True
    close_below: float = 0.4
    open_above: float = 0.6
    dwell_s: float = 0.4


@dataclass(frozen=True)
class GripperConfig(OpeningConfig):
    """Gains and limits of the PWM loop. PWM values are the driver's units; the vendor's own range is 150..350."""

    gain_per_m: float = 300.0
    max_pwm: float = 350.0
    relief_pwm: float = 200.0
    deadband_m: float = 0.0003
    # Contact: closing is asked for, yet the finger has been slower than this for this long.
    contact_speed_m_s: float = 0.004
    contact_time_s: float = 0.16
    contact_error_m: float = 0.0015


@dataclass(frozen=True)
class WidthConfig(OpeningConfig):
    """`open_width_m` is what the opening 1 means; less than the gripper can keeps it clear of neighbours."""

    open_width_m: float = 0.08


@dataclass(frozen=True)
class GripperOutput:
    """What to send in this tick, None for nothing."""

    pwm: float | None = None
    width_m: float | None = None


class Gripper(Protocol):
    """One thread owns an object. Finger positions are those of the arm's finger joint, in metres."""

    def reset(self) -> None:
        """The arm begins anew: forget the wanted opening, let go of nothing."""

    def forget(self) -> None:
        """Nobody knows what is held by now: the next `hold` stays at the measured opening."""

    def relief(self) -> float | None:
        """The PWM that may stay while nothing more is sent; None for drives without one."""

    def request(self, opening: float, now_s: float) -> None:
        """Ask for an opening 0..1."""

    def hold(self, finger_m: float) -> None:
        """Stop moving, keep what is held."""

    def output(self, finger_m: float | None, now_s: float) -> GripperOutput:
        """What to send now; `finger_m` None: it cannot be measured."""


class OpeningRequest:
    """Memory of the wanted opening."""

    def __init__(self, config: OpeningConfig) -> None:
        self._reading = config
        self.opening: float | None = None
        self._changed_s: float | None = None

    def reset(self) -> None:
        """Forget the wanted opening."""
        self.opening = None
        self._changed_s = None

    def request(self, opening: float, now_s: float) -> None:
        """Ask for an opening 0..1. With `binarize`, small wavering and changes within the dwell time are
        ignored."""
        config = self._reading
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
        if config.binarize and self._changed_s is not None and 0.0 <= now_s - self._changed_s < config.dwell_s:
            return
        before, self.opening, self._changed_s = self.opening, wanted, now_s
        self._changed(before, wanted)

    def forget(self) -> None:
        """Forget all that was wanted and seen."""
        self.reset()

    def _changed(self, before: float | None, wanted: float) -> None:
        """Another opening is wanted."""


class WidthGripper(OpeningRequest):
    """For drives that are told a width (m between the fingers) and reach and hold it by themselves."""

    def __init__(self, config: WidthConfig | None = None) -> None:
        self._config = config or WidthConfig()
        super().__init__(self._config)

    def hold(self, finger_m: float) -> None:
        """Nothing to do: the drive holds by itself, and an interrupted grasp would drop its object."""

    def relief(self) -> None:
        """None: the drive minds its force itself."""

    def output(self, finger_m: float | None, now_s: float) -> GripperOutput:
        """The wanted width; nothing before an opening was asked for."""
        return GripperOutput(width_m=None if self.opening is None else self.opening * self._config.open_width_m)


class GripperLoop(OpeningRequest):
    """Proportional PWM loop with memory of contact."""

    def __init__(self, config: GripperConfig | None = None) -> None:
        self._config = config or GripperConfig()
        super().__init__(self._config)
        self.in_contact = False
        self._slow_since_s: float | None = None
        self._last: tuple[float, float] | None = None

    def reset(self) -> None:
        """Forget the wanted opening, and send nothing until `request` or `hold`; but what is held stays held."""
        if not self.in_contact:
            super().reset()
        self._slow_since_s = self._last = None

    def forget(self) -> None:
        """Forget what was held, too: it may be gone, and the fingers would close on nothing, or on a hand."""
        self.in_contact = False
        self.reset()

    def _changed(self, before: float | None, wanted: float) -> None:
        if before is None or wanted > before:
            self.in_contact = False
        self._slow_since_s = None

    def hold(self, finger_m: float) -> None:
        """Stop moving: keep squeezing what is held, otherwise stay at the present opening."""
        if not self.in_contact:
            self.opening = WX250S.fingers.opening(finger_m)
            self._changed_s = None

    def output(self, finger_m: float | None, now_s: float) -> GripperOutput:
        """The PWM to send; with a finger that cannot be measured, only what keeps a held object."""
        return GripperOutput(pwm=self.relief() if finger_m is None else self.pwm(finger_m, now_s))

    def pwm(self, finger_m: float, now_s: float) -> float | None:
        """The PWM to send for the measured left-finger position, or None before anything was asked for."""
        if self.opening is None:
            return None
        config = self._config
        error_m = WX250S.fingers.position_m(self.opening) - finger_m
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
