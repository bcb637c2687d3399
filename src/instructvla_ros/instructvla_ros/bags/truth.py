"""What was done: the recorded motion as steps of the policy's own kind, to compare its predictions with.

Three sources: the steps that the controller executed (`ee_delta`), the joint goals that were sent to the driver
(tele-operation), or the states that were reached. The last two give the pose difference over each policy step, in
Bridge's convention: translation and rotation in base axes about the measured end effector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from instructvla_ros.bags.events import CommandEvent, Event, JointEvent, StepEvent
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.rotations import matrix_to_rpy, rpy_to_matrix
from instructvla_ros.control.state import state_vector
from instructvla_ros.control.wx250s import WX250S

SOURCES = ("steps", "commands", "states")
MAX_HOLE_S = 0.25
"""Between two samples further apart than this nothing is known."""


class Track:
    """Joint positions (n, J) and finger positions (n,) at times (s), ascending; states are interpolated."""

    def __init__(
        self,
        times_s: Sequence[float],
        arm_rad: Sequence[np.ndarray],
        finger_m: Sequence[float],
        model: ArmModel = WX250S,
    ) -> None:
        self._model = model
        self.times_s = np.array(times_s, float)
        self._arm, self._finger = np.array(arm_rad, float), np.array(finger_m, float)
        self._state = lru_cache(maxsize=65_536)(self._state_at)

    def __len__(self) -> int:
        return len(self.times_s)

    def state(self, time_s: float) -> np.ndarray | None:
        """(8,) state at a time; None outside of the track or in a hole of it."""
        return self._state(round(time_s * 1e6))

    def finger_at(self, times_s: np.ndarray) -> np.ndarray:
        """Finger positions (m) at times, held at the ends."""
        return np.interp(times_s, self.times_s, self._finger)

    def _state_at(self, time_us: int) -> np.ndarray | None:
        time_s = time_us * 1e-6
        after = int(np.searchsorted(self.times_s, time_s))
        if after == len(self.times_s):
            after -= 1
        before = max(0, after - 1) if self.times_s[after] > time_s else after
        span_s = self.times_s[after] - self.times_s[before]
        outside = max(self.times_s[0] - time_s, time_s - self.times_s[-1])
        if span_s > MAX_HOLE_S or outside > 0.02:
            return None
        share = min(1.0, max(0.0, (time_s - self.times_s[before]) / span_s)) if span_s > 0.0 else 0.0
        arm = self._arm[before] + share * (self._arm[after] - self._arm[before])
        finger = self._finger[before] + share * (self._finger[after] - self._finger[before])
        return state_vector(arm, float(finger), self._model)


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The (7,) action that leads from one state (8,) to another."""
    turn = rpy_to_matrix(*after[3:6].tolist()) @ rpy_to_matrix(*before[3:6].tolist()).T
    return np.array([*(after[:3] - before[:3]), *matrix_to_rpy(turn), after[7]])


class Truth:
    """Takes events as they come; then `actions` answers for any chunk. `source` is one of SOURCES, or "auto": the first
    of them that the bag has."""

    def __init__(self, source: str = "auto") -> None:
        if source not in ("auto", *SOURCES):
            raise ValueError(f"source of recorded actions {source!r}; expected auto or one of {', '.join(SOURCES)}")
        self._wanted = source
        self._joints: list[JointEvent] = []
        self._steps: list[StepEvent] = []
        self._commands: list[CommandEvent] = []
        self.source = ""

    def add(self, event: Event) -> None:
        """Keep what is of use."""
        if isinstance(event, JointEvent):
            self._joints.append(event)
        elif isinstance(event, StepEvent):
            self._steps.append(event)
        elif isinstance(event, CommandEvent):
            self._commands.append(event)

    def finish(self, arm: ArmModel = WX250S) -> None:
        """Decide on the source; the bag is of this arm. Raises ValueError where the wanted one is not in the bag."""
        joints = sum(event.sample.state is None for event in self._joints)
        counts = {"steps": len(self._steps), "commands": len(self._commands), "states": joints}
        there = [name for name in SOURCES if counts[name] > 1]
        if self._wanted != "auto" and self._wanted not in there:
            raise ValueError(
                f"the bag has no recorded {self._wanted}; it has {', '.join(there) or 'no actions at all'}"
            )
        self.source = self._wanted if self._wanted != "auto" else (there[0] if there else "")
        samples = [event.sample for event in self._joints if event.sample.state is None]
        self.states = Track(
            [s.stamp_s for s in samples], [s.arm_rad for s in samples], [s.finger_m for s in samples], arm
        )
        self._track = self.states
        if self.source == "commands":
            # A goal has no stamp: it counts from its reception. The fingers are driven by current, so the gripper's
            # opening comes from what was reached.
            times = np.array([event.received_ns * 1e-9 for event in self._commands])
            fingers = self.states.finger_at(times) if samples else np.zeros(len(times))
            self._track = Track(times.tolist(), [event.arm_rad for event in self._commands], fingers.tolist(), arm)
        self._began_s = np.array([step.began_s for step in self._steps])
        self._kept = [event.sample for event in self._joints if event.sample.state is not None]
        self._kept_s = np.array([sample.stamp_s for sample in self._kept])

    @property
    def steps(self) -> Sequence[StepEvent]:
        """The executed steps, in the order in which they came."""
        return self._steps

    @property
    def stamps_s(self) -> np.ndarray:
        """When states are known, ascending."""
        return self._kept_s if len(self._kept_s) else self.states.times_s

    def state(self, time_s: float) -> np.ndarray | None:
        """The policy's state (8,) at a time, None where it is not known: between joint states interpolated; of a data
        set's own states the newest one."""
        if not len(self._kept_s):
            return self.states.state(time_s) if len(self.states) else None
        place = int(np.searchsorted(self._kept_s, time_s + 1e-6, side="right")) - 1
        fresh = place >= 0 and time_s - self._kept_s[place] <= MAX_HOLE_S
        return self._kept[place].state if fresh else None

    def actions(self, stamp_s: float, dt_s: float, steps: int, stop_s: float = math.inf) -> np.ndarray:
        """(steps, 7) of what was done from the stamp on, NaN where it is not known or beyond `stop_s`."""
        found = np.full((steps, 7), np.nan)
        for number in range(steps):
            begin_s = stamp_s + number * dt_s
            if begin_s + dt_s > stop_s + 1e-6:
                break
            action = self._executed(begin_s, dt_s) if self.source == "steps" else self._moved(begin_s, dt_s)
            if action is not None:
                found[number] = action
        return found

    def _executed(self, begin_s: float, dt_s: float) -> np.ndarray | None:
        """The step that began nearest to a time, within half a step."""
        place = int(np.searchsorted(self._began_s, begin_s))
        near = [n for n in (place - 1, place) if 0 <= n < len(self._began_s)]
        best = min(near, key=lambda n: abs(self._began_s[n] - begin_s), default=None)
        if best is None or abs(self._began_s[best] - begin_s) > 0.5 * dt_s + 1e-6:
            return None
        return self._steps[best].action

    def _moved(self, begin_s: float, dt_s: float) -> np.ndarray | None:
        if not len(self._track):
            return None
        before, after = self._track.state(begin_s), self._track.state(begin_s + dt_s)
        return None if before is None or after is None else difference(before, after)
