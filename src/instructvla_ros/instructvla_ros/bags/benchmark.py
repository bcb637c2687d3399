"""How fast a recording is opened and decoded, and how much memory that takes.

`make` writes the recording that is measured: two cameras with textured pictures, joint states at 100 Hz and executed
steps, as the recorder leaves them. `measure` reads one and keeps what was done, the way a replay does, model left out.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from heapq import merge
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.events import EventReader, ImageEvent
from instructvla_ros.bags.messages import COMPRESSED, DELTA, JOINT_STATE, REASONING, MessageMaker
from instructvla_ros.bags.pictures import JPEG_QUALITY
from instructvla_ros.bags.roles import find_roles
from instructvla_ros.bags.truth import Truth
from instructvla_ros.bags.writer import BagWriter
from instructvla_ros.control.wx250s import WX250S

CAMERAS = ("/camera/camera/color/image_raw/compressed", "/wrist/image_raw/compressed")
JOINTS, REASONS, STEPS = "/wx250s/joint_states", "/instructvla/reasoning", "/instructvla/ee_delta"
MAX_INDEX_S, MIN_SPEED, MAX_MEMORY_BYTES = 5.0, 10.0, 2**30
_START_NS = 1_700_000_000 * 10**9
_PICTURES = 64
"""Different pictures of each camera, shown in turn: encoding them anew would measure the encoder."""
_QUEUE_BYTES = 64_000_000


@dataclass(frozen=True)
class BagFigures:
    """What was measured. `speed` is seconds of recording decoded in a second of wall time, `speed_2_cores` what the CPU
    time that was used (`cpu_s`) allows where two cores are free."""

    duration_s: float
    size_bytes: int
    messages: int
    images: int
    index_s: float
    decode_s: float
    cpu_s: float
    speed: float
    speed_2_cores: float
    peak_memory_bytes: int
    problems: int

    def misses(self) -> Iterator[str]:
        """Bars that are not met."""
        if self.index_s > MAX_INDEX_S:
            yield f"index in {self.index_s:.1f} s; at most {MAX_INDEX_S:g} s are promised"
        if self.speed < MIN_SPEED:
            yield f"decoded at {self.speed:.1f} times real time; at least {MIN_SPEED:g} are promised"
        if self.peak_memory_bytes > MAX_MEMORY_BYTES:
            yield f"{self.peak_memory_bytes / 2**20:.0f} MiB of memory; at most {MAX_MEMORY_BYTES >> 20} are promised"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"misses": list(self.misses())}


def _picture(number: int, random: np.random.Generator) -> np.ndarray:
    """A 640x480 scene with edges, gradients and a camera's noise, BGR: flat pictures would decode too fast."""
    rows, columns = np.mgrid[0:480, 0:640].astype(np.float32)
    base = np.stack([90 + 60 * np.sin(columns / 90), 110 + rows / 8, 70 + 50 * np.cos(rows / 70)], -1)
    for _ in range(24):
        x, y, size = int(random.integers(0, 600)), int(random.integers(0, 440)), int(random.integers(15, 120))
        color = random.integers(30, 225, 3).tolist()
        cv2.rectangle(base, (x + 3 * number, y), (x + 3 * number + size, y + size), color, -1)
    noisy = base + random.normal(0.0, 3.0, base.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _jpegs(seed: int) -> list[bytes]:
    random = np.random.default_rng(seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return [cv2.imencode(".jpg", _picture(n, random), quality)[1].tobytes() for n in range(_PICTURES)]


def make(
    folder: Path, seconds: float, *, storage: str = "mcap", image_hz: float = 30.0,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:  # fmt: skip
    """Write the recording; raises OSError where the folder exists or the disk is full."""
    maker, writer = MessageMaker(), BagWriter(folder, storage=storage, queue_bytes=2**40)
    kinds = {JOINTS: JOINT_STATE, REASONS: REASONING, STEPS: DELTA} | dict.fromkeys(CAMERAS, COMPRESSED)
    for topic, kind in kinds.items():
        writer.add_topic(topic, kind)
    pictures = [_jpegs(seed) for seed in range(len(CAMERAS))]
    names = [*WX250S.joint_names, WX250S.fingers.joint]

    def times(rate_hz: float, phase_s: float) -> Iterator[tuple[int, int]]:
        for number in range(int(seconds * rate_hz)):
            yield _START_NS + round((number / rate_hz + phase_s) * 1e9), number

    def camera(place: int) -> Iterator[tuple[int, str, bytes]]:
        for stamp_ns, number in times(image_hz, 0.004 * (place + 1)):
            yield stamp_ns, CAMERAS[place], maker.jpeg(stamp_ns, pictures[place][number % _PICTURES])

    def joints() -> Iterator[tuple[int, str, bytes]]:
        for stamp_ns, number in times(100.0, 0.0):
            position = [0.3 * np.sin(0.002 * number + joint) for joint in range(len(names) - 1)]
            yield stamp_ns, JOINTS, maker.joints(stamp_ns, names, [*position, 0.03])

    def steps() -> Iterator[tuple[int, str, bytes]]:
        for stamp_ns, number in times(5.0, 0.05):
            yield stamp_ns, STEPS, maker.step(stamp_ns, np.full(7, 0.01), 0.2, 1, number)

    writer.put(REASONS, _START_NS, maker.reasoning(_START_NS, 1, "put the carrot on the plate"))
    for count, (stamp_ns, topic, data) in enumerate(merge(camera(0), camera(1), joints(), steps())):
        writer.put(topic, stamp_ns, data)
        if count % 1000 == 0:
            writer.wait_below(_QUEUE_BYTES)
            on_progress((stamp_ns - _START_NS) * 1e-9 / seconds)
    state = writer.close()
    if state.messages != count + 2 or state.dropped:
        raise OSError(f"{folder}: {state.messages} of {count + 2} messages were written: {state.ended}")


def measure(path: Path, workers: int = 2) -> BagFigures:
    """Open a recording and decode all of it; best in a process of its own, whose peak memory it then tells."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    with Bag(path) as bag:
        index_s = time.perf_counter() - begin_s
        decoder = Decoder(bag)
        reader = EventReader(bag, decoder, find_roles(bag), workers=workers)
        decode_begin_s = time.perf_counter()
        images, truth = 0, Truth()
        for event in reader.read():
            truth.add(event)
            images += isinstance(event, ImageEvent)
        truth.finish(reader.arm)
        decode_s = time.perf_counter() - decode_begin_s
        cpu_s = time.process_time() - begin_cpu_s
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return BagFigures(
            bag.duration_s, _size(path), sum(topic.count for topic in bag.topics.values()), images, index_s, decode_s,
            cpu_s, bag.duration_s / decode_s, bag.duration_s / (cpu_s / 2), peak, len(bag.problems),
        )  # fmt: skip


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return sum(os.stat(file).st_size for file in files)
