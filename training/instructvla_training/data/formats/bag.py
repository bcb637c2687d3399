"""rosbag2 recordings of any known arm as episodes on the policy's steps, with an account of holes and skew.

Episodes are cut by the recorder's marks, else by instructions. Steps are those that the controller executed where the
bag has them; else an even grid from the first image on, whose actions are the joint goals sent to the driver or the
states reached. Each step has the newest image of each camera; a hole ends a run of steps, and what follows is the
next one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from instructvla_ros.bags.bag import Bag, is_storage_file
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import Episode as Cut
from instructvla_ros.bags.episodes import find_episodes
from instructvla_ros.bags.events import EventReader, constant_offset
from instructvla_ros.bags.roles import NOTE, find_roles, recorder_note
from instructvla_ros.bags.track import MAX_CLOCK_JUMP_S, Spans
from instructvla_ros.bags.truth import SOURCES, Truth
from instructvla_ros.bags.types import BagError
from instructvla_ros.policy.ingest import pixels_of, raw_stamp_s

from .bag_account import Account
from .episode import VIEWS, DataError, Episode, EpisodeDataset, Images, StateLayout, absolute

ACTIONS = ("auto", *SOURCES)
STEP_S = 0.2
"""Of the grid of bags without executed steps."""
MAX_IMAGE_AGE_S = 0.5
"""At the beginning of a step; the controller stops at such ages too."""
GAP_STEPS = 3.0
"""A pause longer than this many steps ends a run of executed steps."""
MIN_STEPS = 4
_FEW = 3
"""Fewer images than this on a clock of their own are strays."""
INSTRUCTION_FILE = "instruction.txt"
"""In a bag's folder: what the person who drove the arm was told to do, where the bag itself does not say it."""


def find_bags(root: Path) -> list[Path]:
    """Bags at or below ``root``, in name order: folders with metadata.yaml or, where that was lost, storage files."""
    root = Path(root)
    if root.is_file():
        return [root] if is_storage_file(root) else []
    return sorted({path.parent for path in root.rglob("*") if path.name == "metadata.yaml" or is_storage_file(path)})


@dataclass(frozen=True)
class BagImages(Images):
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
        """One pass over the topic from the first wanted time to the last."""
        position = 0
        with Bag(self.bag) as bag:
            decoder = Decoder(bag)
            for record in bag.messages([self.topic], wanted[0], wanted[-1] + 1):
                if record.stamp_ns != wanted[position]:
                    continue
                message = decoder.decode(record)
                if message is None:
                    break
                try:
                    image = pixels_of(message)
                except ValueError as error:
                    raise DataError(f"{self.bag} {self.topic}: {error}; leave the recording out") from error
                while position < len(wanted) and wanted[position] == record.stamp_ns:
                    position += 1
                    yield image
                if position == len(wanted):
                    return
        raise DataError(f"{self.bag} {self.topic}: no image received at {wanted[position]} ns; was the bag changed?")


