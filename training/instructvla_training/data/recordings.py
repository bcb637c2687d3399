"""Recordings of any arm as episodes on an even grid of time, with an account of holes and skew.

Unlike `BagDataset`, which takes the steps that the project's own controller executed, this takes any recording: cut by
marks or instructions, resampled at the policy's step, its actions executed, commanded or derived from states.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import Episode as Cut
from instructvla_ros.bags.episodes import find_episodes
from instructvla_ros.bags.events import EventReader
from instructvla_ros.bags.roles import find_roles
from instructvla_ros.bags.truth import Truth
from instructvla_ros.policy.ingest import frame_of, raw_stamp_s

from .formats.episode import DataError, Episode, EpisodeDataset, Images, StateLayout

MAX_IMAGE_AGE_S = 0.5
MIN_STEPS = 4
REPORT_FILE = "meta/recordings.json"


@dataclass(frozen=True)
class Account:
    """What resampling found in one episode: steps kept and left out, the longest holes, the largest and mean difference
    between the stamps of a step and of its image."""

    bag: str
    episode: int
    instruction: str
    success: bool | None
    steps: int
    left_out: int
    longest_camera_gap_s: float
    longest_joint_gap_s: float
    largest_skew_s: float
    mean_skew_s: float


@dataclass(frozen=True)
class RecordedImages(Images):
    """Images of one topic by the times at which they were received, ascending (the same may come several times)."""

    bag: Path
    topic: str
    received_ns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.received_ns)

    def __getitem__(self, step: int) -> np.ndarray:
        return next(self._read((self.received_ns[step],)))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read(self.received_ns)

    def _read(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        position = 0
        with Bag(self.bag) as bag:
            decoder = Decoder(bag)
            for record in bag.messages([self.topic], wanted[0], wanted[-1] + 1):
                if record.stamp_ns != wanted[position]:
                    continue
                message = decoder.decode(record)
                if message is None:
                    break
                image = frame_of(message, 0.0).image
                while position < len(wanted) and wanted[position] == record.stamp_ns:
                    position += 1
                    yield image
                if position == len(wanted):
                    return
        raise DataError(f"{self.bag} {self.topic}: the image received at {wanted[position]} ns cannot be read any more")


class RecordingDataset(EpisodeDataset):
    """Episodes of bags. Opening it reads everything but the pixels once; `accounts` then says what was found."""

    format = "recording"
    layout = StateLayout.RPY

    def __init__(
        self, bags: Sequence[Path], *, dt_s: float = 0.2, actions: str = "auto", instruction: str = "",
        topics: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Raises BagError or DataError where nothing can be made of a bag."""
        self.root, self.name, self.dt_s = Path(bags[0]), Path(bags[0]).name, dt_s
        self._bags = [Path(bag) for bag in bags]
        self.problems: dict[str, tuple[str, ...]] = {}
        self.accounts: list[Account] = []
        self._episodes: list[Episode] = []
        views: set[str] = set()
        for path in self._bags:
            with Bag(path) as bag:
                views |= self._read(bag, actions, instruction, topics or {})
                self.problems[bag.name] = tuple(str(problem) for problem in bag.problems)
        self.views = tuple(view for view in ("primary", "wrist") if view in views)
        if not self._episodes:
            raise DataError(
                f"{', '.join(map(str, bags))}: found no episode of at least {MIN_STEPS} steps with images, states and "
                "actions; look at the report for what is missing"
            )

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        return self._episodes[self._checked(index)]

    def files(self) -> list[Path]:
        return [path for bag in self._bags for path in (sorted(bag.iterdir()) if bag.is_dir() else [bag])]

    def write_report(self, folder: Path) -> Path:
        """The account as JSON beside the data."""
        path = folder / REPORT_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"dt_s": self.dt_s, "episodes": [asdict(a) for a in self.accounts], "problems": self.problems}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path

    def _read(self, bag: Bag, actions: str, instruction: str, topics: Mapping[str, str]) -> set[str]:
        decoder = Decoder(bag)
        roles = find_roles(bag, topics)
        reader, truth = EventReader(bag, decoder, roles), Truth(actions)
        for event in reader.read(images=False):
            truth.add(event)
        truth.finish(reader.arm)
        if not truth.source or not len(truth.states):
            raise DataError(f"{bag.path}: found no joint states of a known arm, expected some; record the driver's")
        cameras = {view: topic for view in ("primary", "wrist") if (topic := getattr(roles, view))}
        stamps = {view: _stamps(bag, topic) for view, topic in cameras.items()}
        for cut in find_episodes(bag, decoder, roles, instruction):
            self._resample(bag, cut, truth, cameras, stamps)
        return set(cameras)

    def _resample(
        self, bag: Bag, cut: Cut, truth: Truth, cameras: Mapping[str, str], stamps: Mapping[str, np.ndarray]
    ) -> None:
        """The longest run of grid steps of an episode for which images, state and action are known."""
        first, last = (int(np.searchsorted(stamps["primary"][:, 1], t)) for t in (cut.start_ns, cut.stop_ns))
        if last - first < 2:
            return
        begin_s, end_s = (stamps["primary"][n, 0] * 1e-9 for n in (first, last - 1))
        grid_s = begin_s + self.dt_s * np.arange(int((end_s - begin_s) / self.dt_s + 1e-6) + 1)
        newest = {view: _newest(rows[:, 0] * 1e-9, grid_s) for view, rows in stamps.items()}
        skew_s = {view: grid_s - stamps[view][newest[view], 0] * 1e-9 for view in cameras}
        states = [truth.states.state(time_s) for time_s in grid_s]
        steps = np.array([truth.actions(time_s, self.dt_s, 1)[0] for time_s in grid_s])
        good = np.isfinite(steps).all(axis=1) & np.array([state is not None for state in states])
        for ages in skew_s.values():
            good &= (ages >= -1e-6) & (ages <= MAX_IMAGE_AGE_S)
        start, stop = _longest_run(good)
        worst = np.max([ages[start:stop] for ages in skew_s.values()], axis=0) if stop > start else np.zeros(1)
        self.accounts.append(
            Account(
                bag.name, cut.index, cut.instruction, cut.success, stop - start, len(grid_s) - (stop - start),
                _gap_s(stamps["primary"][first:last, 0]), _gap_s(_within(truth.states.times_s * 1e9, begin_s, end_s)),
                float(worst.max()), float(worst.mean()),
            )
        )  # fmt: skip
        if stop - start < MIN_STEPS:
            return
        kept = [state for state in states[start:stop] if state is not None]
        self._episodes.append(
            Episode(
                file_path=bag.name,
                episode_id=str(cut.index),
                instruction=cut.instruction,
                state_TS=np.array(kept, np.float32),
                action_TA=steps[start:stop].astype(np.float32),
                images={
                    view: RecordedImages(
                        bag.path, topic, tuple(stamps[view][newest[view][start:stop], 1].astype(np.int64).tolist())
                    )
                    for view, topic in cameras.items()
                },
                time_s=grid_s[start:stop] - grid_s[start],
            )
        )


def _stamps(bag: Bag, topic: str) -> np.ndarray:
    """(n, 2) header stamps and receive times (ns) of a topic's images, whose pixels are not decoded."""
    rows = []
    for record in bag.messages([topic]):
        try:
            rows.append((round(raw_stamp_s(record.data) * 1e9), record.stamp_ns))
        except ValueError as error:
            bag.note(topic, str(error))
    return np.array(rows, np.int64).reshape(-1, 2)


def _newest(stamps_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Index of the newest stamp not after each time; 0 where all are later."""
    return np.maximum(np.searchsorted(stamps_s, at_s + 1e-6, side="right") - 1, 0)


def _longest_run(good: np.ndarray) -> tuple[int, int]:
    """Beginning and end of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))


def _gap_s(times_ns: np.ndarray) -> float:
    return float(np.diff(times_ns).max() * 1e-9) if len(times_ns) > 1 else 0.0


def _within(times_ns: np.ndarray, begin_s: float, end_s: float) -> np.ndarray:
    return times_ns[(times_ns >= begin_s * 1e9) & (times_ns <= end_s * 1e9)]
