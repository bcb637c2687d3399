"""How the messages of the graph are restamped, moved in time and spoiled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instructvla_ros.faults.engine import Handling
from instructvla_ros.nodes.codecs import s_to_time, time_to_s

Spoil = Callable[[Any], None]


def _restamp(content: Any, like: Any) -> Any:
    changed = copy.copy(content)
    changed.header = like.header
    return changed


def _shift(message: Any, seconds: float) -> Any:
    message.header.stamp = s_to_time(max(0.0, time_to_s(message.header.stamp) + seconds))
    return message


def _shift_clock(message: Any, seconds: float) -> Any:
    message.clock = s_to_time(max(0.0, time_to_s(message.clock) + seconds))
    return message


CLOCK: Handling[Any] = Handling(
    restamp=lambda content, _: copy.copy(content),
    shift=_shift_clock,
    corrupt=lambda message, count: _shift_clock(message, (-1) ** count * 3600.0),
)
"""Of /clock: `shift` makes it jump once, `drop` and `freeze` make it stand still, `corrupt` throws it to and fro."""


def handling(ways: Sequence[Spoil]) -> Handling[Any]:
    """How to handle a message with a header that can be spoiled in these ways, one after another."""

    def corrupt(message: Any, count: int) -> Any:
        ways[count % len(ways)](message)
        return message

    return Handling(_restamp, _shift, corrupt)


def _number(field: str, value: float) -> Spoil:
    def spoil(message: Any) -> None:
        values = getattr(message, field)
        if len(values):
            values[0] = value

    return spoil


def _cut(field: str) -> Spoil:
    def spoil(message: Any) -> None:
        setattr(message, field, getattr(message, field)[:-1])

    return spoil


def _black(message: Any) -> None:
    message.data = bytes(len(message.data))


def _encoding(message: Any) -> None:
    message.encoding = "yuv422_yuy2"


def _size(message: Any) -> None:
    message.width, message.height = message.width * 2, message.height * 2


def _reverse(message: Any) -> None:
    message.name, message.position = list(reversed(message.name)), list(reversed(message.position))


SPOILS: Mapping[str, Sequence[Spoil]] = {
    "Image": (_black, _encoding, _size, _cut("data")),
    "JointState": (_number("position", math.nan), _cut("name"), _number("position", math.inf), _reverse),
    "LatentAction": (_cut("data"),),
    "ActionChunk": (
        _number("delta_xyz_m", math.nan),
        _number("delta_rpy_rad", 1e9),
        _cut("gripper"),
        _number("delta_xyz_m", 0.3),
    ),
}
"""Ways to spoil a message, by the name of its type."""
