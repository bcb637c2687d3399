"""The messages of a bag that a replay needs, as typed values in the order in which they were received."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder, ahead
from instructvla_ros.bags.roles import Roles
from instructvla_ros.bags.track import MAX_CLOCK_JUMP_S
from instructvla_ros.bags.types import Record
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.state import JointStateReader
from instructvla_ros.control.types import JointSample
from instructvla_ros.control.wx250s import WX250S
from instructvla_ros.policy.ingest import frame_of, sample_of, time_to_s
from instructvla_ros.policy.reasoning_worker import Frame
from instructvla_ros.robots import arm_of

_VIEWS = ("primary", "wrist")


@dataclass(frozen=True)
class ImageEvent:
    """A camera image; `view` is primary or wrist."""

    received_ns: int
    view: str
    frame: Frame


@dataclass(frozen=True)
class JointEvent:
    """A joint state."""

    received_ns: int
    sample: JointSample


@dataclass(frozen=True)
class StepEvent:
    """An executed step: when it began, and its (7,) action."""

    received_ns: int
    began_s: float
    dt_s: float
    action: np.ndarray
    instruction_id: int


@dataclass(frozen=True)
class CommandEvent:
    """A joint goal (rad) sent to the driver; it has no stamp of its own."""

    received_ns: int
    arm_rad: np.ndarray


Event = ImageEvent | JointEvent | StepEvent | CommandEvent


def _find_arm(bag: Bag, decoder: Decoder, roles: Roles) -> ArmModel | None:
    """The arm whose joints the first readable joint state names; None where it names none."""
    for record in bag.messages(roles.topics("joints")) if roles.joints else ():
        message = decoder.decode(record)
        if message is not None:
            return arm_of(message.name)
    return None


class EventReader:
    """Reads events; what cannot be used is noted on the bag: bad encodings, bad joint states, clocks that jump, cameras
    that change. `latents` and other messages of the model are not events: they are results, not inputs.

    `robot` names the arm whose joints the bag has, "" where they are no known one's; `arm` is then the WidowX's."""

    def __init__(self, bag: Bag, decoder: Decoder, roles: Roles, *, workers: int = 2) -> None:
        self._bag, self._decoder, self._roles, self._workers = bag, decoder, roles, workers
        found = _find_arm(bag, decoder, roles)
        self.arm, self.robot = found or WX250S, found.name if found else ""
        self._joints = JointStateReader(self.arm, of_data_set=True)
        self._offset_s: dict[str, float] = {}
        self._last_stamp_s: dict[str, float] = {}
        self._size: dict[str, tuple[int, ...]] = {}

    def read(self, start_ns: int | None = None, stop_ns: int | None = None, *, images: bool = True) -> Iterator[Event]:
        """Events between two receive times; images are decoded ahead of the reader by threads."""
        names = ("primary", "wrist") if images else ()
        topics = self._roles.topics("joints", "delta", "command", *names)
        records = self._bag.messages(topics, start_ns, stop_ns)
        for event in ahead(records, self._make, self._workers):
            if event is not None and self._plausible(event):
                yield event

    def _make(self, record: Record) -> Event | None:
        """Runs in a thread of the decoder."""
        message = self._decoder.decode(record)
        if message is None:
            return None
        try:
            return self._event(record, message)
        except ValueError as error:
            self._bag.note(record.topic, str(error))
            return None
        except (TypeError, AttributeError) as error:  # a damaged definition
            self._bag.note(record.topic, f"messages that do not fit were left out ({type(error).__name__})")
            return None

    def _event(self, record: Record, message: Any) -> Event | None:
        roles, received_s = self._roles, record.stamp_ns * 1e-9
        for view in _VIEWS:
            if record.topic == getattr(roles, view):
                return ImageEvent(record.stamp_ns, view, frame_of(message, received_s))
        if record.topic == roles.joints:
            return JointEvent(record.stamp_ns, sample_of(self._joints, message, received_s))
        if record.topic == roles.delta:
            xyz, rpy = message.delta_xyz_m, message.delta_rpy_rad
            action = np.array([xyz.x, xyz.y, xyz.z, rpy.x, rpy.y, rpy.z, message.gripper], float)
            began_s = time_to_s(message.header.stamp)
            return StepEvent(record.stamp_ns, began_s, float(message.dt_s), action, int(message.instruction_id))
        return self._goal(record, message) if message.name == "arm" else None

    def _goal(self, record: Record, message: Any) -> CommandEvent | None:
        goal = np.asarray(message.cmd, float)
        wanted = len(self.arm.joint_names)
        if len(goal) == wanted and np.isfinite(goal).all():
            return CommandEvent(record.stamp_ns, goal)
        what = f"joint goals of {len(goal)} joints" if len(goal) != wanted else "joint goals that are not finite"
        self._bag.note(record.topic, f"{what} were left out; the {self.arm.name} has {wanted}")
        return None

    def _plausible(self, event: Event) -> bool:
        """Note what changes without warning; False for a joint state whose clock went backwards."""
        if isinstance(event, ImageEvent):
            topic, stamp_s = getattr(self._roles, event.view), event.frame.stamp_s
            size = event.frame.image.shape
            old = self._size.setdefault(topic, size)
            if old != size:
                self._bag.note(topic, f"the image changes from {old[1]}x{old[0]} to {size[1]}x{size[0]} on the way")
                self._size[topic] = size
        elif isinstance(event, JointEvent):
            topic, stamp_s = self._roles.joints, event.sample.stamp_s
        else:
            return True
        offset_s = stamp_s - event.received_ns * 1e-9
        if topic not in self._offset_s and abs(offset_s) > MAX_CLOCK_JUMP_S:
            self._bag.note(topic, constant_offset(offset_s))
        jump_s = offset_s - self._offset_s.setdefault(topic, offset_s)
        jumped = abs(jump_s) > MAX_CLOCK_JUMP_S
        if jumped:
            self._bag.note(topic, f"the clock of the stamps jumps by {jump_s:+.1f} s against the recorder's (F16)")
            self._offset_s[topic] = offset_s
        backwards = not jumped and stamp_s < self._last_stamp_s.get(topic, stamp_s) - 1e-9
        if backwards:
            self._bag.note(topic, "stamps that run backwards were left out")
        else:
            self._last_stamp_s[topic] = stamp_s
        return not backwards


def constant_offset(offset_s: float) -> str:
    """What is said of a clock that is far from the recorder's all the time."""
    side = "ahead of" if offset_s > 0.0 else "behind"
    return f"the stamps begin {abs(offset_s):.1f} s {side} the recorder's clock; this is allowed for"
