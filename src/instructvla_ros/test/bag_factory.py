"""Bags for tests: a short recording of an arm that moves, as our recorder, or the genuine one, would have written it.

Needs no ROS: messages are made and serialized by `rosbags` from the installed or the checkout's definitions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from instructvla_ros.bags.definitions import definition_of, typestore_of

START_NS = 1_700_000_000_000_000_000
PRIMARY, WRIST, JOINTS = "/camera/camera/color/image_raw", "/wrist/image_raw", "/wx250s/joint_states"
REASONING, CHUNK, DELTA = "/instructvla/reasoning", "/instructvla/action_chunk", "/instructvla/ee_delta"
JOINT_NAMES = [
    "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper", "left_finger",
    "right_finger",
]  # fmt: skip
TYPES = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState", "std_msgs/msg/String",
    "instructvla_msgs/msg/Reasoning", "instructvla_msgs/msg/EndEffectorDelta",
    "interbotix_xs_msgs/msg/JointGroupCommand", "instructvla_msgs/msg/ActionChunk",
    "instructvla_msgs/msg/LatentAction", "instructvla_msgs/msg/SafetyState",
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """One message to be stored."""

    topic: str
    type_name: str
    stamp_ns: int
    data: bytes


def store() -> Typestore:
    """All types that the factory uses."""
    return typestore_of({name: (definition_of(name)[0], "ros2msg") for name in TYPES})


class Factory:
    """Makes serialized messages; times are seconds since the recording began."""

    def __init__(self) -> None:
        self.store = store()

    def make(self, type_name: str, **fields: Any) -> Any:
        return self.store.types[type_name](**fields)

    def header(self, time_s: float, frame_id: str = "") -> Any:
        stamp_ns = START_NS + round(time_s * 1e9)
        stamp = self.make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def pack(self, topic: str, time_s: float, message: Any, *, latency_s: float = 0.0) -> Message:
        kind = message.__msgtype__
        data = bytes(self.store.serialize_cdr(message, kind))
        return Message(topic, kind, START_NS + round((time_s + latency_s) * 1e9), data)

    def picture(self, time_s: float, size: tuple[int, int] = (96, 128)) -> np.ndarray:
        """(H, W, 3) uint8 RGB: a gradient and a spot that moves with time."""
        rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
        image = np.stack([rows * 2 % 256, columns * 2 % 256, (rows + columns) % 256], -1).astype(np.uint8)
        place = int(10 + 20 * time_s) % (size[1] - 12)
        image[30:42, place : place + 12] = (255, 40, 40)
        return image

    def image(
        self, topic: str, time_s: float, *, compressed: bool = False, encoding: str = "rgb8", **more: Any
    ) -> Message:
        pixels = more.get("pixels", self.picture(time_s))
        header = self.header(time_s, "camera")
        if compressed:
            data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].reshape(-1)
            message = self.make(
                "sensor_msgs/msg/CompressedImage", header=header, format="rgb8; jpeg compressed bgr8", data=data
            )
        else:
            message = self.make(
                "sensor_msgs/msg/Image", header=header, height=pixels.shape[0], width=pixels.shape[1],
                encoding=encoding, is_bigendian=0, step=pixels.shape[1] * 3,
                data=np.ascontiguousarray(pixels).reshape(-1),
            )  # fmt: skip
        return self.pack(topic, time_s, message)

    def joints(self, time_s: float, arm: Sequence[float] | None = None, finger_m: float = 0.037) -> Message:
        q = arm_at(time_s) if arm is None else arm
        position = np.array([*q, 0.0, finger_m, -finger_m])
        message = self.make(
            "sensor_msgs/msg/JointState", header=self.header(time_s), name=JOINT_NAMES, position=position,
            velocity=np.zeros(9), effort=np.zeros(9),
        )  # fmt: skip
        return self.pack(JOINTS, time_s, message)

    def reasoning(
        self, time_s: float, instruction_id: int, instruction: str, text: str = "", *, final: bool = False, seq: int = 1
    ) -> Message:
        message = self.make(
            "instructvla_msgs/msg/Reasoning", header=self.header(time_s), instruction_id=instruction_id, seq=seq,
            instruction=instruction, text=text, final=final, n_tokens=len(text.split()), latency_s=0.1,
            tokens_per_second=20.0,
        )  # fmt: skip
        return self.pack(REASONING, time_s, message)


def arm_at(time_s: float) -> list[float]:
    """A smooth motion (rad) well inside the limits."""
    return [0.2 * np.sin(0.8 * time_s), -0.4 + 0.1 * np.sin(0.5 * time_s), 0.3, 0.05, 1.5, -0.1]


def finger_at(time_s: float) -> float:
    """Opens, and closes after three seconds (m)."""
    return 0.037 if time_s < 3.0 else 0.016


def recording(
    seconds: float = 6.0, *, compressed: bool = False, wrist: bool = True, image_hz: float = 10.0, offset_s: float = 0.0
) -> list[Message]:
    """Two cameras, joint states at 50 Hz, one instruction, in the order of time."""
    factory = Factory()
    found = [factory.reasoning(offset_s + 0.05, 1, "put the carrot on the plate")]
    found.append(factory.reasoning(offset_s + 0.4, 1, "put the carrot on the plate", "carrot on the plate", final=True))
    suffix = "/compressed" if compressed else ""
    for number in range(int(seconds * image_hz)):
        time_s = number / image_hz
        found.append(factory.image(PRIMARY + suffix, time_s + offset_s, compressed=compressed))
        if wrist and number % 2 == 0:
            found.append(factory.image(WRIST + suffix, time_s + offset_s + 0.003, compressed=compressed))
    for number in range(int(seconds * 50)):
        time_s = number / 50
        found.append(factory.joints(time_s + offset_s, arm_at(time_s), finger_at(time_s)))
    return sorted(found, key=lambda message: message.stamp_ns)


def qos(reliable: bool = True, depth: int = 10) -> Qos:
    """A profile as genuine bags hold it."""
    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.VOLATILE, forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip


def write(
    folder: Path, messages: Sequence[Message], *, storage: str = "mcap", compression: str = "none", custom: str = ""
) -> Path:
    """Write a bag with `rosbags`; compression none, storage, file or message."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(folder, version=9, storage_plugin=plugin)
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    if custom:
        writer.set_custom_data("instructvla", custom)
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                text, digest = definition_of(message.type_name)
                connections[message.topic] = writer.add_connection(
                    message.topic, message.type_name, msgdef=text, rihs01=digest, offered_qos_profiles=[qos()]
                )
            writer.write(connections[message.topic], message.stamp_ns, message.data)
    return folder


