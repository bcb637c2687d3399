"""Stored messages as objects with the fields of their definitions, the same that rclpy's messages have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.definitions import DefinitionError, add_types, definition_of
from instructvla_ros.bags.types import Record

_NEEDED = {
    "builtin_interfaces/msg/Time": {"sec", "nanosec"},
    "std_msgs/msg/Header": {"stamp"},
    "std_msgs/msg/String": {"data"},
    "geometry_msgs/msg/Vector3": {"x", "y", "z"},
    "sensor_msgs/msg/Image": {"header", "height", "width", "encoding", "step", "data"},
    "sensor_msgs/msg/CompressedImage": {"header", "format", "data"},
    "sensor_msgs/msg/JointState": {"header", "name", "position"},
    "instructvla_msgs/msg/Reasoning": {"instruction_id", "seq", "instruction", "text", "final"},
    "instructvla_msgs/msg/EndEffectorDelta": {
        "header", "instruction_id", "dt_s", "delta_xyz_m", "delta_rpy_rad", "gripper",
    },
    "instructvla_msgs/msg/SafetyState": {"mode", "reason"},
    "interbotix_xs_msgs/msg/JointGroupCommand": {"name", "cmd"},
}  # fmt: skip
"""Fields without which a message is of no use; a bag's definition may be damaged, or older than they are."""
_T = TypeVar("_T")
_R = TypeVar("_R")


class Decoder:
    """Reads messages by the definitions that the bag itself carries; where it carries none (SQLite3 bags of older
    distributions), by those that are installed. What cannot be read is noted on the bag and left out."""

    def __init__(self, bag: Bag) -> None:
        self._bag = bag
        self._store = get_typestore(Stores.EMPTY)
        self._unknown: set[str] = set()
        for topic in bag.topics.values():
            if not self._learn(topic.type_name, topic.definition, topic.encoding):
                self._unknown.add(topic.type_name)
                bag.note(
                    topic.name, f"type {topic.type_name or 'unknown'} has no definition, neither in the bag nor here"
                )
            elif lacking := self._lacking(topic.type_name):
                self._unknown.add(topic.type_name)
                bag.note(topic.name, f"the bag defines {topic.type_name} without {', '.join(lacking)}: left out")

    def _lacking(self, type_name: str) -> list[str]:
        """Fields that the bag's definition of a type, and of those within, should have and has not."""
        waiting, seen, found = [type_name], set(), []
        while waiting:
            name = waiting.pop()
            if name in seen or name not in _NEEDED:
                continue
            seen.add(name)
            fields = dict(self._store.fielddefs[name][1]) if name in self._store.fielddefs else {}
            found += [f"{name.rsplit('/', 1)[-1]}.{field}" for field in sorted(_NEEDED[name] - fields.keys())]
            waiting += [kind[1] for kind in fields.values() if isinstance(kind[1], str)]
        return found

    def _learn(self, type_name: str, text: str, encoding: str) -> bool:
        if type_name in self._store.fielddefs:
            return True
        try:
            if not text:
                text, encoding = definition_of(type_name)[0], "ros2msg"
            add_types(self._store, type_name, text, encoding)
        except DefinitionError:
            return False
        return type_name in self._store.fielddefs

    def decode(self, record: Record) -> Any | None:
        """The message, or None where it cannot be read."""
        if record.type_name in self._unknown:
            return None
        try:
            return self._store.deserialize_cdr(record.data, record.type_name)
        except (SerdeError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
            garbled = isinstance(error.__cause__ or error, UnicodeDecodeError)
            what = "messages whose text is not UTF-8" if garbled else f"messages that do not fit {record.type_name}"
            self._bag.note(record.topic, f"{what} were left out ({type(error.__cause__ or error).__name__})")
            return None


def ahead(items: Iterable[_T], work: Callable[[_T], _R], workers: int = 2, depth: int = 16) -> Iterator[_R]:
    """`work` of each item in order, done by threads up to `depth` items ahead of the reader."""
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[_R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