class BagDataset(EpisodeDataset):
    """Bags of one arm, or all those below folders. Opening it reads everything but the pixels once; `accounts` and
    `problems` (by bag) then say what was found."""

    format = "bag"

    def __init__(
        self, root: Path | Sequence[Path], *, cameras: Mapping[str, str] | None = None, actions: str = "auto",
        instruction: str = "", dt_s: float | None = None, keep_failures: bool = False,
    ) -> None:  # fmt: skip
        """``cameras``: view -> image topic; ``instruction`` instead of what the bags say; ``dt_s``: of the grid.
        Episodes that were marked a failure are left out unless ``keep_failures``.

        Raises DataError where no episode is found.
        """
        if actions not in ACTIONS:
            raise DataError(f"actions {actions!r}; expected one of {', '.join(ACTIONS)}")
        if dt_s is not None and not 0.01 <= dt_s <= 10.0:
            raise DataError(f"step of {dt_s} s; expected 0.01 to 10 s")
        self._roots = [Path(root)] if isinstance(root, str | Path) else [Path(one) for one in root]
        self.root, self.name = self._roots[0], absolute(self._roots[0]).name
        self._actions, self._instruction, self._dt_s = actions, instruction, dt_s
        self._cameras, self._keep_failures = dict(cameras or {}), keep_failures
        self.accounts: list[Account] = []
        self.problems: dict[str, tuple[str, ...]] = {}
        self._episodes: list[Episode] = []
        self._parts: Counter[tuple[str, int]] = Counter()  # episodes of a bag with the same id: ids may come again
        self._steps_s: set[float] = set()
        self._kinds: set[tuple[str, str]] = set()  # robot and state layout
        self._read_all()

    @property
    def reading(self) -> str:
        failures = " with failures" if self._keep_failures else ""
        return f"{super().reading} {self._actions} {sorted(self._cameras.items())} {self._instruction}{failures}"

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        return self._episodes[self._checked(index)]

    def files(self) -> list[Path]:
        bags = [bag for root in self._roots for bag in find_bags(root)]
        return [path for bag in bags for path in (sorted(bag.iterdir()) if bag.is_dir() else [bag]) if path.is_file()]

    def _read_all(self) -> None:
        """Every bag; one of which nothing can be made is a problem, none at all an error."""
        bags = [(root, bag) for root in self._roots for bag in find_bags(root)]
        if not bags:
            raise DataError(
                f"{', '.join(map(str, self._roots))}: found no rosbag2, expected a folder with metadata.yaml, an .mcap "
                "or a .db3 file; record some: instructvla record"
            )
        for root, path in bags:
            name = str(absolute(path).relative_to(absolute(root).parent))
            try:
                with Bag(path) as bag:
                    try:
                        self._read(bag, name)
                    except ValueError as error:
                        bag.note(name, str(error))
                    self.problems[name] = tuple(str(problem) for problem in bag.problems)
            except BagError as error:
                self.problems[name] = (str(error),)
        if not self._episodes:
            told = "; ".join(f"{bag}: {', '.join(found)}" for bag, found in self.problems.items() if found)
            raise DataError(f"found no episode of at least {MIN_STEPS} steps, expected some; what was found: {told}")
        if len(self._steps_s) > 1:
            raise DataError(f"found steps of {sorted(self._steps_s)} s, expected one length; take the bags apart")
        (self.dt_s,) = self._steps_s
        self._agree_on_kind()
        self._agree_on_views()

    def _agree_on_kind(self) -> None:
        robots, layouts = (sorted({kind[n] for kind in self._kinds} - {""}) for n in (0, 1))
        for what, found in (("arms", robots), ("state layouts", layouts)):
            if len(found) > 1:
                raise DataError(f"found {what} {', '.join(found)}, expected one; take the bags apart")
        self.robot, self.layout = robots[0] if robots else "", StateLayout[layouts[0]]

    def _agree_on_views(self) -> None:
        views = [set(episode.images) for episode in self._episodes]
        self.views = tuple(view for view in VIEWS if all(view in found for found in views))
        for episode in self._episodes:
            for view in sorted(set(episode.images) - set(self.views)):
                note = f"other bags have no {view} camera: it is left out here"
                told = self.problems[episode.file_path]
                self.problems[episode.file_path] = told if note in told else (*told, note)
        self._episodes = [
            replace(episode, images={view: episode.images[view] for view in self.views}) for episode in self._episodes
        ]

    def _read(self, bag: Bag, name: str) -> None:
        decoder = Decoder(bag)
        roles = find_roles(bag, self._cameras)
        if not roles.primary:
            raise DataError(f"{bag.path}: found no primary camera, expected one; name it: --camera primary=TOPIC")
        reader, truth = EventReader(bag, decoder, roles), Truth(self._actions)
        for event in reader.read(images=False):
            truth.add(event)
        stamps = {view: _stamps(bag, topic) for view in VIEWS if (topic := getattr(roles, view))}
        for stamp_ns, received_ns in stamps["primary"].tolist():
            truth.see(stamp_ns * 1e-9, received_ns * 1e-9)
        truth.finish(reader.arm)
        if not truth.source:
            told = "; ".join(str(problem) for problem in bag.problems) or "no joint states, no executed steps"
            raise DataError(f"found nothing that was done ({told}); record the joint states of a known arm")
        dt_s = self._dt_s or STEP_S
        if truth.source == "steps":
            dt_s = float(np.median([step.dt_s for step in truth.steps]))
            if self._dt_s is not None and abs(dt_s - self._dt_s) > 1e-6:
                raise DataError(f"found executed steps of {dt_s:g} s, expected {self._dt_s:g} s; say --actions states")
        topics = {view: getattr(roles, view) for view in stamps}
        note = recorder_note(bag)
        kind = reader.robot or str(note.get("robot", "")), _layout(note, bag)
        for cut in find_episodes(bag, decoder, roles, self._instruction, _beside(bag.path)):
            if cut.success is False and not self._keep_failures:
                bag.note(name, "episodes that were marked a failure were left out; --keep-failures keeps them")
                continue
            for part in _steady(cut, stamps["primary"]):
                offset_ns = _offset_ns(part, stamps["primary"])
                steady = {view: _of_clock(rows, offset_ns) for view, rows in stamps.items()}
                self._resample(bag, name, part, truth, steady, topics, dt_s, kind)

    def _resample(
        self, bag: Bag, name: str, cut: Cut, truth: Truth, stamps: Mapping[str, np.ndarray], topics: Mapping[str, str],
        dt_s: float, kind: tuple[str, str],
    ) -> None:  # fmt: skip
        """The runs of steps of an episode, or of a part of it in which no clock jumps, for which images, state and
        action are known."""
        first, last = (int(np.searchsorted(stamps["primary"][:, 1], t)) for t in (cut.start_ns, cut.stop_ns))
        if last - first < 2:
            bag.note(topics["primary"], f"has no images of episode {cut.instruction_id} ({cut.instruction})")
            return
        for view, rows in stamps.items():
            if not len(rows):
                bag.note(topics[view], "has no images on the clock of the primary camera's")
                return
        begin_s, end_s = (stamps["primary"][n, 0] * 1e-9 for n in (first, last - 1))
        later_s = stamps["primary"][first, 1] * 1e-9 - begin_s  # from a stamp to the reception of its image
        if truth.source == "steps":
            within = [step for step in truth.steps if cut.start_ns <= step.received_ns < cut.stop_ns]
            grid_s = np.array([step.began_s for step in within])
            actions = np.array([step.action for step in within]).reshape(-1, 7)
        else:
            grid_s = begin_s + dt_s * np.arange(int((end_s - begin_s) / dt_s + 1e-6) + 1)
            actions = np.array([truth.actions(time_s, time_s + later_s, dt_s, 1)[0] for time_s in grid_s])
        states = [truth.state(time_s, time_s + later_s) for time_s in grid_s]
        newest = {view: _newest(rows[:, 0] * 1e-9, grid_s) for view, rows in stamps.items()}
        skew_s = np.array([grid_s - stamps[view][newest[view], 0] * 1e-9 for view in stamps])
        good = np.isfinite(actions).all(axis=1) & np.array([state is not None for state in states], bool)
        good &= ((skew_s >= -1e-6) & (skew_s <= MAX_IMAGE_AGE_S)).all(axis=0)
        runs = [run for run in _runs(good, grid_s, GAP_STEPS * dt_s) if run[1] - run[0] >= MIN_STEPS]
        kept = np.concatenate([np.arange(*run) for run in runs]) if runs else np.empty(0, int)
        worst = skew_s.max(axis=0)[kept] if len(kept) else np.zeros(1)
        span_ns = (begin_s * 1e9, end_s * 1e9)
        self.accounts.append(
            Account(
                name, str(cut.instruction_id), cut.instruction, cut.success, truth.source, len(runs), len(kept),
                len(grid_s) - len(kept), _gap_s(stamps["primary"][first:last, 0]),
                _gap_s(_within(truth.stamps_s(begin_s, begin_s + later_s) * 1e9, *span_ns)), float(worst.max()),
                float(worst.mean()),
            )
        )  # fmt: skip
        if not runs:
            what = f"no {MIN_STEPS} steps in a row have images, state and action"
            bag.note(name, f"episode {cut.instruction_id}: {what}")
        for start, stop in runs:
            part = self._parts[name, cut.instruction_id]
            self._parts[name, cut.instruction_id] += 1
            self._steps_s.add(round(dt_s, 6))
            self._kinds.add(kind)
            state = np.array([found for found in states[start:stop] if found is not None], np.float32)
            images = {
                view: BagImages(bag.path, topics[view], tuple(stamps[view][newest[view][start:stop], 1].tolist()))
                for view in stamps
            }
            self._episodes.append(
                Episode(
                    name, f"{cut.instruction_id}.{part}", cut.instruction, state,
                    actions[start:stop].astype(np.float32), images, grid_s[start:stop] - grid_s[start],
                )
            )  # fmt: skip


