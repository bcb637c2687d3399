"""What was done: the recorded motion as steps of the policy's own kind, to compare its predictions with.

Three sources: the steps that the controller executed (`ee_delta`), the joint goals that were sent to the driver
(tele-operation), or the states that were reached. The last two give the pose difference over each policy step, in
Bridge's convention: translation and rotation in base axes about the measured end effector.

Times are those of the stamps. Where their clock jumps, the recording is cut into parts, and an image is looked up in
the part that its own stamp and its receive time agree with; where none does, nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from instructvla_ros.bags.events import CommandEvent, Event, ImageEvent, JointEvent, StepEvent
from instructvla_ros.bags.track import MAX_CLOCK_JUMP_S, MAX_HOLE_S, Rows, Spans, Track, allowed_for
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.rotations import matrix_to_rpy, rpy_to_matrix
from instructvla_ros.control.state import STATE_DIM
from instructvla_ros.control.wx250s import WX250S

SOURCES = ("steps", "commands", "states")
_SAME_DURATION = 0.01
"""The share by which two steps of the same duration may differ: messages hold 32 bits, checkpoints decimal numbers."""


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The (7,) action that leads from one state (8,) to another."""
    turn = rpy_to_matrix(*after[3:6].tolist()) @ rpy_to_matrix(*before[3:6].tolist()).T
    return np.array([*(after[:3] - before[:3]), *matrix_to_rpy(turn), after[7]])


def same_duration(step: StepEvent, dt_s: float) -> bool:
    """Whether an executed step lasts as long as a policy's: only then are their distances alike."""
    return abs(step.dt_s - dt_s) <= _SAME_DURATION * dt_s


