"""What is held out stays out of training, and can still be understood from it."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, SceneView
from instructvla_training.language.corpus import iterate_corpus
from instructvla_training.language.patterns import expand
from instructvla_training.language.prompts import spoken
from instructvla_training.language.sample_scenes import random_scene
from instructvla_training.language.situations import NEED_GROUPS
from instructvla_training.language.splits import (
    open_forms,
    pattern_groups,
    training_texts,
    training_words,
    words,
)

GROUPS = sorted(pattern_groups())
WITHOUT_SLOTS = ("attribute phrases", "situations")


@pytest.fixture(scope="module")
def scenes() -> list[SceneView]:
    rng = np.random.default_rng(1)
    return [random_scene(rng) for _ in range(1500)]


@pytest.fixture(scope="module")
def training_language(scenes: list[SceneView]) -> str:
    """Everything that training draws: a long corpus, one text a line, in the spelling of the prompts."""
    lines = (spoken(line) for line in islice(iterate_corpus(np.random.default_rng(0)), 30_000))
    return "\n".join(lines) + "\n"


def _heldout_parts(group: str) -> list[str]:
    return [text for pattern in pattern_groups()[group].heldout for text in expand(pattern)]


@pytest.mark.parametrize("group", GROUPS)
def test_about_a_fifth_of_each_group_is_held_out(group: str) -> None:
    split = pattern_groups()[group]
    share = len(split.heldout) / (len(split.heldout) + len(split.train))
    assert 0.15 <= share <= 0.3


@pytest.mark.parametrize("group", GROUPS)
def test_no_held_out_text_is_a_training_text_of_any_group(group: str) -> None:
    train = {
        text for split in pattern_groups().values() for pattern in split.train for text in expand(pattern)
    }
    assert not train & set(_heldout_parts(group))


@pytest.mark.parametrize("group", WITHOUT_SLOTS)
def test_no_held_out_phrase_or_situation_occurs_in_the_training_language(
    group: str, training_language: str
) -> None:
    normal = re.sub(r"[,.?!:]", "", training_language).replace("\n", " \n ")
    found = [text for text in _heldout_parts(group) if re.sub(r"[,.?!:]", "", f" {spoken(text)} ") in normal]
    assert found == []


@pytest.mark.parametrize("family", ["pick", "place", "near", "stack"])
def test_no_held_out_way_of_saying_a_task_can_be_composed_in_training(family: str) -> None:
    train, heldout = set(open_forms(family, "train")), set(open_forms(family, "heldout"))
    assert len(heldout) > 500
    assert not train & heldout


@pytest.mark.parametrize("group", GROUPS)
def test_every_word_of_a_held_out_pattern_occurs_in_training(group: str) -> None:
    known = training_words()
    for pattern in pattern_groups()[group].heldout:
        text = pattern.removeprefix("spatial:")
        assert words(text) - known == set(), text


def test_every_word_of_a_held_out_instruction_occurs_in_the_training_language(
    scenes: list[SceneView], training_language: str
) -> None:
    known = set(re.findall(r"[a-z']+", training_language))
    generator, rng = LanguageGenerator("heldout"), np.random.default_rng(2)
    for view in scenes:
        for item in (generator.rewrite(view, rng), generator.situated(view, rng)):
            if item is not None:
                assert set(re.findall(r"[a-z']+", item.instruction)) <= known, item.instruction


def test_held_out_instructions_never_occur_among_training_instructions(scenes: list[SceneView]) -> None:
    train, heldout = LanguageGenerator("train"), LanguageGenerator("heldout")
    rng = np.random.default_rng(3)
    seen: set[str] = set()
    for view in scenes:
        for _ in range(4):
            seen.update(
                item.instruction for item in (train.rewrite(view, rng), train.situated(view, rng)) if item
            )
    for view in scenes:
        for item in (
            heldout.paraphrase(view, rng),
            heldout.attribute(view, rng),
            heldout.situated(view, rng),
        ):
            assert item is None or item.instruction not in seen


def test_each_held_out_instruction_contains_a_unit_that_training_never_uses(scenes: list[SceneView]) -> None:
    rng = np.random.default_rng(4)
    used: dict[str, set[str]] = {"train": set(), "heldout": set()}
    items = {"train": [], "heldout": []}
    for split in ("train", "heldout"):
        generator = LanguageGenerator(split)
        for view in scenes:
            for item in (
                generator.paraphrase(view, rng), generator.attribute(view, rng), generator.situated(view, rng)
            ):  # fmt: skip
                if item is not None:
                    used[split].update(item.units)
                    items[split].append(item)
    for item in items["heldout"]:
        assert set(item.units) - used["train"], item.question


def test_held_out_situations_can_be_told_from_words_that_training_links_to_objects() -> None:
    """A plain bag-of-words classifier, trained on training situations and knowledge, finds the objects."""
    documents: dict[tuple[str, ...], list[set[str]]] = {}
    for group in NEED_GROUPS:
        texts = (*group.needs.train, *group.keywords, *group.facts)
        documents.setdefault(group.true_of, []).extend(words(text) for text in texts)
    counts = {key: Counter(word for text in texts for word in text) for key, texts in documents.items()}

    def best(text: str) -> tuple[str, ...]:
        def score(key: tuple[str, ...]) -> float:
            total = len(documents[key])
            return sum(math.log((counts[key][word] + 0.1) / (total + 0.2)) for word in words(text))

        return max(counts, key=score)

    results = [best(text) == group.true_of for group in NEED_GROUPS for text in group.needs.heldout]
    assert sum(results) / len(results) >= 0.9


def test_the_vocabulary_is_small() -> None:
    assert 400 < len(training_words()) <= 1300


def test_training_texts_hold_no_held_out_thing_in_an_instruction_but_name_it_in_knowledge() -> None:
    things = pattern_groups()["things of a color"].heldout
    texts = list(training_texts())
    for thing in things:
        lines = [text for text in texts if f" {thing}" in text]
        assert lines
        assert all(line.endswith(("?", ".")) and line[0].isupper() for line in lines), lines