def _layout(note: Mapping[str, object], bag: Bag) -> str:
    """Of the states: of a data set's own it is noted, those of an arm are made from its joints."""
    found = str(note.get("state_layout", StateLayout.RPY.name))
    if found not in StateLayout.__members__:
        known = ", ".join(StateLayout.__members__)
        raise DataError(f"{bag.path}: found states of layout {found!r}, expected one of {known}; mend metadata.yaml")
    return found


def note_of(dataset: EpisodeDataset) -> tuple[str, str]:
    """What a bag of a data set's episodes must say of them, which its messages do not: key and text of its metadata."""
    return NOTE, json.dumps({"robot": dataset.robot, "state_layout": dataset.layout.name})


def _beside(bag: Path) -> str:
    """The text of the file; without the mark that some editors put at its beginning."""
    file = bag / INSTRUCTION_FILE
    return file.read_text(encoding="utf-8-sig").strip() if file.is_file() else ""


def _stamps(bag: Bag, topic: str) -> np.ndarray:
    """(n, 2) header stamps and receive times (ns) of a topic's images, whose pixels are not read, as received."""
    rows = []
    for record in bag.messages([topic]):
        try:
            rows.append((round(raw_stamp_s(record.data) * 1e9), record.stamp_ns))
        except ValueError as error:
            bag.note(topic, str(error))
    found = np.array(rows, np.int64).reshape(-1, 2)
    ahead_ns = found[:, 0] - found[:, 1]
    if len(found) and abs(ahead_ns[0]) > MAX_CLOCK_JUMP_S * 1e9:
        bag.note(topic, constant_offset(float(ahead_ns[0]) * 1e-9))
    newer = np.zeros(len(found), bool)
    clocks = _clocks(found)
    parts = [part for part in clocks.parts if len(part) >= _FEW or len(clocks) == 1]
    for part in parts:
        newer[part] = _rising(found[part, 0])
    if not newer.all():
        bag.note(topic, "images whose stamps run backwards or stand still were left out", int((~newer).sum()))
    if len(parts) > 1:
        what = "the clock of the stamps jumps against the recorder's (F16); episodes are divided there"
        bag.note(topic, what, len(parts) - 1)
    return found[newer]


