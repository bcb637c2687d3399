"""LLaVA-format multimodal data: one JSON list (or JSON lines) of conversations, images in a folder beside it.

The list is scanned once and only the places of its entries are kept, so a file of gigabytes needs megabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .episode import DataError, decode_image, whole

IMAGE_MARK = "<image>"
_BLOCK, _LONGEST = 1 << 20, 1 << 26
_BETWEEN = re.compile(r"[ \t\r\n,\[\]\ufeff]*")  # with the mark that some editors put at a file's beginning


@dataclass(frozen=True)
class Conversation:
    """Questions with their answers about one image, or about none. ``source``: file and number of the entry."""

    turns: tuple[tuple[str, str], ...]
    image: Path | None
    source: str = "a conversation"

    def pixels(self) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB. Raises DataError where the file is missing or no image."""
        if self.image is None:
            return None
        try:
            return decode_image(self.image.read_bytes(), str(self.image))
        except OSError as error:
            raise DataError(f"{error}; expected the image of a conversation; copy the images again") from error


class LlavaDataset(Sequence[Conversation]):
    """Conversations by number, read from disk on access."""

    format = "llava"

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """``images``: where image paths start from; by default the folder ``images`` beside the file, else its own."""
        self.path = Path(path)
        beside = self.path.parent / "images"
        self.images = Path(images) if images is not None else beside if beside.is_dir() else self.path.parent
        self.name = self.path.stem
        self._places = _scan(self.path)
        if not len(self._places):
            raise DataError(f"{self.path}: found no entries, expected a list of conversations")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Conversation:  # type: ignore[override]
        start, stop = self._places[index]
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(stop - start)
        source = f"{self.path}, entry {index}"
        with whole(source, "a conversation: turns with from and value"):
            return _conversation(json.loads(text), self.images, source)

    def files(self) -> list[Path]:
        return [self.path]


def is_llava(path: Path) -> bool:
    """Whether a file begins like a list of conversations, or like one line of them."""
    if not path.is_file() or path.suffix not in (".json", ".jsonl"):
        return False
    with path.open("rb") as file:
        head = file.read(_BLOCK)
    return b'"conversations"' in head


def _scan(path: Path) -> np.ndarray:
    """(n, 2) byte offsets of the objects at the top of the file; raises DataError where it is no such file."""
    try:
        return _places(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}; expected UTF-8; save the file in that encoding") from error
    except OSError as error:
        raise DataError(f"{error}; expected a file of conversations; correct the path") from error


def _places(path: Path) -> np.ndarray:
    places: list[tuple[int, int]] = []
    decoder = json.JSONDecoder()
    text, at, offset, done = "", 0, 0, False  # ``offset``: bytes of the file before text[at]
    with path.open(encoding="utf-8", newline="") as file:  # ends of lines stay as they are: places are counted in bytes
        while True:
            skipped = _BETWEEN.match(text, at)
            assert skipped is not None
            offset += len(skipped.group().encode())
            at = skipped.end()
            try:
                end = decoder.raw_decode(text, at)[1] if at < len(text) else at
            except json.JSONDecodeError as error:
                if done or len(text) - at > _LONGEST:
                    raise DataError(
                        f"{path}: {error.msg} after {len(places)} entries; expected a JSON list or JSON lines"
                    ) from error
                end = at
            if end > at:
                size = len(text[at:end].encode())
                places.append((offset, offset + size))
                at, offset = end, offset + size
                continue
            if done:
                return np.array(places, dtype=np.int64).reshape(-1, 2)
            block = file.read(_BLOCK)
            done = not block
            text, at = text[at:] + block, 0


def _conversation(entry: Any, images: Path, source: str) -> Conversation:
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise DataError(f"{source}: found {str(turns)[:60]!r}, expected an even number of conversation turns")
    pairs = []
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        if (question.get("from"), answer.get("from")) != ("human", "gpt"):
            found = (question.get("from"), answer.get("from"))
            raise DataError(f"{source}: found turns of {found}, expected a human's and then a gpt's")
        pair = str(question["value"]).replace(IMAGE_MARK, "").strip(), str(answer["value"]).strip()
        if not all(pair):
            what = "a question" if not pair[0] else "an answer"
            raise DataError(f"{source}: found {what} without words, expected some; write one or drop the entry")
        pairs.append(pair)
    return Conversation(tuple(pairs), _image(entry, turns[::2], images, source), source)


def _image(entry: dict[str, Any], questions: list[dict[str, Any]], images: Path, source: str) -> Path | None:
    """Raises DataError where there is no image, or no single one, for questions about one."""
    named = entry.get("image")
    if isinstance(named, str) and named:
        return images / named
    if named or any(IMAGE_MARK in str(turn["value"]) for turn in questions):
        found = f"image {str(named)[:60]!r}" if named else f"{IMAGE_MARK} in a question and the keys {sorted(entry)}"
        raise DataError(f'{source}: found {found}, expected one path under the key "image"; name it or drop the entry')
    return None
