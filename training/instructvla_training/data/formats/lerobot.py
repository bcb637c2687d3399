"""LeRobot datasets, v2.0, v2.1 and v3.0: numbers in parquet, images in video files or in the parquet itself.

v2 has one parquet and one video file per episode and camera; v3 joins many episodes in one file, and the
episodes' table says where each begins. Keys and layouts follow the published format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .episode import (
    ACTION_DIM,
    STATE_DIM,
    DataError,
    EncodedImages,
    Episode,
    EpisodeDataset,
    Images,
    StateLayout,
    absolute,
    choose_cameras,
    whole,
)
from .video import VideoImages

INFO_FILE = "meta/info.json"
STATE_KEY, ACTION_KEY = "observation.state", "action"
_WITHOUT_PAD = tuple(name for name in StateLayout.RPY.value if name != "pad")
_JOINTS = ("joint", "waist", "shoulder", "elbow", "forearm", "wrist")
"""Words of joint names; none is in a name of the end effector's axes."""
INVERTIBLE = ("action", "state", "both")
UNKNOWN_ROBOT = "unknown"
"""The ``robot_type`` of a dataset that does not say whose episodes it has."""


@dataclass(frozen=True)
class _Entry:
    """Where one episode lies. ``video_start_s``: by camera key."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, Path]
    video_start_s: Mapping[str, float]


def is_lerobot(root: Path) -> bool:
    return (root / INFO_FILE).is_file()


class LeRobotDataset(EpisodeDataset):
    """A LeRobot dataset whose actions are 7-D end-effector deltas and whose states are 7-D or 8-D poses."""

    format = "lerobot"

    def __init__(
        self,
        root: Path,
        *,
        cameras: Mapping[str, str] | None = None,
        layout: StateLayout | None = None,
        invert_gripper: str = "",
    ) -> None:
        """``invert_gripper``: one of INVERTIBLE, for datasets in which 1 is closed there. Raises DataError."""
        self.root, self.name = Path(root), absolute(root).name
        if invert_gripper not in ("", *INVERTIBLE):
            raise DataError(f"found invert_gripper {invert_gripper!r}, expected one of {', '.join(INVERTIBLE)}")
        with whole(self.root / INFO_FILE, "the description and the tables of a LeRobot dataset"):
            self._open(cameras or {}, layout, invert_gripper)

    def _open(self, cameras: Mapping[str, str], layout: StateLayout | None, invert_gripper: str) -> None:
        self.info = _json(self.root / INFO_FILE)
        self.version = str(self.info.get("codebase_version", "?"))
        if not self.version.startswith(("v2.", "v3.")):
            raise DataError(
                f"{self.root}: found LeRobot {self.version}, expected v2.x or v3.x; convert it with LeRobot's own tool"
            )
        self.features: dict[str, Any] = self.info["features"]
        robot = str(self.info.get("robot_type") or "")
        self.fps, self.robot = float(self.info["fps"]), "" if robot == UNKNOWN_ROBOT else robot
        self.dt_s = 1.0 / self.fps
        keys = [key for key, f in self.features.items() if f["dtype"] in ("image", "video")]
        self.cameras = choose_cameras(keys, cameras, self.root)
        self.views = tuple(self.cameras)
        self._inverted = ("action", "state") if invert_gripper == "both" else (invert_gripper,)
        self._check_action()
        self.layout, self._has_pad = self._state_layout(layout)
        if "state" in self._inverted and self.layout is StateLayout.AXIS_ANGLE:
            raise DataError(
                f"{self.root}: found two fingers in metres in the state, expected one opening of 0..1 to be inverted; "
                "leave --invert-gripper state out"
            )
        self._entries = self._read_v3() if self.version.startswith("v3.") else self._read_v2()

    @property
    def reading(self) -> str:
        cameras = ",".join(f"{view}={key}" for view, key in self.cameras.items())
        return f"{super().reading} {cameras} inverted={'+'.join(self._inverted) or False}"

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        entry = self._entries[self._checked(index)]
        with whole(entry.data, f"{entry.length} rows of episode {entry.index} with states and actions"):
            return self._episode(entry)

    def _episode(self, entry: _Entry) -> Episode:
        table = self._rows(entry)
        action, state = _matrix(table, ACTION_KEY), _matrix(table, STATE_KEY)
        for name, rows in (("action", action), ("state", state)):
            if name in self._inverted:
                rows[:, -1] = 1.0 - rows[:, -1]
        if not self._has_pad:
            state = np.insert(state, 6, 0.0, axis=1)
        return Episode(
            file_path=self.name,
            episode_id=str(entry.index),
            instruction=entry.tasks[0].strip() if entry.tasks else "",
            state_TS=state,
            action_TA=action,
            images={view: self._images(entry, key, table) for view, key in self.cameras.items()},
            time_s=table["timestamp"].to_numpy().astype(np.float64) if "timestamp" in table.column_names else None,
        )

    def files(self) -> list[Path]:
        used = {entry.data for entry in self._entries}
        used |= {path for entry in self._entries for path in entry.videos.values()}
        return sorted({p for p in (self.root / "meta").rglob("*") if p.is_file()} | used)

    # ---- one episode ----------------------------------------------------------------------------------

    def _rows(self, entry: _Entry) -> Any:
        in_table = [key for key in self.cameras.values() if self.features[key]["dtype"] == "image"]
        wanted = [STATE_KEY, ACTION_KEY, *in_table] + (["timestamp"] if "timestamp" in self.features else [])
        table = pq.read_table(entry.data, columns=wanted, filters=[("episode_index", "=", entry.index)])
        if len(table) != entry.length:
            raise DataError(
                f"{entry.data}: found {len(table)} rows of episode {entry.index}, expected {entry.length}; "
                "the file was cut short or the episodes' table is another version's"
            )
        return table

    def _images(self, entry: _Entry, key: str, table: Any) -> Images:
        if self.features[key]["dtype"] == "video":
            return VideoImages(entry.videos[key], entry.video_start_s[key], entry.length, self.fps)
        return EncodedImages([row["bytes"] or b"" for row in table[key].to_pylist()], f"{entry.data} {key}")

    # ---- index ----------------------------------------------------------------------------------------

    def _check_action(self) -> None:
        feature = self.features.get(ACTION_KEY)
        shape = tuple(feature["shape"]) if feature else None
        names = " ".join(_names(feature)) if feature else ""
        if shape != (ACTION_DIM,) or _of_joints(names):
            raise DataError(
                f"{self.root}: found action {shape} named {names!r}, expected ({ACTION_DIM},) end-effector deltas "
                "(x, y, z, roll, pitch, yaw, gripper); convert joint actions by the robot's kinematics first"
            )

    def _state_layout(self, wanted: StateLayout | None) -> tuple[StateLayout, bool]:
        """The layout and whether the eight numbers are there, or seven without the pad."""
        feature = self.features.get(STATE_KEY) or {"shape": [0]}
        names, size = tuple(_names(feature)), int(feature["shape"][0])
        named = next((layout for layout in StateLayout if layout.value == names), None)
        if named is None and names == _WITHOUT_PAD:
            named = StateLayout.RPY
        layout = wanted or named
        if _of_joints(" ".join(names)):
            raise DataError(
                f"{self.root}: found {STATE_KEY} named {list(names)}, which are joints, expected poses of the end "
                f"effector {list(StateLayout.RPY.value)}; convert them by the robot's kinematics first"
            )
        if layout is None or size not in (STATE_DIM, STATE_DIM - 1) or (size < STATE_DIM and layout != StateLayout.RPY):
            raise DataError(
                f"{self.root}: found {STATE_KEY} of {size} named {list(names)}, expected one of "
                f"{[list(known.value) for known in StateLayout]}; name its layout: --state rpy"
            )
        return layout, size == STATE_DIM

    def _read_v2(self) -> list[_Entry]:
        entries = []
        per_chunk = int(self.info.get("chunks_size", 1000))
        videos = [key for key in self.cameras.values() if self.features[key]["dtype"] == "video"]
        for row in _json_lines(self.root / "meta/episodes.jsonl"):
            index = int(row["episode_index"])
            place = {"episode_chunk": index // per_chunk, "episode_index": index}
            entries.append(
                _Entry(
                    index,
                    int(row["length"]),
                    tuple(row["tasks"]),
                    self.root / self.info["data_path"].format(**place),
                    {key: self.root / self.info["video_path"].format(video_key=key, **place) for key in videos},
                    dict.fromkeys(videos, 0.0),
                )
            )
        return sorted(entries, key=lambda entry: entry.index)

    def _read_v3(self) -> list[_Entry]:
        entries = []
        videos = [key for key in self.cameras.values() if self.features[key]["dtype"] == "video"]
        columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
        columns += [
            f"videos/{key}/{what}" for key in videos for what in ("chunk_index", "file_index", "from_timestamp")
        ]
        tables = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        if not tables:
            raise DataError(f"{self.root}/meta/episodes: found no parquet file, expected the table of episodes")
        for path in tables:
            for row in pq.read_table(path, columns=columns).to_pylist():
                entries.append(self._v3_entry(row, videos))
        return sorted(entries, key=lambda entry: entry.index)

    def _v3_entry(self, row: Mapping[str, Any], videos: list[str]) -> _Entry:
        def place(prefix: str) -> dict[str, int]:
            return {"chunk_index": row[f"{prefix}/chunk_index"], "file_index": row[f"{prefix}/file_index"]}

        return _Entry(
            row["episode_index"],
            row["length"],
            tuple(row["tasks"]),
            self.root / self.info["data_path"].format(**place("data")),
            {
                key: self.root / self.info["video_path"].format(video_key=key, **place(f"videos/{key}"))
                for key in videos
            },
            {key: row[f"videos/{key}/from_timestamp"] for key in videos},
        )


def _of_joints(names: str) -> bool:
    return any(word in names.lower() for word in _JOINTS)


def _names(feature: Mapping[str, Any] | None) -> list[str]:
    """Names of a vector: a list, the list in a dictionary of one entry, or a dictionary of each name's place."""
    names = (feature or {}).get("names") or []
    if isinstance(names, dict):
        places = list(names.values())
        names = sorted(names, key=names.__getitem__) if all(isinstance(p, int) for p in places) else places[0]
    return [str(name) for name in names]


def _matrix(table: Any, key: str) -> np.ndarray:
    """A column of vectors of one length -> (rows, length) float32."""
    column = table[key].combine_chunks()
    if column.null_count:
        raise ValueError(f"{column.null_count} empty rows of {key}")
    return np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1).copy()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}; expected a JSON file; copy the dataset again") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}; expected a line of JSON for each episode; copy the dataset again") from error
