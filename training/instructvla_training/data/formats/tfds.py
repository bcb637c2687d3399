"""TFDS datasets on disk: dataset_info.json, features.json and TFRecord shards of episodes (RLDS).

TFDS flattens an episode into one Example: nested names are joined by "/", and the values of all steps of a
feature are one list, which the feature's shape in features.json cuts into steps again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .episode import DataError, whole
from .tfrecord import Value, parse_example, read_record, record_offsets

INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"
_STEPS = "steps/"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def is_tfds(root: Path) -> bool:
    return (root / INFO_FILE).is_file() and (root / FEATURES_FILE).is_file()


@dataclass(frozen=True)
class Leaf:
    """One feature of features.json: ``kind`` is "tensor", "image" or "text"; ``shape`` of one step's value."""

    kind: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class RawEpisode:
    """An episode as stored: numbers as (T, ...) arrays, bytes as lists of T. ``shard`` and ``number`` say where."""

    steps: dict[str, Value]  # by name below "steps/"
    metadata: dict[str, Value]  # the rest, by whole name
    shard: Path
    number: int  # in its split

    @property
    def source(self) -> str:
        return f"{self.shard.name}, episode {self.number}"


class TfdsReader:
    """The episodes of one split by number. Headers of all shards are read once, when it is opened."""

    def __init__(self, root: Path, split: str = "train") -> None:
        """Raises DataError where the folder is not a TFDS dataset or lacks the split."""
        self.root, self.split = Path(root), split
        info, features = (_json(self.root / name) for name in (INFO_FILE, FEATURES_FILE))
        with whole(self.root / FEATURES_FILE, "the schema of a TFDS dataset"):
            self.leaves = dict(_leaves(features, ""))
        with whole(self.root / INFO_FILE, "the splits of a TFDS dataset with their shardLengths"):
            self.name = str(info.get("name", self.folder))  # what the shards are called
            splits = {entry["name"]: [int(n) for n in entry["shardLengths"]] for entry in info.get("splits", ())}
        self.splits = tuple(splits)
        if split not in splits:
            raise DataError(
                f"{self.root}: found splits {sorted(splits)}, expected {split!r}; name one of them: --split"
            )
        self.shards = [self._shard(number, len(splits[split])) for number in range(len(splits[split]))]
        self._where: list[tuple[int, int]] = []  # shard, byte offset
        for number, (shard, declared) in enumerate(zip(self.shards, splits[split], strict=True)):
            offsets = record_offsets(shard)
            if len(offsets) != declared:
                raise DataError(
                    f"{shard}: found {len(offsets)} records, {INFO_FILE} says {declared}; copy the file again"
                )
            self._where += [(number, int(offset)) for offset in offsets]

    @property
    def folder(self) -> str:
        """Name of the dataset's folder, below which versions may lie."""
        root = self.root.absolute()
        return root.parent.name if _VERSION.fullmatch(root.name) else root.name

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> RawEpisode:
        number, offset = self._where[index]
        shard = self.shards[number]
        source = f"{shard}, episode {index}"
        example = parse_example(read_record(shard, offset), source)
        steps = {}
        for name, leaf in self.leaves.items():
            if name.startswith(_STEPS) and name in example:
                steps[name.removeprefix(_STEPS)] = _cut(example[name], leaf, f"{source}, {name}")
        rest = {name: value for name, value in example.items() if not name.startswith(_STEPS)}
        return RawEpisode(steps, rest, shard, index)

    def files(self) -> list[Path]:
        return [self.root / INFO_FILE, self.root / FEATURES_FILE, *self.shards]

    def _shard(self, number: int, total: int) -> Path:
        path = self.root / f"{self.name}-{self.split}.tfrecord-{number:05d}-of-{total:05d}"
        if not path.is_file():
            raise DataError(
                f"{path} is missing; expected {total} shards of split {self.split!r}; copy the dataset again"
            )
        return path


def find_version(root: Path) -> Path:
    """``root`` itself, or the newest version folder (1.0.0, ...) below it that holds a TFDS dataset."""
    versions = [p for p in root.glob("*") if _VERSION.fullmatch(p.name) and is_tfds(p)]
    if is_tfds(root) or not versions:
        return root
    return max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))


def _leaves(feature: dict[str, Any], prefix: str) -> list[tuple[str, Leaf]]:
    """Names and shapes of everything below a feature that holds values."""
    if "featuresDict" in feature:
        below = feature["featuresDict"]["features"]
        return [leaf for name in sorted(below) for leaf in _leaves(below[name], f"{prefix}/{name}".lstrip("/"))]
    if "sequence" in feature:
        return _leaves(feature["sequence"]["feature"], prefix)
    if "image" in feature:
        return [(prefix, Leaf("image"))]
    if "tensor" in feature:
        sizes = feature["tensor"].get("shape", {}).get("dimensions", ())
        kind = "text" if feature["tensor"].get("dtype") == "string" else "tensor"
        return [(prefix, Leaf(kind, tuple(int(size) for size in sizes)))]
    return [(prefix, Leaf("text"))] if "text" in feature else []


def _cut(value: Value, leaf: Leaf, source: str) -> Value:
    """A list of all steps' numbers -> (T, *shape)."""
    if isinstance(value, list) or not leaf.shape:
        return value
    per_step = int(np.prod(leaf.shape))
    if per_step <= 0 or value.size % per_step:
        raise DataError(
            f"{source}: found {value.size} numbers, expected a multiple of {leaf.shape}; the schema is another's"
        )
    return value.reshape(-1, *leaf.shape)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}; expected the TFDS file of that name; copy the dataset again") from error
