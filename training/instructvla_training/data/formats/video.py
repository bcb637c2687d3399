"""Frames of a video file by number, and writing one (PyAV)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .episode import DataError, Images

KEYFRAME_EVERY = 2
"""As LeRobot writes them: any frame can be had by decoding at most two."""
CODECS = {"av1": ("libsvtav1", {"crf": "30", "preset": "12"}), "h264": ("libx264", {"crf": "18", "preset": "veryfast"})}


@dataclass(frozen=True)
class VideoImages(Images):
    """``count`` frames of ``path`` from the time ``start_s`` on, at ``fps``."""

    path: Path
    start_s: float
    count: int
    fps: float

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> np.ndarray:
        if not 0 <= step < self.count:
            raise IndexError(step)
        return next(self._from(step))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._from(0)

    def _from(self, step: int) -> Iterator[np.ndarray]:
        """Frames ``step``, ``step + 1``, ... of the episode: one seek, then decoding in order."""
        first = round(self.start_s * self.fps)
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                assert stream.time_base is not None
                wanted, origin = first + step, float((stream.start_time or 0) * stream.time_base)
                container.seek(round((wanted / self.fps + origin) / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    # the time of a frame, not its place in the file, says which one it is
                    number = round((float(frame.time or 0.0) - origin) * self.fps)
                    if number == wanted:
                        yield frame.to_ndarray(format="rgb24")
                        wanted += 1
                        if wanted == first + self.count:
                            return
                    elif number > wanted:
                        break
        except (av.FFmpegError, IndexError, OSError) as error:
            raise DataError(f"{self.path}: {error}; expected a video file; copy or encode it again") from error
        raise DataError(
            f"{self.path}: frame {wanted} at {self.fps:g} Hz is not in it, expected {self.count} from {first} on; "
            "the video was cut short or its rate is not the data set's: encode it again"
        )


class VideoWriter:
    """Appends frames to one video file; `close` finishes it."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int], codec: str = "av1") -> None:
        """``size`` is (height, width); both even, as the pixel format needs."""
        if codec not in CODECS or size[0] % 2 or size[1] % 2:
            raise DataError(
                f"{path}: codec {codec!r}, images of {size[1]}x{size[0]}; expected one of {sorted(CODECS)} and "
                "even sides; crop or resize the images"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        encoder, options = CODECS[codec]
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder otherwise prints its settings
        self.path, self.size, self.count, self.n_bytes = path, size, 0, 0
        self._container = av.open(str(path), "w")
        self._rate = Fraction(fps).limit_denominator(1000)
        stream = self._container.add_stream(encoder, rate=self._rate, options=options | {"g": str(KEYFRAME_EVERY)})
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"

    def append(self, image_HWC: np.ndarray) -> None:
        if image_HWC.shape != (*self.size, 3) or image_HWC.dtype != np.uint8:
            raise DataError(
                f"{self.path}: frame of shape {image_HWC.shape} {image_HWC.dtype}, expected {(*self.size, 3)} uint8; "
                "all frames of a camera have one size"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")
        frame.pts, frame.time_base = self.count, 1 / self._rate
        self._write(frame)
        self.count += 1

    def close(self) -> None:
        self._write(None)
        self._container.close()

    def _write(self, frame: av.VideoFrame | None) -> None:
        packets = self._stream.encode(frame)
        self.n_bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)
