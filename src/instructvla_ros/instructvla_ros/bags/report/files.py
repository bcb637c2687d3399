"""Write a report's folder: index.html, report.pdf, report.json, chunks.csv and figures/*.png."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.comparison import Regression
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.report import figures, pdf
from instructvla_ros.bags.report.content import BagReplay, joined, to_csv, to_json
from instructvla_ros.bags.report.page import SHOWN_EPISODES, KeyFrame, Pictures, figure_name, render
from instructvla_ros.policy.ingest import frame_of

KEY_FRAMES = 6
_WIDTH, _LARGE = 320, 640
_NEAR_NS = 1_000_000_000


class FrameFinder:
    """Looks up single frames of a bag's primary camera; one block of the file is read for each."""

    def __init__(self, path: Path, topic: str) -> None:
        self._bag, self._topic = Bag(path), topic
        self._decoder = Decoder(self._bag)

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def jpeg(self, time_ns: int, width_px: int) -> bytes | None:
        """The frame received nearest to a time, at most a second away, as a small JPEG."""
        if self._topic not in self._bag.topics:
            return None
        times = self._bag.topics[self._topic].times_ns
        nearest = times[np.argmin(np.abs(times - time_ns))] if len(times) else 0
        if abs(int(nearest) - time_ns) > _NEAR_NS:
            return None
        for record in self._bag.messages([self._topic], int(nearest), int(nearest) + 1):
            message = self._decoder.decode(record)
            try:
                image = frame_of(message, 0.0).image if message is not None else None
            except ValueError:
                return None  # already told by the replay
            if image is not None:
                return _encode(image, width_px)
        return None


def _encode(image: np.ndarray, width_px: int) -> bytes:
    height = round(image.shape[0] * width_px / image.shape[1])
    small = cv2.resize(image, (width_px, height), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1])


def prepare(folder: Path) -> None:
    """Make the report's folder; raises OSError where it cannot be."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    if not os.access(folder / "figures", os.W_OK):
        raise PermissionError(f"{folder} cannot be written to; choose another --output")


def discard(folder: Path) -> None:
    """Remove what `prepare` made, as far as it is empty."""
    for empty in (folder / "figures", folder):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def write(
    folder: Path,
    paths: Sequence[Path],
    replays: Sequence[BagReplay],
    report: Mapping[str, Any],
    gate: Sequence[Regression] = (),
    limit: float = 0.0,
) -> list[Path]:
    """Write everything; returns the files. `paths` are the bags of `replays`, for their images."""
    prepare(folder)
    names = [checkpoint["name"] for checkpoint in report["checkpoints"]]
    whole = joined(replays)
    drawn = {"along_the_chunk": figures.along_the_chunk(names, whole), "histograms": figures.histograms(names, whole)}
    timelines: list[bytes | None] = []
    frames: list[list[KeyFrame]] = []
    moments: dict[int, bytes] = {}
    moment_frames: dict[int, bytes | None] = {}
    shown = {(row["bag"], row["index"]) for row in report["episodes"][:SHOWN_EPISODES]}
    for path, replay in zip(paths, replays, strict=True):
        finder = FrameFinder(path, replay.result.roles.primary)
        try:
            for episode in replay.result.episodes:
                if (replay.name, episode.index) in shown:
                    picture = _timeline(replay, episode.index)
                    if picture is not None:
                        drawn[figure_name("episode", replay.name, episode.index)] = picture
                    timelines.append(figures.save(picture, "svg") if picture is not None else None)
                    frames.append(_key_frames(finder, replay, episode.index))
            for place, row in enumerate(report["worst"]):
                if row["bag"] == replay.name:
                    picture = figures.moment(replay, row["chunk"])
                    moments[place] = figures.save(picture, "svg")
                    moment_frames[place] = finder.jpeg(round((row["time_s"] * 1e9) + replay.start_ns), _LARGE)
                    drawn[figure_name("worst", replay.name, row["chunk"])] = picture
        finally:
            finder.close()
    images = [moment_frames[place] for place in sorted(moment_frames)]
    pictures = Pictures(
        figures.save(drawn["along_the_chunk"], "svg"), figures.save(drawn["histograms"], "svg"), timelines, frames,
        [moments[place] for place in sorted(moments)], images,
    )  # fmt: skip
    title = ", ".join(names) + " on " + ", ".join(replay.name for replay in replays)
    texts = {
        "index.html": render(title, report, pictures, gate, limit),
        "report.json": to_json(report),
        "chunks.csv": to_csv(replays),
    }
    written = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    pngs = {name: figures.save(figure, "png") for name, figure in drawn.items()}
    files = {f"figures/{name}.png": data for name, data in pngs.items()}
    files["report.pdf"] = pdf.render(title, report, pngs, frames, images, gate, limit)
    for old in (folder / "figures").glob("*.png"):
        if old.name.startswith(("episode_", "worst_")):
            old.unlink()  # of a report that was here before
    for name, data in files.items():
        (folder / name).write_bytes(data)
        written.append(folder / name)
    return written


def _timeline(replay: BagReplay, episode: int) -> Figure | None:
    there = any((scores.episode == episode).any() for scores in replay.scores)
    return figures.timeline(replay, episode) if there else None


def _key_frames(finder: FrameFinder, replay: BagReplay, number: int) -> list[KeyFrame]:
    """Frames spread over the episode, each with what the first checkpoint had written by then (new texts only)."""
    episode = next(e for e in replay.result.episodes if e.index == number)
    texts = [t for t in replay.texts[0] if t.episode == number] if replay.texts else []
    found, told = [], ""
    for time_ns in np.linspace(episode.start_ns, episode.stop_ns - 1, KEY_FRAMES).astype(np.int64).tolist():
        jpeg = finder.jpeg(time_ns, _WIDTH)
        if jpeg is None:
            continue
        by_then = [t.text for t in texts if t.received_s <= time_ns * 1e-9]
        text = by_then[-1] if by_then else ""
        found.append(KeyFrame((time_ns - replay.start_ns) * 1e-9, jpeg, (text,) if text and text != told else ()))
        told = text
    return found
