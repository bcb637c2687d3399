"""Messages made without ROS: serialized from plain values by the installed definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from instructvla_ros.bags.definitions import definition_of, typestore_of

IMAGE_QUALITY = 95
JOINT_STATE, COMPRESSED = "sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage"
REASONING, DELTA, STRING = (
    "instructvla_msgs/msg/Reasoning",
    "instructvla_msgs/msg/EndEffectorDelta",
    "std_msgs/msg/String",
)
TYPES = (JOINT_STATE, COMPRESSED, REASONING, DELTA, STRING)


class MessageMaker:
    """Serialized messages (CDR) of the types in TYPES; stamps are nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._store = typestore_of({name: (definition_of(name)[0], "ros2msg") for name in TYPES})

    def _make(self, type_name: str, **fields: Any) -> Any:
        return self._store.types[type_name](**fields)

    def _pack(self, type_name: str, **fields: Any) -> bytes:
        return bytes(self._store.serialize_cdr(self._make(type_name, **fields), type_name))

    def _header(self, stamp_ns: int, frame_id: str = "") -> Any:
        sec, nanosec = divmod(stamp_ns, 10**9)
        stamp = self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def jpeg(self, stamp_ns: int, jpeg: bytes, frame_id: str = "camera") -> bytes:
        """A CompressedImage of a JPEG."""
        data = np.frombuffer(jpeg, np.uint8)
        return self._pack(
            COMPRESSED, header=self._header(stamp_ns, frame_id), format="rgb8; jpeg compressed bgr8", data=data
        )

    def picture(self, stamp_ns: int, image: np.ndarray, frame_id: str = "camera") -> bytes:
        """A CompressedImage of an RGB image (H, W, 3) uint8."""
        encoded = cv2.imencode(
            ".jpg",
            cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, IMAGE_QUALITY],
        )[1]
        return self.jpeg(stamp_ns, encoded.tobytes(), frame_id)

    def joints(self, stamp_ns: int, names: Sequence[str], positions: Sequence[float] | np.ndarray) -> bytes:
        """A JointState without velocities and efforts."""
        empty = np.empty(0)
        return self._pack(
            JOINT_STATE, header=self._header(stamp_ns), name=list(names), position=np.asarray(positions, float),
            velocity=empty, effort=empty,
        )  # fmt: skip

    def reasoning(self, stamp_ns: int, instruction_id: int, instruction: str, *, think: bool = True) -> bytes:
        """The announcement of an instruction, as reasoning_node makes it."""
        return self._pack(
            REASONING, header=self._header(stamp_ns), instruction_id=instruction_id, seq=instruction_id,
            instruction=instruction, text="", final=not think, n_tokens=0, latency_s=0.0, tokens_per_second=0.0,
        )  # fmt: skip

    def step(self, stamp_ns: int, action: np.ndarray, dt_s: float, instruction_id: int, number: int) -> bytes:
        """An executed step of an action (7,)."""
        vector = [self._make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z)) for x, y, z in
                  (action[:3], action[3:6])]  # fmt: skip
        return self._pack(
            DELTA, header=self._header(stamp_ns), instruction_id=instruction_id, chunk_seq=1, step=number, dt_s=dt_s,
            delta_xyz_m=vector[0], delta_rpy_rad=vector[1], gripper=float(action[6]), clamped=False,
        )  # fmt: skip

    def text(self, text: str) -> bytes:
        """A std_msgs/String."""
        return self._pack(STRING, data=text)
