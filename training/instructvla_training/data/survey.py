"""What training must know of a dataset before its first step: words, states, actions and their normalisation.

Gathered in one pass (images are not decoded) and cached under a hash of the data and of how it is read, and under the
times at which its files were written, so that a changed file, another transform or another camera never meets old
statistics. (One edit would: deep within a large file, its size and its time of writing put back.) The numbers are
mapped from disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructvla_model.normalization import Statistics, StatisticsError, compute, field_from_dict

from .formats.episode import DataError, EpisodeDataset, StateLayout

logger = logging.getLogger(__name__)

RECIPE = "1: quantiles 0.01 and 0.99 of all steps; gripper of the action unscaled"
"""Raise the number when the way statistics are computed changes."""
ACTION_MASK = (True,) * 6 + (False,)
SPAN_FLOOR_ACTION = (0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.0)
"""Metres and radians in a step of ``REFERENCE_DT_S``, in others in proportion: a dimension that hardly moves must not
have its tremble blown up to full scale."""
REFERENCE_DT_S = 0.2
SPAN_FLOOR_STATE = (0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.0, 0.1)
_END, _BLOCK = 1 << 16, 1 << 20
WHOLE_BYTES, WHOLE_TEXT_BYTES = 4 << 20, 1 << 30
"""Larger files enter a hash by their ends alone; the second is for JSON and for what lies in a folder ``meta``."""
_COLUMNS = ("action_XA", "state_XS")
STATISTICS_FILE = "dataset_statistics.json"
"""Beside a checkpoint's manifest: the statistics of every dataset it was trained on, in the published layout."""


@dataclass(frozen=True)
class Survey:
    """``lengths``, ``instructions`` (empty where there is none) and ``keys`` (file path, episode id) by episode."""

    name: str
    fingerprint: str
    lengths: tuple[int, ...]
    instructions: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    statistics: Statistics
    action_XA: np.ndarray = field(compare=False, repr=False)  # all steps of all episodes
    state_XS: np.ndarray = field(compare=False, repr=False)

    @property
    def spoken(self) -> np.ndarray:
        """Whether each episode has an instruction, (episodes,) bool."""
        return np.array([bool(text) for text in self.instructions])

    @property
    def n_steps(self) -> int:
        return sum(self.lengths)


def action_floor(dt_s: float) -> tuple[float, ...]:
    """The smallest span of each dimension of an action whose step lasts ``dt_s``."""
    return tuple(span * (dt_s / REFERENCE_DT_S) for span in SPAN_FLOOR_ACTION)


def action_statistics(
    action_XA: np.ndarray, state_XS: np.ndarray, layout: StateLayout = StateLayout.RPY, dt_s: float = REFERENCE_DT_S
) -> Statistics:
    """Normalisation of actions and states; the gripper of the action stays an opening of 0..1."""
    floor = SPAN_FLOOR_STATE if layout is StateLayout.RPY else None
    action = compute(action_XA, mask=ACTION_MASK, span_floor=action_floor(dt_s))
    return Statistics(action, compute(state_XS, span_floor=floor))


def survey(dataset: EpisodeDataset, report: Callable[[int, int], None] = lambda done, total: None) -> Survey:
    """The survey of ``dataset``, from the cache where it was made before. Raises DataError on values not finite.

    Statistics are those of all its splits (reference §5.5); all else is of the episodes alone.
    """
    others = dataset.other_splits()
    mark = fingerprint(dataset, _recipe(dataset.dt_s), others)
    path = cache_entry(dataset, mark, others)
    cached = _read(path)
    if cached is not None:
        return cached
    lengths, words, keys, actions, states = [], [], [], [], []
    for number, episode in enumerate(dataset):
        report(number, len(dataset))
        lengths.append(len(episode))
        words.append(episode.instruction)
        keys.append((episode.file_path, episode.episode_id))
        actions.append(episode.action_TA)
        states.append(episode.state_TS)
    if not lengths:
        raise DataError(f"{dataset.root}: found no episode, expected some")
    action, state = np.concatenate(actions), np.concatenate(states)
    for episode in (episode for other in others for episode in other):
        actions.append(episode.action_TA)
        states.append(episode.state_TS)
    try:
        every_action, every_state = np.concatenate(actions), np.concatenate(states)
        statistics = action_statistics(every_action, every_state, dataset.layout, dataset.dt_s)
    except StatisticsError as error:
        raise DataError(f"{dataset.root}: {error}; instructvla-train data lint names the episodes") from error
    made = Survey(dataset.name, mark, tuple(lengths), tuple(words), tuple(keys), statistics, action, state)
    _write(path, made)
    logger.info("%s: %d episodes, %d steps surveyed", dataset.name, len(lengths), made.n_steps)
    return made


def fingerprint(dataset: EpisodeDataset, recipe: str = RECIPE, others: Sequence[EpisodeDataset] = ()) -> str:
    """Hash over how the dataset is read and over the names and contents of its files: a copy elsewhere has the same.

    Files up to `WHOLE_BYTES` (in ``meta`` and JSON: `WHOLE_TEXT_BYTES`) count whole; larger ones, and videos, as no
    survey keeps pictures, by size and first and last 64 KiB. (Older versions took all files so: where none has more
    than 128 KiB the hash is still the same.)
    """
    digest = hashlib.sha256(f"{recipe}\n{dataset.reading}\n".encode())
    for path in _files(dataset, others):
        relative = path.relative_to(dataset.root)
        digest.update(f"{relative} ".encode())
        _add(digest, path, _whole_bytes(relative))
    return digest.hexdigest()[:24]


