"""An MP4 and a contact sheet from recorded frames: the scene large, the wrist camera inset, what was said below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from instructvla_ros.cli.timeline import Timeline

TRACKS = ("instruction", "reasoning", "phase")
"""Tracks of the timeline that the film shows, top to bottom."""
_WIDTH, _HEIGHT, _BAND = 960, 720, 150
_INSET = (272, 204)
_MARGIN = 20
_DARK, _LIGHT, _FAINT, _GREEN = (24, 27, 31), (244, 245, 246), (150, 158, 168), (104, 211, 145)
_COLORS = {"instruction": _LIGHT, "reasoning": _LIGHT, "phase": _FAINT}
_LABEL_WIDTH = 120


@dataclass(frozen=True)
class Frame:
    """A camera frame as JPEG, and when it was received (s since the recording began)."""

    jpeg: bytes
    time_s: float


def decode(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 BGR of a recorded frame."""
    image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a recorded frame is no JPEG; was it changed after recording?")
    return np.asarray(image)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(canvas: np.ndarray, items: Sequence[tuple[int, int, str, int, tuple[int, int, int]]]) -> np.ndarray:
    """The canvas (RGB) with texts (x, y, text, size, colour) drawn on it."""
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for x, y, text, size, color in items:
        pen.text((x, y), text, fill=color, font=_font(size))
    return np.asarray(picture)


class _Band:
    """The caption, drawn anew only when a text changes."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._shown: tuple[str, ...] | None = None
        self._image = np.zeros((_BAND, _WIDTH, 3), np.uint8)

    def at(self, time_s: float) -> np.ndarray:
        texts = tuple(self._timeline.at(track, time_s) for track in TRACKS)
        if texts == self._shown:
            return self._image
        self._shown = texts
        items: list[tuple[int, int, str, int, tuple[int, int, int]]] = []
        y = 14
        for track, text in zip(TRACKS, texts, strict=True):
            color = _GREEN if text.startswith("success") else _COLORS[track]
            lines = textwrap.wrap(text, 74)[: 2 if track == "reasoning" else 1] or [""]
            items.append((_MARGIN, y + 4, track, 17, _FAINT))
            items += [(_MARGIN + _LABEL_WIDTH, y + 26 * k, line, 22, color) for k, line in enumerate(lines)]
            y += 34 + (26 if track == "reasoning" else 0)
        self._image = _write(np.full((_BAND, _WIDTH, 3), _DARK, np.uint8), items)
        return self._image


def _compose(primary: np.ndarray, wrist: np.ndarray | None, band: np.ndarray) -> np.ndarray:
    """One frame of the film, RGB."""
    scene = cv2.resize(primary, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    if wrist is not None:
        width, height = _INSET
        x, y = _WIDTH - width - _MARGIN, _MARGIN
        scene[y - 3 : y + height + 3, x - 3 : x + width + 3] = _LIGHT
        scene[y : y + height, x : x + width] = cv2.resize(wrist, _INSET, interpolation=cv2.INTER_AREA)
    return np.vstack([scene, band])


class _Reader:
    """The newest frame of a camera at a time that only grows; each frame is decoded once."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._place = -1
        self._image: np.ndarray | None = None

    def at(self, time_s: float) -> np.ndarray | None:
        place = self._place
        while place + 1 < len(self._frames) and (place < 0 or self._frames[place + 1].time_s <= time_s):
            place += 1
        if place != self._place:
            self._place, self._image = place, decode(self._frames[place])[..., ::-1]
        return self._image


def write_film(
    path: Path, primary: Sequence[Frame], wrist: Sequence[Frame], timeline: Timeline, *, rate_hz: float = 10.0
) -> int:
    """Write the film at a constant rate and return its number of frames; without primary frames nothing is written.

    A film that is cut off is no film: it is removed.
    """
    if not primary:
        return 0
    size = (_WIDTH, _HEIGHT + _BAND)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=rate_hz,
        codec="libx264",
        quality=6,
        macro_block_size=2,
        output_params=["-preset", "veryfast"],
    )
    writer.send(None)
    scene, hand, band = _Reader(primary), _Reader(wrist), _Band(timeline)
    begin_s = primary[0].time_s
    count = int((primary[-1].time_s - begin_s) * rate_hz) + 1
    try:
        for index in range(count):
            now_s = begin_s + index / rate_hz
            image = scene.at(now_s)
            assert image is not None
            writer.send(np.ascontiguousarray(_compose(image, hand.at(now_s), band.at(now_s))))
        writer.close()
    except BaseException:
        writer.close()
        path.unlink(missing_ok=True)
        raise
    return count


def write_contact_sheet(
    path: Path,
    frames: Sequence[Frame],
    timeline: Timeline,
    caption: Sequence[str],
    *,
    columns: int = 4,
    rows: int = 2,
) -> bool:
    """Write a PNG of evenly spaced frames, each with its time and phase, under a caption; False without frames."""
    if not frames:
        return False
    picks = np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)
    begin_s = frames[0].time_s
    tiles = [_tile(frames[pick], frames[pick].time_s - begin_s, timeline) for pick in picks]
    gap = np.full((tiles[0].shape[0], 6, 3), 255, np.uint8)
    grid = []
    for row in range(rows):
        parts = [part for tile in tiles[row * columns : (row + 1) * columns] for part in (tile, gap)][:-1]
        grid.append(np.hstack(parts))
    sheet_width = grid[0].shape[1]
    lines = [line for text in caption for line in textwrap.wrap(text, 130)]
    head = np.full((24 + 36 * len(lines), sheet_width, 3), 255, np.uint8)
    head = _write(head, [(16, 12 + 36 * k, line, 28, _DARK) for k, line in enumerate(lines)])
    Image.fromarray(np.vstack([head, *grid])).save(path, optimize=True)
    return True


def _tile(frame: Frame, time_s: float, timeline: Timeline) -> np.ndarray:
    image = cv2.resize(decode(frame)[..., ::-1], (440, 330), interpolation=cv2.INTER_AREA)
    foot = np.full((34, image.shape[1], 3), 255, np.uint8)
    phase = timeline.at("phase", frame.time_s)
    return np.vstack([image, _write(foot, [(4, 4, f"{time_s:4.1f} s   {phase}"[:52], 18, _DARK)])])