def write_genuine_mcap(
    folder: Path, messages: Sequence[Message], *, chunked: bool = True, compression: str = "", split: int = 1
) -> Path:
    """A bag laid out as rosbag2 of Jazzy does with its MCAP plugin: profile ros2, one channel per topic with its QoS
    as YAML, `<name>_<n>.mcap`, metadata version 9. Not chunked is the storage preset "fastwrite"."""
    folder.mkdir(parents=True)
    kinds = {"": CompressionType.NONE, "zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4}
    files, counts = [], {}
    parts = [messages[len(messages) * k // split : len(messages) * (k + 1) // split] for k in range(split)]
    for number, part in enumerate(parts):
        name = f"{folder.name}_{number}.mcap"
        with (folder / name).open("wb") as file:
            writer = McapWriter(file, chunk_size=786432, compression=kinds[compression], use_chunking=chunked)
            writer.start(profile="ros2", library="libmcap 1.1.0")
            channels: dict[str, int] = {}
            for sequence, message in enumerate(part):
                if message.topic not in channels:
                    schema = writer.register_schema(
                        message.type_name, "ros2msg", definition_of(message.type_name)[0].encode()
                    )
                    profile = yaml.safe_dump([genuine_qos()], sort_keys=False)
                    channels[message.topic] = writer.register_channel(
                        message.topic, "cdr", schema, {"offered_qos_profiles": profile}
                    )
                writer.add_message(channels[message.topic], message.stamp_ns, message.data, message.stamp_ns, sequence)
                counts[message.topic, message.type_name] = counts.get((message.topic, message.type_name), 0) + 1
            writer.finish()
        span = (part[0].stamp_ns, part[-1].stamp_ns - part[0].stamp_ns)
        files.append({
            "path": name, "starting_time": {"nanoseconds_since_epoch": span[0]}, "duration": {"nanoseconds": span[1]},
            "message_count": len(part),
        })  # fmt: skip
    topics = [
        {
            "topic_metadata": {
                "name": topic, "type": kind, "serialization_format": "cdr", "offered_qos_profiles": [genuine_qos()],
                "type_description_hash": definition_of(kind)[1],
            },
            "message_count": count,
        }
        for (topic, kind), count in counts.items()
    ]  # fmt: skip
    first, last = messages[0].stamp_ns, messages[-1].stamp_ns
    metadata = {
        "version": 9, "storage_identifier": "mcap", "duration": {"nanoseconds": last - first},
        "starting_time": {"nanoseconds_since_epoch": first}, "message_count": len(messages),
        "topics_with_message_count": topics, "compression_format": "", "compression_mode": "",
        "relative_file_paths": [file["path"] for file in files], "files": files, "custom_data": None,
        "ros_distro": "jazzy",
    }  # fmt: skip
    text = yaml.safe_dump({"rosbag2_bagfile_information": metadata}, sort_keys=False)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    return folder


def genuine_qos() -> dict[str, Any]:
    """A profile as Jazzy writes it."""
    forever = {"sec": 9223372036, "nsec": 854775807}
    return {
        "history": "keep_last", "depth": 10, "reliability": "reliable", "durability": "volatile", "deadline": forever,
        "lifespan": forever, "liveliness": "automatic", "liveliness_lease_duration": forever,
        "avoid_ros_namespace_conventions": False,
    }  # fmt: skip


def cut(path: Path, keep: float) -> None:
    """Cut a file off after a share of its bytes, as a crash would."""
    os.truncate(path, int(path.stat().st_size * keep))
