"""The text that the tokenizer is trained on: every pattern once, then draws of everything, without end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .annotated import Annotated
from .generator import LanguageGenerator
from .motion import all_phrases
from .patterns import pick
from .prompts import SYSTEM_PROMPT, action_prompt, motion_prompt, think_prompt
from .sample_scenes import random_scene
from .scene_view import OBJECT_NAMES, SceneView
from .splits import training_texts, training_words

_SLOT = re.compile(r"\{[a-zA-Z]+\}")
_HEADERS = (f"system\n{SYSTEM_PROMPT}", "user\n", "assistant\n")
_DRAWS_PER_SCENE = 8


def iterate_corpus(rng: np.random.Generator) -> Iterator[str]:
    """Training texts of all kinds, endlessly; take as many as are wanted with `itertools.islice`.

    The first lines hold every training pattern, so that each word occurs however few lines are taken;
    held-out instructions never occur.
    """
    for text in training_texts():
        yield _SLOT.sub(lambda _: pick(rng, OBJECT_NAMES), text)
    yield from _HEADERS
    phrases = tuple(all_phrases())
    generator = LanguageGenerator("train")
    while True:
        view = random_scene(rng)
        for _ in range(_DRAWS_PER_SCENE):
            yield from _draw(generator, view, phrases, rng)


def _draw(
    generator: LanguageGenerator, view: SceneView, phrases: tuple[str, ...], rng: np.random.Generator
) -> Iterator[str]:
    """The user's and the assistant's text of one random prompt."""
    kind = rng.random()
    item: Annotated | None
    if kind < 0.25:
        item = generator.rewrite(view, rng)
    elif kind < 0.5:
        item = generator.situated(view, rng)
    elif kind < 0.65:
        item = generator.qa(view, rng)
    elif kind < 0.75:
        item = generator.pointing(view, rng)
    elif kind < 0.85:
        item = generator.knowledge(rng)
    elif kind < 0.9:
        item = generator.caption(view, rng)
    else:
        item = generator.atomic(view)
        yield action_prompt(item.question)
        yield motion_prompt(item.question)
        yield pick(rng, phrases)
        yield from _HEADERS
    if item is None:
        return
    yield think_prompt(item.question) if item.task is not None else item.question
    yield item.answer


def distinct_words() -> frozenset[str]:
    """The distinct lower-case words of all training language, a measure of its size."""
    return training_words()
