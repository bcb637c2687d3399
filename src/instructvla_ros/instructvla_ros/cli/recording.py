"""Record a run: every message as it was on the wire into a rosbag2 (MCAP), and camera frames for film and
sheet.

Camera images go into the bag as JPEG (sensor_msgs/CompressedImage on <topic>/compressed, as image_transport
names it): raw ones would be 9 MB/s each. No rosbag2 is needed; `rosbags` writes what `ros2 bag play` reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

_JPEG_QUALITY = 85
_PRIMITIVES = {"boolean": "bool", "float": "float32", "double": "float64", "octet": "byte"}


@dataclass(frozen=True)
class Frame:
    """A camera frame as JPEG, and when it was received (s since the recording began)."""

    jpeg: bytes
    time_s: float


def message_definition(kind: Any) -> dict[str, str]:
    """Type name -> definition text of a message class and of all it contains, from the class itself."""
    package = kind.__module__.partition(".msg.")[0]
    found = {f"{package}/msg/{kind.__name__}": ""}
    lines = []
    for field, text in kind.get_fields_and_field_types().items():
        base, suffix = text, ""
        if text.startswith("sequence<"):
            base, suffix = text[len("sequence<") : -1].split(",")[0], "[]"
        elif text.endswith("]"):
            base, _, size = text.partition("[")
            suffix = f"[{size}"
        if "/" in base:
            inner_package, inner_name = base.split("/")
            module = __import__(f"{inner_package}.msg", fromlist=[inner_name])
            found |= message_definition(getattr(module, inner_name))
        lines.append(f"{_PRIMITIVES.get(base, base)}{suffix} {field}")
    found[f"{package}/msg/{kind.__name__}"] = "\n".join(lines) + "\n"
    return found


class Recorder:
    """`add_topic` and `add_camera` before the graph starts; `close` at the end. Thread-safe."""

    def __init__(self, client: Any, folder: Path, *, image_rate_hz: float = 10.0) -> None:
        self._client = client
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._open = True
        self._image_period_s = 1.0 / image_rate_hz
        self._next_image_s: dict[str, float] = {}
        self._began_s = time.monotonic()
        self.frames: dict[str, list[Frame]] = {}
        self.messages = 0

    def add_topic(self, kind: Any, topic: str, qos: Any) -> None:
        """Record every message of a topic, untouched."""
        name = self._connect(kind, topic, latched="TRANSIENT" in str(qos.durability))
        self._client.subscribe(kind, topic, lambda data: self._write(name, bytes(data)), qos, raw=True)

    def add_camera(self, topic: str, qos: Any) -> None:
        """Record a camera as JPEG at the image rate and keep the frames."""
        from sensor_msgs.msg import CompressedImage, Image

        name = self._connect(CompressedImage, f"{topic}/compressed", latched=False)
        self.frames[topic] = []
        self._client.subscribe(Image, topic, lambda message: self._image(topic, name, message), qos)

    def now_s(self) -> float:
        """Seconds since the recording began: the clock of the frames."""
        return time.monotonic() - self._began_s

    def close(self) -> None:
        """Finish the bag; later messages are ignored."""
        with self._lock:
            if self._open:
                self._open = False
                self._writer.close()

    def _connect(self, kind: Any, topic: str, *, latched: bool) -> str:
        definitions: Mapping[str, str] = message_definition(kind)
        name = f"{kind.__module__.partition('.msg.')[0]}/msg/{kind.__name__}"
        new: dict[str, Any] = {}
        for type_name, text in definitions.items():
            if type_name not in self._typestore.fielddefs:
                new |= get_types_from_msg(text, type_name)
        if new:
            self._typestore.register(new)
        full = self._client.node.resolve_topic_name(topic)
        self._connections[full] = self._writer.add_connection(
            full, name, typestore=self._typestore, offered_qos_profiles=[_qos(latched)]
        )
        return str(full)

    def _write(self, name: str, data: bytes) -> None:
        with self._lock:
            if self._open:
                self._writer.write(self._connections[name], time.time_ns(), data)
                self.messages += 1

    def _image(self, topic: str, name: str, message: Any) -> None:
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import CompressedImage

        from instructvla_ros.nodes.codecs import image_to_rgb

        now_s = time.monotonic()
        if now_s < self._next_image_s.get(topic, 0.0):
            return
        self._next_image_s[topic] = now_s + self._image_period_s
        rgb = image_to_rgb(message)
        good, encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        if not good:
            return
        jpeg = encoded.tobytes()
        self.frames[topic].append(Frame(jpeg, now_s - self._began_s))
        compressed = CompressedImage(header=message.header, format="rgb8; jpeg compressed bgr8", data=jpeg)
        self._write(name, self._exact(serialize_message(compressed), compressed))

    def _exact(self, serialized: bytes, message: Any) -> bytes:
        """serialize_message may append padding that strict readers refuse; cut to what the message needs."""
        # Encapsulation 4, stamp 8, then two strings and the data, each with a length and aligned to 4.
        size = 4 + 8
        for length in (len(message.header.frame_id.encode()) + 1, len(message.format.encode()) + 1):
            size = (size - 4 + 3) // 4 * 4 + 4 + 4 + length
        size = (size - 4 + 3) // 4 * 4 + 4 + 4 + len(message.data)
        return bytes(serialized[:size])


def _qos(latched: bool) -> Qos:
    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def decode(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 BGR of a recorded frame."""
    image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a recorded frame is no JPEG; was it changed after recording?")
    return np.asarray(image)


def topic_table() -> Sequence[tuple[Any, str, Any]]:
    """Message type, topic (relative to the namespace) and QoS of what a run consists of."""
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import Float32, String

    from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, LatentAction, Reasoning, SafetyState
    from instructvla_ros.nodes import qos

    return (
        (Reasoning, "reasoning", qos.REASONING),
        (LatentAction, "latent_action", qos.LATENT_ACTION),
        (ActionChunk, "action_chunk", qos.ACTION_CHUNK),
        (EndEffectorDelta, "ee_delta", qos.EE_DELTA),
        (Float32, "gripper_command", qos.GRIPPER_COMMAND),
        (SafetyState, "safety_state", qos.SAFETY_STATE),
        (String, "sim/task_status", qos.TASK_STATUS),
        (DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS),
    )
