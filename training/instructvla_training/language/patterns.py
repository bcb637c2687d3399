"""Sentence patterns: text with `[first|second|]` choices and `{slot}` gaps, expanded once at import."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_BEFORE_PUNCTUATION = re.compile(r"\s+([,.?!])")
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """Patterns used in training, and patterns kept for evaluation only."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        """The patterns of `split` ("train" or "heldout")."""
        return self.heldout if split == "heldout" else self.train


def expand(pattern: str) -> tuple[str, ...]:
    """All texts of a pattern: each `[a|b|]` replaced by each of its choices (they do not nest)."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    texts = (" ".join("".join(combination).split()) for combination in product(*choices))
    return tuple(dict.fromkeys(_BEFORE_PUNCTUATION.sub(r"\1", text) for text in texts))


@dataclass(frozen=True)
class Expanded:
    """A pattern with its texts; the pattern itself is the unit that the split holds out."""

    unit: str
    texts: tuple[str, ...]


def expand_all(patterns: Iterable[str]) -> tuple[Expanded, ...]:
    """Expands each pattern of a group."""
    return tuple(Expanded(pattern, expand(pattern)) for pattern in patterns)


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One item, all equally likely."""
    return items[int(rng.random() * len(items))]


def sentence_case(text: str) -> str:
    """Upper-case sentence beginnings, and a full stop at the end where no mark stands."""
    if not text:
        return text
    if text[-1] not in ".?!":
        text += "."
    out = []
    start = True
    for char in text:
        out.append(char.upper() if start and char.isalpha() else char)
        if char.isalpha():
            start = False
        elif char in ".?!":
            start = True
    return "".join(out)


def in_heldout_fifth(unit: str) -> bool:
    """A fixed fifth of all units, by a checksum of their text: stable when other units are added."""
    return zlib.crc32(unit.encode("utf-8")) % 5 == 0