def _rising(stamps_ns: np.ndarray) -> np.ndarray:
    """Which stamps are above all before them."""
    before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(stamps_ns)[:-1]])
    return stamps_ns > before[: len(stamps_ns)]


def _clocks(rows: np.ndarray) -> Spans:
    """The parts of stamps and receive times (n, 2) ns in which the clock of the stamps does not jump."""
    return Spans(rows[:, 0] * 1e-9, rows[:, 1] * 1e-9)


def _steady(cut: Cut, rows: np.ndarray) -> list[Cut]:
    """An episode cut where the clock of the images (n, 2) jumps."""
    jumps = rows[1:, 1][np.diff(_clocks(rows).labels) != 0]
    inner = [time_ns for time_ns in jumps.tolist() if cut.start_ns < time_ns < cut.stop_ns]
    edges = [cut.start_ns, *inner, cut.stop_ns]
    return [replace(cut, start_ns=a, stop_ns=b) for a, b in pairwise(edges)]


def _offset_ns(cut: Cut, rows: np.ndarray) -> int:
    """How far the stamps of an episode's first image are ahead of its reception."""
    place = min(int(np.searchsorted(rows[:, 1], cut.start_ns)), len(rows) - 1)
    return int(rows[place, 0] - rows[place, 1]) if len(rows) else 0


def _of_clock(rows: np.ndarray, offset_ns: int) -> np.ndarray:
    """The images whose stamps are of this clock; both columns ascend."""
    same = rows[np.abs(rows[:, 0] - rows[:, 1] - offset_ns) <= MAX_CLOCK_JUMP_S * 1e9]
    return same[_rising(same[:, 0])]


def _newest(stamps_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Index of the newest stamp not after each time; 0 where all are later."""
    return np.maximum(np.searchsorted(stamps_s, at_s + 1e-6, side="right") - 1, 0)


def _runs(good: np.ndarray, times_s: np.ndarray, gap_s: float) -> list[tuple[int, int]]:
    """Beginnings and ends of the runs of True that no gap in time divides."""
    places = np.flatnonzero(good)
    if not len(places):
        return []
    breaks = np.flatnonzero((np.diff(places) > 1) | (np.diff(times_s[places]) > gap_s)) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(places, breaks)]


def _gap_s(times_ns: np.ndarray) -> float:
    return float(np.diff(times_ns).max() * 1e-9) if len(times_ns) > 1 else 0.0


def _within(times_ns: np.ndarray, begin_ns: float, end_ns: float) -> np.ndarray:
    return times_ns[(times_ns >= begin_ns) & (times_ns <= end_ns)]
