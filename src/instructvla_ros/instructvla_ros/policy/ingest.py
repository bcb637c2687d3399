"""The one way in: what a message becomes before the workers see it.

The callbacks of the live nodes and the replay of a bag both pass through here, so that both give the model the same
frames and states for the same messages. Messages are read by their fields alone: rclpy's and those of a bag's decoder
serve alike.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from instructvla_ros.control.pictures import is_black
from instructvla_ros.control.state import JointStateReader
from instructvla_ros.control.types import JointSample
from instructvla_ros.policy.reasoning_worker import Frame

MIN_IMAGE_PX = 64
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def time_to_s(stamp: Any) -> float:
    """Seconds of a stamp; float64 keeps today's times to a quarter of a microsecond."""
    return float(stamp.sec + stamp.nanosec * 1e-9)


def raw_stamp_s(serialized: bytes) -> float:
    """The header stamp of a serialized message whose first field is a Header, without reading the rest.

    Raises ValueError on anything that is not plain CDR.
    """
    if len(serialized) < 12 or serialized[0] != 0 or serialized[1] > 1:
        raise ValueError("serialized message is not plain CDR; cannot read its stamp")
    sec, nanosec = struct.unpack_from("<iI" if serialized[1] == 1 else ">iI", serialized, 4)
    return sec + nanosec * 1e-9


def frame_of(message: Any, received_s: float) -> Frame:
    """The frame of an Image or CompressedImage; raises ValueError with the reason it cannot be used (F02, F03)."""
    pixels = pixels_of(message)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_IMAGE_PX:
        raise ValueError(f"image is {width}x{height}; at least {MIN_IMAGE_PX} px on each side are needed")
    if is_black(pixels):
        raise ValueError("image is black; is the lens covered, or the light off? (F03)")
    return Frame(pixels, time_to_s(message.header.stamp), received_s)


def pixels_of(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage, whatever it shows; raises ValueError where it is no image."""
    return image_to_rgb(message) if hasattr(message, "encoding") else compressed_to_rgb(message)


def sample_of(reader: JointStateReader, message: Any, received_s: float) -> JointSample:
    """The sample of a JointState; raises ValueError that names what is missing or not finite (F04, F05)."""
    return reader.read(message.name, message.position, time_to_s(message.header.stamp), received_s)


def image_to_rgb(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image; raises ValueError with the reason it cannot be used (F02)."""
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise ValueError(
            f"image encoding {message.encoding!r} is not supported; expected one of {', '.join(_CHANNELS)}"
        )
    height, width, step = message.height, message.width, message.step
    if step < width * channels or len(message.data) < step * height:
        raise ValueError(
            f"image of {width}x{height} {message.encoding} has step {step} and {len(message.data)} bytes; "
            f"expected at least {width * channels} and {step * height}"
        )
    rows = np.frombuffer(message.data, np.uint8, count=step * height).reshape(height, step)
    pixels = rows[:, : width * channels].reshape(height, width, channels)
    if message.encoding.startswith("bgr"):
        pixels = pixels[..., 2::-1]
    elif channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def compressed_to_rgb(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage (JPEG or PNG); raises ValueError where it is neither."""
    data = np.frombuffer(message.data, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    except (cv2.error, MemoryError):  # damaged dimensions, which say that the image is huge
        image = None
    if image is None:
        raise ValueError(f"compressed image of format {message.format!r} cannot be decoded; expected JPEG or PNG")
    return np.asarray(image)
