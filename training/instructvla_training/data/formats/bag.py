"""rosbag2 recordings (MCAP or SQLite) of the project's own graph as episodes.

An episode is an uninterrupted run of executed steps (`ee_delta`) of one instruction; a bag without any, such as one
of a teleoperated arm, is one episode whose text stands in a file beside it. States come from the joint states through
the arm's kinematics, which their names tell; images are the newest ones at the beginning of each step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError

from instructvla_ros.control.rotations import matrix_to_rpy, rpy_to_matrix

from .bag_states import JOINT_STATE, Joints
from .episode import DataError, Episode, EpisodeDataset, Images, StateLayout, choose_cameras, decode_image

MAX_AGE_S = 0.5
"""Of an image or a state at the beginning of a step; the controller stops at such ages too."""
GAP_STEPS = 3.0
"""A pause longer than this many steps ends an episode."""
MIN_STEPS = 4
ACTIONS = ("executed", "reached")
INSTRUCTION_FILE = "instruction.txt"
"""In a bag's folder: what the person who drove the arm was told to do."""
STEP_S = 0.2
"""Of the steps that a bag without executed ones is cut into."""
_IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
_MARGIN_NS = 2_000_000_000


@dataclass(frozen=True)
class _Step:
    received_ns: int
    stamp_s: float
    dt_s: float
    action: tuple[float, ...]


@dataclass(frozen=True)
class _Run:
    bag: Path
    name: str
    instruction: str
    steps: tuple[_Step, ...]


def find_bags(root: Path) -> list[Path]:
    """Bag folders at or below ``root``, in name order."""
    return sorted(path.parent for path in Path(root).rglob("metadata.yaml"))


class BagDataset(EpisodeDataset):
    """All bags below a folder. Opening it reads the small messages; joint states and images are read with an episode.

    ``actions``: "executed" takes the steps that the controller executed; "reached" the differences of the states
    that were reached, as Bridge does, with the opening of the step after; only so can bags without executed steps be
    read.
    """

    format = "bag"
    layout = StateLayout.RPY

    def __init__(self, root: Path, *, cameras: Mapping[str, str] | None = None, actions: str = "executed") -> None:
        """``cameras``: view -> image topic. Raises DataError."""
        if actions not in ACTIONS:
            raise DataError(f"actions {actions!r}; expected one of {ACTIONS}")
        self.root, self.name, self._actions = Path(root), Path(root).name, actions
        self._bags = find_bags(self.root)
        if not self._bags:
            raise DataError(
                f"{root}: found no metadata.yaml, expected rosbag2 folders; record some: instructvla record"
            )
        self._cameras = self._choose(cameras or {})
        self.views = tuple(self._cameras)
        self._runs = [run for bag in self._bags for run in _runs(bag, actions)]
        if not self._runs:
            raise DataError(
                f"{root}: found no executed steps in {len(self._bags)} bags; expected the topic ee_delta, and "
                f"at least {MIN_STEPS} steps of an instruction; recordings of a teleoperated arm: --actions reached"
            )
        self.dt_s = float(np.median([step.dt_s for run in self._runs for step in run.steps]))

    @property
    def reading(self) -> str:
        return f"{super().reading} {self._actions} {sorted(self._cameras.items())}"

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        run = self._runs[self._checked(index)]
        begin_s = np.array([step.stamp_s for step in run.steps])
        window = (run.steps[0].received_ns - _MARGIN_NS, run.steps[-1].received_ns + _MARGIN_NS)
        with _open(run.bag) as reader:
            state, state_age_s = _states(reader, window, begin_s)
            stamps = {view: _stamps(reader, topic, window) for view, topic in self._cameras.items()}
        newest = {view: _newest(found[0], begin_s) for view, found in stamps.items()}
        age_s = np.max([state_age_s, *(begin_s - found[0][newest[view]] for view, found in stamps.items())], axis=0)
        kept = _kept(age_s, run)
        action = np.array([step.action for step in run.steps])
        if self._actions == "reached":
            action = _reached(state)
            kept = kept[kept < len(state) - 1]
        return Episode(
            file_path=str(run.bag.relative_to(self.root.parent)),
            episode_id=run.name,
            instruction=run.instruction,
            state_TS=state[kept].astype(np.float32),
            action_TA=action[kept].astype(np.float32),
            images={
                view: BagImages(run.bag, self._cameras[view], tuple(stamps[view][1][newest[view][kept]].tolist()))
                for view in self._cameras
            },
            time_s=begin_s[kept] - begin_s[kept[0]],
        )

    def files(self) -> list[Path]:
        return [path for bag in self._bags for path in sorted(bag.iterdir()) if path.is_file()]

    def _choose(self, wanted: Mapping[str, str]) -> dict[str, str]:
        with _open(self._bags[0]) as reader:
            topics = sorted({c.topic for c in reader.connections if c.msgtype in _IMAGE_TYPES})
        return choose_cameras(topics, wanted, self._bags[0])


