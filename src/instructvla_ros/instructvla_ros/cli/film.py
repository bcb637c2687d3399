"""An MP4 and a contact sheet from recorded frames."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from instructvla_ros.cli.recording import Frame, decode

_WHITE, _DARK = (255, 255, 255), (32, 32, 32)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _label(image: np.ndarray, text: str) -> np.ndarray:
    made = image.copy()
    cv2.rectangle(made, (0, 0), (12 + 11 * len(text), 30), _DARK, -1)
    cv2.putText(made, text, (6, 21), _FONT, 0.6, _WHITE, 1, cv2.LINE_AA)
    return made


def write_film(path: Path, views: Sequence[Sequence[Frame]], *, rate_hz: float = 10.0) -> int:
    """Write the views side by side (by time, at a constant rate) and return the number of frames; 0 writes
    nothing."""
    views = [frames for frames in views if frames]
    if not views:
        return 0
    begin_s, end_s = views[0][0].time_s, views[0][-1].time_s
    first = decode(views[0][0])
    height, width = first.shape[:2]
    size = (width * len(views), height)
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=rate_hz, codec="libx264", quality=6, pix_fmt_in="bgr24", macro_block_size=2
    )
    writer.send(None)
    count = int((end_s - begin_s) * rate_hz) + 1
    places = [0] * len(views)
    for index in range(count):
        now_s = begin_s + index / rate_hz
        row = []
        for which, frames in enumerate(views):
            while places[which] + 1 < len(frames) and frames[places[which] + 1].time_s <= now_s:
                places[which] += 1
            row.append(cv2.resize(decode(frames[places[which]]), (width, height)))
        writer.send(np.ascontiguousarray(np.hstack(row)))
    writer.close()
    return count


def write_contact_sheet(
    path: Path, frames: Sequence[Frame], caption: Sequence[str], *, columns: int = 4, rows: int = 2
) -> bool:
    """Write a PNG of evenly spaced frames with their times under a caption; returns whether there were any
    frames."""
    if not frames:
        return False
    picks = np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)
    tiles = []
    for pick in picks:
        tile = cv2.resize(decode(frames[pick]), (480, 360), interpolation=cv2.INTER_AREA)
        tiles.append(_label(tile, f"{frames[pick].time_s - frames[0].time_s:.1f} s"))
    grid = np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])
    lines = [line for text in caption for line in textwrap.wrap(text, 110)]
    head = np.full((20 + 34 * len(lines), grid.shape[1], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        cv2.putText(head, line, (16, 36 + 34 * number), _FONT, 0.9, _DARK, 2, cv2.LINE_AA)
    return bool(cv2.imwrite(str(path), np.vstack([head, grid])))