def file_mark(path: Path) -> str:
    """Hash over a file as `fingerprint` takes it: whole where it is not too large, else size and both ends."""
    digest = hashlib.sha256()
    _add(digest, path, _whole_bytes(Path(path.name)))
    return digest.hexdigest()[:24]


def _files(dataset: EpisodeDataset, others: Sequence[EpisodeDataset]) -> list[Path]:
    return list(dict.fromkeys(path for each in (dataset, *others) for path in each.files()))


def _whole_bytes(relative: Path) -> int:
    """Up to which size a file counts whole, by its path in the dataset."""
    if relative.suffix == ".mp4":
        return 0
    return WHOLE_TEXT_BYTES if relative.suffix in (".json", ".jsonl") or "meta" in relative.parts[:1] else WHOLE_BYTES


def _add(digest: hashlib._Hash, path: Path, whole: int) -> None:
    """Size, beginning and end of a file; what lies between them too, where it has no more than ``whole`` bytes."""
    if not path.is_file():
        raise DataError(f"{path} is missing, expected a file that the dataset names; copy the dataset again")
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(_END))
        file.seek(max(0, size - _END))
        digest.update(file.read(_END))
        file.seek(_END)
        for place in range(_END, size - _END if size <= whole else 0, _BLOCK):
            digest.update(file.read(min(_BLOCK, size - _END - place)))


def _recipe(dt_s: float) -> str:
    """At the reference rate as it was before other rates had spans of their own: those hashes stay."""
    return RECIPE if dt_s == REFERENCE_DT_S else f"{RECIPE}; least spans by the step"


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "instructvla" / "surveys"


def cache_entry(dataset: EpisodeDataset, mark: str, others: Sequence[EpisodeDataset] = ()) -> Path:
    """Where the survey of the dataset of this `fingerprint` is kept, while its name and its files stay as they are.

    Episodes bear the name in their keys. It and the times of writing are no part of the fingerprint, by which a run
    knows its data again: a copy has others.
    """
    here = [dataset.name, *(path.stat().st_mtime_ns for path in _files(dataset, others))]
    return cache_folder() / f"{mark}-{hashlib.sha256(repr(here).encode()).hexdigest()[:8]}"


def published(surveys: Sequence[Survey]) -> dict[str, Any]:
    """Name -> statistics in the layout of the released checkpoints (reference §5.9). Raises DataError where two
    datasets have one name: the second would stand in the first one's place."""
    names = [made.name for made in surveys]
    if len(set(names)) < len(names):
        raise DataError(
            f"found datasets {', '.join(names)}, expected different names, by which statistics are kept; rename a "
            "folder or write each to a file of its own"
        )
    table = {}
    for made in surveys:
        fields = made.statistics.to_dict()
        table[made.name] = {
            "action": fields["action"],
            "proprio": fields["state"],
            "num_transitions": made.n_steps,
            "num_trajectories": len(made.lengths),
            "hash": made.fingerprint,
        }
    return table


def write_published(path: Path, surveys: Sequence[Survey]) -> None:
    """The file of `published`. Raises DataError, as that does, before anything is written."""
    content = json.dumps(published(surveys), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read_published(path: Path) -> dict[str, Statistics]:
    """Inverse of `write_published`, the statistics alone. Raises DataError."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Statistics(field_from_dict(entry["action"]), field_from_dict(entry["proprio"]))
            for name, entry in table.items()
        }
    except (OSError, json.JSONDecodeError, KeyError, AttributeError, StatisticsError) as error:
        raise DataError(f"{path}: {error!r}; expected statistics by dataset with action and proprio") from error


def statistics_of_dataset(checkpoint: Path, name: str) -> Statistics:
    """What a checkpoint was trained with on the dataset of this name. Raises DataError where there is none."""
    known = read_published(checkpoint / STATISTICS_FILE)
    if name not in known:
        raise DataError(f"{checkpoint}: found statistics of {', '.join(known)}, expected those of {name!r}; name one")
    return known[name]


def _write(folder: Path, made: Survey) -> None:
    """The folder appears when it is complete; one that another process made meanwhile, and may have mapped, stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    partial.chmod(0o755)
    for name in _COLUMNS:
        np.save(partial / f"{name}.npy", getattr(made, name), allow_pickle=False)
    content = {"lengths": made.lengths, "instructions": made.instructions, "keys": made.keys, "of": published([made])}
    (partial / "survey.json").write_text(json.dumps(content), encoding="utf-8")
    if folder.exists() and _read(folder) is None:  # damaged
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(partial, folder)
    except OSError:
        shutil.rmtree(partial)  # another process was quicker


def _read(folder: Path) -> Survey | None:
    """A cached survey; None where there is none, or one that was damaged."""
    if not folder.is_dir():
        return None
    try:
        content: Mapping[str, Any] = json.loads((folder / "survey.json").read_text(encoding="utf-8"))
        ((name, entry),) = content["of"].items()
        statistics = Statistics(field_from_dict(entry["action"]), field_from_dict(entry["proprio"]))
        action, state = (np.load(folder / f"{column}.npy", mmap_mode="r", allow_pickle=False) for column in _COLUMNS)
        if not len(action) == len(state) == sum(content["lengths"]):
            raise ValueError(f"{len(action)} actions, {len(state)} states")
        keys = tuple((str(path), str(number)) for path, number in content["keys"])
        return Survey(
            name,
            entry["hash"],
            tuple(content["lengths"]),
            tuple(content["instructions"]),
            keys,
            statistics,
            action,
            state,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: damaged (%r), made anew", folder, error)
        return None
