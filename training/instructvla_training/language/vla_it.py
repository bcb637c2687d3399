"""The VLA-IT annotation file: move primitives and captions, questions and instructions of each episode.

    {"<file_path>": {"<episode_id>": {
        "features": {"move_primitive": ["stop", ...]},
        "alt_instruction": {"Caption": "...", "CR": [{"question", "answer"}], "CC": [...], "QA": [...]}}}}

`alt_instruction` may be missing; every list in it may be empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .annotated import Annotated
from .generator import LanguageGenerator
from .scene_view import SceneView

_LISTS = ("CR", "CC", "QA")
_TRIES_PER_ITEM = 4


class VlaItError(ValueError):
    """An annotation file does not have the expected form; the message names the place in it."""


@dataclass(frozen=True)
class QuestionAnswer:
    """A question or instruction and the text to answer it with."""

    question: str
    answer: str


@dataclass(frozen=True)
class EpisodeAnnotation:
    """The annotations of one episode; `move_primitive` has one phrase per frame."""

    file_path: str
    episode_id: str
    move_primitive: tuple[str, ...]
    caption: str | None = None
    cr: tuple[QuestionAnswer, ...] = ()
    cc: tuple[QuestionAnswer, ...] = ()
    qa: tuple[QuestionAnswer, ...] = ()

    @property
    def has_instructions(self) -> bool:
        """Whether there is anything beside the move primitives."""
        return self.caption is not None or bool(self.cr or self.cc or self.qa)


@dataclass(frozen=True)
class AnnotationCounts:
    """How many different items of each kind to make for an episode."""

    cr: int = 4
    cc: int = 4
    qa: int = 6


def frame_key(file_path: str, episode_id: str, frame: int) -> str:
    """The key under which a frame's annotations are looked up."""
    return f"{file_path}_{episode_id}_{frame}"


def annotate_episode(
    file_path: str,
    episode_id: str,
    move_primitive: Sequence[str],
    view: SceneView,
    generator: LanguageGenerator,
    rng: np.random.Generator,
    counts: AnnotationCounts | None = None,
) -> EpisodeAnnotation:
    """Generates the annotations of an episode from the ground truth of its first frame."""
    wanted = counts or AnnotationCounts()

    def draw(kind: str, count: int) -> tuple[QuestionAnswer, ...]:
        found: dict[str, QuestionAnswer] = {}
        for _ in range(count * _TRIES_PER_ITEM):
            if len(found) == count:
                break
            item = _draw(generator, kind, view, rng)
            if item is not None:
                found[item.question] = QuestionAnswer(item.question, item.answer)
        return tuple(found.values())

    return EpisodeAnnotation(
        file_path,
        episode_id,
        tuple(move_primitive),
        generator.caption(view, rng).answer,
        draw("CR", wanted.cr),
        draw("CC", wanted.cc),
        draw("QA", wanted.qa),
    )


def _draw(
    generator: LanguageGenerator, kind: str, view: SceneView, rng: np.random.Generator
) -> Annotated | None:
    if kind == "CR":
        return generator.rewrite(view, rng)
    return generator.situated(view, rng) if kind == "CC" else generator.qa(view, rng)


def to_tree(annotations: Iterable[EpisodeAnnotation]) -> dict[str, dict[str, Any]]:
    """The annotations as the nested dictionaries of the file."""
    tree: dict[str, dict[str, Any]] = {}
    for item in annotations:
        episodes = tree.setdefault(item.file_path, {})
        if item.episode_id in episodes:
            raise VlaItError(
                f"episode {item.episode_id!r} of {item.file_path!r} comes twice: give each its own id"
            )
        entry: dict[str, Any] = {"features": {"move_primitive": list(item.move_primitive)}}
        if item.has_instructions:
            lists = {"CR": item.cr, "CC": item.cc, "QA": item.qa}
            entry["alt_instruction"] = {"Caption": item.caption or ""} | {
                key: [{"question": pair.question, "answer": pair.answer} for pair in pairs]
                for key, pairs in lists.items()
            }
        episodes[item.episode_id] = entry
    return tree


def from_tree(tree: object) -> list[EpisodeAnnotation]:
    """Checks nested dictionaries and returns the annotations in them.

    Raises:
        VlaItError: where the form is not the expected one.
    """
    found = []
    for file_path, episodes in _mapping(tree, "the file").items():
        for episode_id, entry in _mapping(episodes, f"{file_path!r}").items():
            where = f"{file_path!r}/{episode_id!r}"
            found.append(_episode(str(file_path), str(episode_id), _mapping(entry, where), where))
    return found


def write(path: Path, annotations: Iterable[EpisodeAnnotation]) -> None:
    """Writes an annotation file (UTF-8 JSON)."""
    path.write_text(json.dumps(to_tree(annotations), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> list[EpisodeAnnotation]:
    """Reads and checks an annotation file.

    Raises:
        VlaItError: when it is no JSON, or not of the expected form.
        FileNotFoundError: when it is missing.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VlaItError(f"{path} is not UTF-8 JSON ({error}): export the annotations again") from error
    try:
        return from_tree(tree)
    except VlaItError as error:
        raise VlaItError(f"{path}: {error}") from error


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise VlaItError(f"{where} is {_kind(value)}: expected an object with names and values")
    return value


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "missing"


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise VlaItError(f"{where} is {_kind(value)}: expected a list of texts")
    return tuple(value)


def _pairs(value: object, where: str) -> tuple[QuestionAnswer, ...]:
    if not isinstance(value, list):
        raise VlaItError(f"{where} is {_kind(value)}: expected a list")
    pairs = []
    for index, item in enumerate(value):
        entry = _mapping(item, f"{where}[{index}]")
        question, answer = entry.get("question"), entry.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or not question or not answer:
            raise VlaItError(
                f"{where}[{index}] has keys {sorted(entry)}: expected 'question' and 'answer', both text"
            )
        pairs.append(QuestionAnswer(question, answer))
    return tuple(pairs)


def _episode(file_path: str, episode_id: str, entry: Mapping[str, Any], where: str) -> EpisodeAnnotation:
    features = _mapping(entry.get("features"), f"{where}/features")
    primitives = _texts(features.get("move_primitive"), f"{where}/features/move_primitive")
    if entry.get("alt_instruction") is None:
        return EpisodeAnnotation(file_path, episode_id, primitives)
    where = f"{where}/alt_instruction"
    alternative = _mapping(entry["alt_instruction"], where)
    caption = alternative.get("Caption", "")
    if not isinstance(caption, str):
        raise VlaItError(f"{where}/Caption is {_kind(caption)}: expected text")
    cr, cc, qa = (_pairs(alternative.get(key, []), f"{where}/{key}") for key in _LISTS)
    return EpisodeAnnotation(file_path, episode_id, primitives, caption or None, cr, cc, qa)
