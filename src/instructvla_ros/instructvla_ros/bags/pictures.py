"""Camera images on their way into a bag: raw messages become JPEG, as image_transport would publish them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from rosbags.typesys.store import Typestore

from instructvla_ros.bags.definitions import definition_of, typestore_of

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JPEG_QUALITY = 90
_TO_BGR = {
    "rgb8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGBA2BGR, "bgra8": cv2.COLOR_BGRA2BGR, "bgr8": None, "mono8": None,
}  # fmt: skip
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


@lru_cache(maxsize=1)
def _store() -> Typestore:
    return typestore_of({name: (definition_of(name)[0], "ros2msg") for name in (IMAGE, COMPRESSED)})


def read_image(data: bytes) -> Any:
    """The Image in serialized bytes; its pixels are not copied."""
    return _store().deserialize_cdr(data, IMAGE)


def can_compress(message: Any) -> bool:
    """Whether JPEG can hold this image: 8-bit colour or grey."""
    return message.encoding in _TO_BGR and message.step >= message.width * _CHANNELS[message.encoding]


def compress(message: Any, quality: int = JPEG_QUALITY) -> tuple[bytes, bytes]:
    """(serialized CompressedImage, its JPEG) of an Image; raises ValueError where `can_compress` does not hold."""
    if not can_compress(message):
        raise ValueError(f"{message.encoding} images of step {message.step} are no JPEG; record them raw")
    channels = _CHANNELS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8, count=message.step * message.height).reshape(message.height, -1)
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    code = _TO_BGR[message.encoding]
    if code is not None:
        pixels = cv2.cvtColor(pixels, code)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].reshape(-1)
    store = _store()
    grey = message.encoding == "mono8"
    compressed = store.types[COMPRESSED](
        header=message.header, format=f"{message.encoding}; jpeg compressed {'mono8' if grey else 'bgr8'}", data=jpeg
    )
    return bytes(store.serialize_cdr(compressed, COMPRESSED)), jpeg.tobytes()


def raw(message: Any, pixels: np.ndarray) -> bytes:
    """Serialized rgb8 Image of a CompressedImage's pixels (H, W, 3), under the same header."""
    store = _store()
    height, width = pixels.shape[:2]
    image = store.types[IMAGE](
        header=message.header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )  # fmt: skip
    return bytes(store.serialize_cdr(image, IMAGE))