@dataclass(frozen=True)
class BagImages(Images):
    """Images of one topic by the times at which they were received (the same may come several times)."""

    bag: Path
    topic: str
    received_ns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.received_ns)

    def __getitem__(self, step: int) -> np.ndarray:
        return next(self._read([self.received_ns[step]]))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read(self.received_ns)

    def _read(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """One pass over the topic from the first wanted time to the last."""
        with _open(self.bag) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            position = 0
            for connection, time_ns, data in reader.messages(connections, wanted[0], wanted[-1] + 1):
                if time_ns != wanted[position]:
                    continue
                image = _decode(reader.deserialize(data, connection.msgtype), f"{self.bag} {self.topic}")
                while position < len(wanted) and wanted[position] == time_ns:
                    position += 1
                    yield image
                if position == len(wanted):
                    return
        raise DataError(f"{self.bag} {self.topic}: no image received at {wanted[position]} ns; was the bag changed?")


def _open(bag: Path) -> AnyReader:
    try:
        return AnyReader([bag])
    except AnyReaderError as error:
        raise DataError(f"{bag}: {error}; expected a rosbag2 folder; finish or copy the recording again") from error


def _runs(bag: Path, actions: str) -> list[_Run]:
    """Runs of executed steps of one bag, or the whole of it where it has none."""
    texts: dict[int, str] = {}
    steps: dict[int, list[_Step]] = {}
    with _open(bag) as reader:
        kinds = ("instructvla_msgs/msg/EndEffectorDelta", "instructvla_msgs/msg/Reasoning")
        wanted = [c for c in reader.connections if c.msgtype in kinds]
        for connection, time_ns, data in reader.messages(wanted) if wanted else ():
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.msgtype == kinds[0]:
                steps.setdefault(message.instruction_id, []).append(_step(message, time_ns))
            elif message.instruction:
                texts.setdefault(message.instruction_id, message.instruction)
        if not steps and actions == "reached":
            return _whole(bag, reader, next(iter(texts.values()), ""))
    runs = []
    for number, found in sorted(steps.items()):
        for part, run in enumerate(_split(found)):
            if len(run) >= MIN_STEPS:
                runs.append(_Run(bag, f"{number}.{part}", texts.get(number, ""), tuple(run)))
    return runs


def _whole(bag: Path, reader: AnyReader, text: str) -> list[_Run]:
    """Steps of even length from the first joint state to the last, without actions."""
    wanted = [c for c in reader.connections if c.msgtype == JOINT_STATE]
    times = [(time_ns, _raw_stamp_s(data)) for _, time_ns, data in (reader.messages(wanted) if wanted else ())]
    if not times:
        return []
    behind_s = times[0][1] - times[0][0] * 1e-9  # of the stamps' clock against the recorder's
    stamps_s = np.arange(times[0][1] + STEP_S, times[-1][1], STEP_S)
    steps = tuple(_Step(round((t - behind_s) * 1e9), float(t), STEP_S, (0.0,) * 7) for t in stamps_s)
    file = bag / INSTRUCTION_FILE
    told = file.read_text(encoding="utf-8").strip() if file.is_file() else text
    return [_Run(bag, "0", told, steps)] if len(steps) >= MIN_STEPS else []


def _step(message: Any, received_ns: int) -> _Step:
    xyz, rpy = message.delta_xyz_m, message.delta_rpy_rad
    action = (xyz.x, xyz.y, xyz.z, rpy.x, rpy.y, rpy.z, message.gripper)
    return _Step(received_ns, _stamp_s(message.header), float(message.dt_s), action)


def _split(steps: Sequence[_Step]) -> Iterator[list[_Step]]:
    run: list[_Step] = []
    for step in steps:
        if run and step.stamp_s - run[-1].stamp_s > GAP_STEPS * step.dt_s:
            yield run
            run = []
        run.append(step)
    yield run


def _states(reader: AnyReader, window: tuple[int, int], begin_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States (T, 8) at the beginnings of steps and their ages (T,)."""
    joints = Joints()
    for connection, time_ns, data in reader.messages(
        [c for c in reader.connections if c.msgtype == JOINT_STATE], *window
    ):
        joints.add(reader.deserialize(data, connection.msgtype), connection.topic, time_ns)
    stamps_s = joints.stamps_s()
    newest = _newest(stamps_s, begin_s)
    return np.stack([joints.state(int(n)) for n in newest]), begin_s - stamps_s[newest]


def _stamps(reader: AnyReader, topic: str, window: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Header stamps (s) and receive times (ns) of a topic's images, without decoding them."""
    wanted = [c for c in reader.connections if c.topic == topic]
    rows = [(_raw_stamp_s(data), time_ns) for _, time_ns, data in reader.messages(wanted, *window)]
    if not rows:
        raise DataError(f"found no image on {topic} during the episode; expected some; was the camera recorded?")
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def _newest(stamps_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Index of the newest stamp not after each time; 0 where all are later."""
    return np.maximum(np.searchsorted(stamps_s, at_s, side="right") - 1, 0)


def _kept(age_s: np.ndarray, run: _Run) -> np.ndarray:
    """Steps from the first on that has fresh inputs. Raises DataError where a later one has none."""
    fresh = (age_s >= 0.0) & (age_s <= MAX_AGE_S)
    first = int(np.argmax(fresh))
    if not fresh[first:].all() or not fresh.any():
        worst = float(np.abs(age_s[first:]).max())
        raise DataError(
            f"{run.bag} {run.name}: a step has an image or a state {worst:.2f} s away, expected at most {MAX_AGE_S} s; "
            "leave the episode out or record it again"
        )
    return np.arange(first, len(age_s))


def _reached(state_TS: np.ndarray) -> np.ndarray:
    """Actions (T - 1, 7) that lead from each state to the next."""
    rotations = [rpy_to_matrix(*state[3:6]) for state in state_TS]
    turns = [matrix_to_rpy(after @ before.T) for before, after in pairwise(rotations)]
    return np.column_stack([np.diff(state_TS[:, :3], axis=0), np.array(turns), state_TS[1:, 7]])


def _decode(message: Any, source: str) -> np.ndarray:
    if hasattr(message, "format"):
        return decode_image(bytes(message.data), source)
    order = _CHANNELS.get(message.encoding)
    if order is None:
        raise DataError(f"{source}: found encoding {message.encoding!r}, expected one of {sorted(_CHANNELS)}")
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)
    channels = 1 if message.encoding == "mono8" else len(message.encoding.rstrip("8"))
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    return np.ascontiguousarray(pixels[..., order])


def _stamp_s(header: Any) -> float:
    return float(header.stamp.sec + header.stamp.nanosec * 1e-9)


def _raw_stamp_s(data: bytes) -> float:
    """The header stamp of a serialised message whose first field is a header (CDR)."""
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return float(sec + nanosec * 1e-9)
