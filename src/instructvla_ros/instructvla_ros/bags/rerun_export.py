"""A recording as an .rrd file for the Rerun viewer: cameras, joints, end effector, executed steps, words.

`entries` says what is shown where and when; `export` hands that to the optional library rerun-sdk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructvla_ros.bags import pictures
from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import Episode, find_episodes
from instructvla_ros.bags.roles import find_roles
from instructvla_ros.bags.types import BagError, Record
from instructvla_ros.control.state import JointStateReader, state_of
from instructvla_ros.policy.ingest import sample_of
from instructvla_ros.robots import arm_of

STATE_NAMES = ("x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad")
STEP_NAMES = ("dx_m", "dy_m", "dz_m", "droll_rad", "dpitch_rad", "dyaw_rad", "gripper")
TIMELINE = "received"


@dataclass(frozen=True)
class Entry:
    """Something to be shown at `path`: a JPEG or PNG (bytes), a text, or numbers (n,) that `names` names."""

    path: str
    time_ns: int
    value: bytes | str | np.ndarray
    names: tuple[str, ...] = ()


class _Reader:
    """From messages to entries."""

    def __init__(self, bag: Bag, given: Mapping[str, str]) -> None:
        self._bag, self._decoder, self._roles = bag, Decoder(bag), find_roles(bag, given)
        self._joints: JointStateReader | None = None

    def episodes(self) -> list[Episode]:
        """Those that are in the bag; none where nobody says what was shown."""
        try:
            return find_episodes(self._bag, self._decoder, self._roles)
        except BagError as error:
            self._bag.note(self._bag.name, str(error))
            return []

    def entries(self) -> Iterator[Entry]:
        """In the order in which the messages were received."""
        for record in self._bag.messages(self._roles.topics()):
            message = self._decoder.decode(record)
            if message is not None:
                try:
                    yield from self._entries(record, message)
                except ValueError as error:
                    self._bag.note(record.topic, str(error))

    def _entries(self, record: Record, message: Any) -> Iterator[Entry]:
        roles, time_ns = self._roles, record.stamp_ns
        if record.topic in (roles.primary, roles.wrist):
            view = "primary" if record.topic == roles.primary else "wrist"
            compressed = record.type_name == pictures.COMPRESSED
            yield Entry(f"camera/{view}", time_ns, bytes(message.data) if compressed else pictures.compress(message)[1])
        elif record.topic == roles.joints:
            yield Entry("joints", time_ns, np.asarray(message.position, float), tuple(message.name))
            arm = arm_of(message.name)
            if arm is not None:
                self._joints = self._joints or JointStateReader(arm)
                state = state_of(sample_of(self._joints, message, 0.0), arm)
                yield Entry("end_effector", time_ns, state[:6], STATE_NAMES)
                yield Entry("gripper", time_ns, state[7:], ("opening",))
        elif record.topic == roles.delta:
            xyz, rpy = message.delta_xyz_m, message.delta_rpy_rad
            step = np.array([xyz.x, xyz.y, xyz.z, rpy.x, rpy.y, rpy.z, message.gripper])
            yield Entry("executed_step", time_ns, step, STEP_NAMES)
        elif record.topic == roles.reasoning and message.final and message.text:
            yield Entry("words/reasoning", time_ns, message.text)
        elif record.topic == roles.safety and message.reason:
            yield Entry("words/safety", time_ns, message.reason)
        elif record.topic == roles.note:
            yield Entry("words/annotation", time_ns, message.data)


def entries(bag: Bag, topics: Mapping[str, str] | None = None) -> Iterator[Entry]:
    """What a bag shows; a text that stays the same is told once. Raises BagError where it has no camera images."""
    reader, last = _Reader(bag, topics or {}), {}
    for episode in reader.episodes():
        yield Entry("words/instruction", episode.start_ns, episode.instruction)
    for entry in reader.entries():
        if not isinstance(entry.value, str) or last.get(entry.path) != entry.value:
            yield entry
        if isinstance(entry.value, str):
            last[entry.path] = entry.value


def export(
    bag: Bag, target: Path, topics: Mapping[str, str] | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> int:  # fmt: skip
    """Write the file -> number of entries. Raises ImportError without rerun-sdk, OSError, BagError."""
    import rerun as rr

    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder; make it first")
    stream = rr.RecordingStream("instructvla", recording_id=bag.name)
    stream.save(target)
    named: set[str] = set()
    positions: list[np.ndarray] = []
    count, start_ns, span_ns = 0, bag.start_ns, max(1, bag.end_ns - bag.start_ns)
    for count, entry in enumerate(entries(bag, topics), 1):
        stream.set_time(TIMELINE, timestamp=np.datetime64(entry.time_ns, "ns"))
        if isinstance(entry.value, bytes):
            kind = "image/png" if entry.value.startswith(b"\x89PNG") else "image/jpeg"
            stream.log(entry.path, rr.EncodedImage(contents=entry.value, media_type=kind))
        elif isinstance(entry.value, str):
            stream.log(entry.path, rr.TextLog(entry.value))
        else:
            if entry.path not in named:
                named.add(entry.path)
                stream.log(entry.path, rr.SeriesLines(names=list(entry.names)), static=True)
            stream.log(entry.path, rr.Scalars(entry.value))
            if entry.path == "end_effector":
                positions.append(entry.value[:3])
                stream.log("scene/end_effector", rr.Points3D([entry.value[:3]], radii=[0.008]))
        if count % 500 == 0:
            on_progress((entry.time_ns - start_ns) / span_ns)
    if positions:
        stream.log("scene/path", rr.LineStrips3D([np.array(positions)]), static=True)
    stream.disconnect()
    return count