class Truth:
    """Takes events as they come; then `actions` answers for any chunk. `source` is one of SOURCES, or "auto": the first
    of them that the bag has, executed steps only where they last as long as the policies'."""

    def __init__(self, source: str = "auto") -> None:
        if source not in ("auto", *SOURCES):
            raise ValueError(f"source of recorded actions {source!r}; expected auto or one of {', '.join(SOURCES)}")
        self._wanted = source
        self._joints, self._kept, self._commands = Rows(), Rows(), Rows()  # (stamp, reception, …) or (reception, …)
        self._steps: list[StepEvent] = []
        self._cameras: list[tuple[float, float]] = []
        self.source = ""

    def add(self, event: Event) -> None:
        """Keep what is of use."""
        received_s = event.received_ns * 1e-9
        if isinstance(event, JointEvent):
            sample = event.sample
            if sample.state is None:
                self._joints.add((sample.stamp_s, received_s, *sample.arm_rad.tolist(), sample.finger_m))
            else:
                self._kept.add((sample.stamp_s, received_s, *sample.state.tolist()))
        elif isinstance(event, StepEvent):
            self._steps.append(event)
        elif isinstance(event, CommandEvent):
            self._commands.add((received_s, *event.arm_rad.tolist()))
        elif isinstance(event, ImageEvent) and event.view == "primary":
            self.see(event.frame.stamp_s, received_s)

    def see(self, stamp_s: float, received_s: float) -> None:
        """An image of the primary camera, whose clock and delay `actions` and `state` reckon with."""
        ahead_s = stamp_s - received_s
        if not self._cameras or abs(ahead_s - self._cameras[-1][1]) > MAX_CLOCK_JUMP_S:
            self._cameras.append((received_s, ahead_s))

    def finish(self, arm: ArmModel = WX250S, durations_s: Collection[float] = ()) -> None:
        """Decide on the source; the bag is of this arm, a step of the policies lasts so long. Raises ValueError where
        the wanted source is not in the bag."""
        steps = self._steps
        if self._wanted == "auto":
            steps = [step for step in steps if all(same_duration(step, dt_s) for dt_s in durations_s)]
        counts = {"steps": len(steps), "commands": len(self._commands), "states": len(self._joints)}
        there = [name for name in SOURCES if counts[name] > 1]
        if self._wanted != "auto" and self._wanted not in there:
            raise ValueError(
                f"the bag has no recorded {self._wanted}; it has {', '.join(there) or 'no actions at all'}"
            )
        self.source = self._wanted if self._wanted != "auto" else (there[0] if there else "")
        joints = self._joints.table(3 + len(arm.joint_names))
        self._joint_spans = self._spans(joints[:, 0], joints[:, 1])
        parts = [joints[part] for part in self._joint_spans.parts]
        self._states = [Track(rows[:, 0], rows[:, 2:-1], rows[:, -1], arm) for rows in parts]
        self._tracks = self._commanded(arm, joints[:, 1]) if self.source == "commands" else self._states
        kept = self._kept.table(2 + STATE_DIM)
        self._kept_spans = self._spans(kept[:, 0], kept[:, 1])
        self._kept_rows = [kept[part] for part in self._kept_spans.parts]
        began_s = np.array([step.began_s for step in self._steps])
        self._step_spans = self._spans(began_s, np.array([step.received_ns * 1e-9 for step in self._steps]))
        self._step_order = [
            part[np.argsort(began_s[part], kind="stable")] for part in self._step_spans.parts
        ]
        self._began_s = [began_s[order] for order in self._step_order]

    def _spans(self, stamps_s: np.ndarray, received_s: np.ndarray) -> Spans:
        spans = Spans(stamps_s, received_s)
        spans.hang_on(self._cameras)
        return spans

    def _commanded(self, arm: ArmModel, joints_s: np.ndarray) -> list[Track]:
        """The goals, by the clock of the joint states (received at `joints_s`) before each. A goal has no stamp: it
        counts from its reception. The fingers are driven by current, so the gripper's opening comes from what was
        reached."""
        goals = self._commands.table(1 + len(arm.joint_names))
        if not len(self._joint_spans):  # no other clock than the recorder's
            self._joint_spans = self._spans(goals[:, 0], goals[:, 0])
            self._states = [Track([], [], [], arm) for _ in self._joint_spans.parts]
            newest = np.arange(len(goals))
        else:
            newest = np.maximum(np.searchsorted(joints_s, goals[:, 0], side="right") - 1, 0)
        labels, found = self._joint_spans.labels[newest], []
        for part, states in enumerate(self._states):
            rows = goals[labels == part]
            times_s = rows[:, 0] + allowed_for(float(self._joint_spans.offsets_s[part]))
            found.append(Track(times_s, rows[:, 1:], states.finger_at(times_s), arm))
        return found

    @property
    def steps(self) -> Sequence[StepEvent]:
        """The executed steps, in the order in which they came."""
        return self._steps

    def stamps_s(self, stamp_s: float, received_s: float) -> np.ndarray:
        """When states are known, ascending, on the clock of an image with this stamp and receive time."""
        if len(self._kept):
            part = self._kept_spans.find(stamp_s, received_s)
            return np.empty(0) if part is None else self._kept_rows[part][:, 0]
        part = self._joint_spans.find(stamp_s, received_s)
        return np.empty(0) if part is None else self._states[part].times_s

    def state(self, time_s: float, received_s: float) -> np.ndarray | None:
        """The policy's state (8,) at a stamp, None where it is not known: between joint states interpolated; of a data
        set's own states the newest one. `received_s` is when an image of this stamp was, or would be, received."""
        if not len(self._kept):
            part = self._joint_spans.find(time_s, received_s)
            return None if part is None else self._states[part].state(time_s)
        part = self._kept_spans.find(time_s, received_s)
        if part is None:
            return None
        rows = self._kept_rows[part]
        place = int(np.searchsorted(rows[:, 0], time_s + 1e-6, side="right")) - 1
        fresh = place >= 0 and time_s - rows[place, 0] <= MAX_HOLE_S
        return rows[place, 2:].astype(np.float32) if fresh else None

    def actions(
        self, stamp_s: float, received_s: float, dt_s: float, steps: int, stop_s: float = math.inf
    ) -> np.ndarray:
        """(steps, 7) of what was done from an image's stamp on, NaN where it is not known or beyond `stop_s`, which is
        a receive time."""
        found = np.full((steps, 7), np.nan)
        spans = self._step_spans if self.source == "steps" else self._joint_spans
        part = spans.find(stamp_s, received_s)
        if part is None:
            return found
        stop_s += allowed_for(float(spans.offsets_s[part]))
        for number in range(steps):
            begin_s = stamp_s + number * dt_s
            if begin_s + dt_s > stop_s + 1e-6:
                break
            executed = self.source == "steps"
            action = self._executed(part, begin_s, dt_s) if executed else self._moved(part, begin_s, dt_s)
            if action is not None:
                found[number] = action
        return found

    def _executed(self, part: int, begin_s: float, dt_s: float) -> np.ndarray | None:
        """The step of this duration that began nearest to a time, within half a step."""
        began_s = self._began_s[part]
        place = int(np.searchsorted(began_s, begin_s))
        near = [n for n in (place - 1, place) if 0 <= n < len(began_s)]
        best = min(near, key=lambda n: abs(began_s[n] - begin_s), default=None)
        if best is None or abs(began_s[best] - begin_s) > 0.5 * dt_s + 1e-6:
            return None
        step = self._steps[int(self._step_order[part][best])]
        return step.action if same_duration(step, dt_s) else None

    def _moved(self, part: int, begin_s: float, dt_s: float) -> np.ndarray | None:
        track = self._tracks[part]
        before, after = track.state(begin_s), track.state(begin_s + dt_s)
        return None if before is None or after is None else difference(before, after)
