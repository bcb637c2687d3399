"""What the annotating model is asked: three key frames, the instruction that the robot followed, and the form."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from instructvla_training.data.formats.episode import DataError, Episode

VERSION = 1
"""Raise it when a text below changes: annotations of different versions are not mixed in one folder."""
LONGER_SIDE = 512
_TEXT = """\
The three pictures are the first, the middle and the last frame of a robot's recording. The robot was told: \
"{instruction}". Everything you write must be true of the FIRST picture, before the robot has moved.

Answer with one JSON object with these keys and nothing else:
"Caption": one or two sentences about the objects on the table and where they are. Do not mention the robot.
"QA": {count} objects {{"question", "answer"}} about colours, numbers, kinds, uses or places of what is seen.
"CR": {count} objects {{"question", "answer"}}. The question gives the same command in other words: another sentence \
form, or an object described by a trait instead of its name, so that it is still clear which one is meant. The \
answer says in one short sentence what the robot will do, with the objects' plain names.
"CC": {count} objects {{"question", "answer"}}. The question describes a situation or a need of a person and does not \
name the command; it can only be met by doing exactly this task. The answer says in one short sentence what the robot \
will do, and why."""
_AGAIN = "That answer cannot be used: {reason}. Answer again with the whole JSON object only."


def key_frames(episode: Episode) -> list[bytes]:
    """First, middle and last image of the primary camera as JPEG. Raises DataError where there is no such camera."""
    images = episode.images.get("primary")
    if images is None:
        raise DataError(f"{episode.name}: found no primary camera, expected one to annotate from")
    return [_jpeg(images[step]) for step in (0, len(episode) // 2, len(episode) - 1)]


def messages(instruction: str, frames: list[bytes], count: int) -> list[dict[str, Any]]:
    """The request's messages."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _data_url(frame), "detail": "low"}} for frame in frames
    ]
    content.append({"type": "text", "text": _TEXT.format(instruction=instruction, count=count)})
    return [{"role": "user", "content": content}]


def again(answer: str, reason: str) -> list[dict[str, Any]]:
    """What is added to a request whose answer was no use."""
    return [{"role": "assistant", "content": answer}, {"role": "user", "content": _AGAIN.format(reason=reason)}]


def _data_url(frame: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(frame).decode("ascii")


def _jpeg(image_HWC: np.ndarray) -> bytes:
    scale = min(1.0, LONGER_SIDE / max(image_HWC.shape[:2]))
    if scale < 1.0:
        image_HWC = cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR))[1].tobytes()
