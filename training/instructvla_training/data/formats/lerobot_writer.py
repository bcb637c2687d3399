"""Writes LeRobot v3.0 datasets: parquet, video, and the tables and statistics that LeRobot reads beside them.

The folder appears under its name when it is complete; a writer that is killed leaves ``<name>.*.partial`` behind.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .episode import ACTION_NAMES, DataError, Episode, StateLayout
from .lerobot import ACTION_KEY, INFO_FILE, STATE_KEY, UNKNOWN_ROBOT
from .lerobot_stats import Moments, image_sample
from .video import VideoWriter

logger = logging.getLogger(__name__)

VERSION = "v3.0"
CHUNKS_SIZE, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")


def write_lerobot(
    root: Path, episodes: Iterable[Episode], *, fps: float, layout: StateLayout = StateLayout.RPY,
    robot_type: str = UNKNOWN_ROBOT, codec: str = "av1",
) -> int:  # fmt: skip
    """Writes ``episodes`` one after the other to the new folder ``root`` -> how many. Raises DataError."""
    with LeRobotWriter(root, fps=fps, layout=layout, robot_type=robot_type, codec=codec) as writer:
        for episode in episodes:
            writer.add(episode)
        return writer.episodes


class LeRobotWriter:
    """`add` episodes, then leave the ``with`` block; what was written is dropped if it ends with an error."""

    def __init__(
        self, root: Path, *, fps: float, layout: StateLayout = StateLayout.RPY, robot_type: str = UNKNOWN_ROBOT,
        codec: str = "av1",
    ) -> None:  # fmt: skip
        self.root = Path(root)
        if self.root.exists():
            raise DataError(f"{self.root} exists; expected a new folder: choose another name or remove it")
        self.fps, self.layout, self.robot_type, self.codec = fps, layout, robot_type, codec
        self.root.parent.mkdir(parents=True, exist_ok=True)
        for left in self.root.parent.glob(f"{glob.escape(self.root.name)}.*.partial"):
            logger.warning("found %s: another conversion is at work, or was killed; then remove that folder", left)
        self._partial = Path(tempfile.mkdtemp(".partial", f"{self.root.name}.", self.root.parent))
        self._partial.chmod(0o755)
        self.episodes = self.frames = 0
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._totals: dict[str, Moments] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._data: pq.ParquetWriter | None = None
        self._data_file = 0
        self._videos: dict[str, VideoWriter] = {}
        self._video_files: dict[str, int] = {}

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for video in self._videos.values():
            video.close()
        if self._data is not None:
            self._data.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, episode: Episode) -> None:
        """Appends one episode. All episodes have the cameras of the first. Raises DataError."""
        views = [f"observation.images.{view}" for view in episode.images]
        if self._sizes and set(views) != set(self._sizes):
            raise DataError(f"{episode.name}: found cameras {views}, expected {sorted(self._sizes)} as before")
        stats = {STATE_KEY: Moments.of(episode.state_TS), ACTION_KEY: Moments.of(episode.action_TA)}
        places: dict[str, Any] = {}
        for key, images in zip(views, episode.images.values(), strict=True):
            places |= self._add_video(key, images, len(episode), stats)
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        places |= self._add_rows(episode, task)
        self._rows.append(
            {
                "episode_index": self.episodes,
                "tasks": [episode.instruction],
                "length": len(episode),
                "dataset_from_index": self.frames,
                "dataset_to_index": self.frames + len(episode),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            | places
            | {f"stats/{key}/{name}": value for key, m in stats.items() for name, value in m.to_dict(key).items()}
        )
        for key, moments in stats.items():
            self._totals[key] = self._totals[key] + moments if key in self._totals else moments
        self.episodes += 1
        self.frames += len(episode)

    def close(self) -> None:
        """Finishes the files and gives the folder its name. Raises DataError where nothing was added."""
        for video in self._videos.values():
            video.close()
        if self._data is None:
            raise DataError(f"{self.root}: found no episode to write, expected at least one")
        self._data.close()
        (self._partial / EPISODES_PATH).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), self._partial / EPISODES_PATH)
        self._write_tasks()
        _write_json(self._partial / "meta/stats.json", {key: m.to_dict(key) for key, m in self._totals.items()})
        _write_json(self._partial / INFO_FILE, self._info())
        try:
            os.replace(self._partial, self.root)
        except OSError as error:
            if not self.root.exists():  # something else; what is written stays
                raise
            shutil.rmtree(self._partial)
            raise DataError(f"{error}; expected a new folder: another conversion has written it meanwhile") from error

    # ---- files ----------------------------------------------------------------------------------------

    def _add_video(
        self, key: str, images: Iterable[np.ndarray], length: int, stats: dict[str, Moments]
    ) -> dict[str, Any]:
        """Appends the frames; a file that has grown large enough is followed by the next one."""
        number = self._video_files.setdefault(key, 0)
        writer = self._videos.get(key)
        if writer is not None and writer.n_bytes > VIDEO_FILE_MB * 2**20:
            writer.close()
            number, writer = number + 1, None
            self._video_files[key] = number
        place = _place(number)
        start, sample = (writer.count if writer else 0), []
        for step, image in enumerate(images):
            if writer is None:
                size = (image.shape[0], image.shape[1])
                if self._sizes.setdefault(key, size) != size:
                    raise DataError(f"{self.root} {key}: found images of {size}, expected {self._sizes[key]} as before")
                path = self._partial / VIDEO_PATH.format(video_key=key, **place)
                writer = self._videos[key] = VideoWriter(path, self.fps, size, self.codec)
            writer.append(image)
            if step % max(1, length // 20) == 0:
                sample.append(image_sample(image))
        stats[key] = Moments.of(np.concatenate(sample))
        return {f"videos/{key}/{name}": value for name, value in place.items()} | {
            f"videos/{key}/from_timestamp": start / self.fps,
            f"videos/{key}/to_timestamp": (start + length) / self.fps,
        }

    def _add_rows(self, episode: Episode, task: int) -> dict[str, Any]:
        path = self._partial / DATA_PATH.format(**_place(self._data_file))
        if self._data is not None and path.stat().st_size > DATA_FILE_MB * 2**20:
            self._data.close()
            self._data, self._data_file = None, self._data_file + 1
            path = self._partial / DATA_PATH.format(**_place(self._data_file))
        steps = np.arange(len(episode))
        table = pa.table(
            {
                STATE_KEY: _vectors(episode.state_TS),
                ACTION_KEY: _vectors(episode.action_TA),
                "timestamp": pa.array((steps / self.fps).astype(np.float32)),
                "frame_index": pa.array(steps),
                "episode_index": pa.array(np.full(len(episode), self.episodes)),
                "index": pa.array(self.frames + steps),
                "task_index": pa.array(np.full(len(episode), task)),
            }
        )
        if self._data is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, table.schema)
        self._data.write_table(table)  # one row group an episode: reading one touches no other
        return {f"data/{name}": value for name, value in _place(self._data_file).items()}

    def _write_tasks(self) -> None:
        """Task texts are the index of the table, as pandas stores an index."""
        table = pa.table({"task_index": list(self._tasks.values()), "task": list(self._tasks)})
        kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        columns = [
            {"name": n, "field_name": n, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for n, kind, numpy in kinds
        ]
        pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
        pq.write_table(
            table.replace_schema_metadata({"pandas": json.dumps(pandas)}), self._partial / "meta/tasks.parquet"
        )

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            STATE_KEY: _feature("float32", [8], list(self.layout.value)),
            ACTION_KEY: _feature("float32", [7], list(ACTION_NAMES)),
        }
        for key, (height, width) in self._sizes.items():
            features[key] = _feature("video", [height, width, 3], ["height", "width", "channels"]) | {
                "info": {
                    "video.height": height, "video.width": width, "video.codec": self.codec, "video.channels": 3,
                    "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "video.fps": _number(self.fps),
                    "has_audio": False,
                }
            }  # fmt: skip
        features["timestamp"] = _feature("float32", [1], None)
        features |= {name: _feature("int64", [1], None) for name in _COUNTERS}
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": _number(self.fps),
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._sizes else None,
            "features": features,
        }


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNKS_SIZE, "file_index": number % CHUNKS_SIZE}


def _vectors(values_TD: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values_TD, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values_TD.shape[1])


def _feature(dtype: str, shape: list[int], names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": names}


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
