"""What is held out: every group of patterns with its two parts, and the texts that training contains.

The unit of the split is a template, an attribute phrase or a situation sentence, never a random draw: a
held-out unit appears in no training text. Three varieties of held-out instructions follow from it:
paraphrase (an unseen template or way of asking), attribute (an unseen description) and situated (an unseen
situation, place cue or thing compared with).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product

from .annotated import Annotated
from .atomic import ALL_TASKS, answer, atomic_instruction
from .knowledge import knowledge_groups
from .motion import all_phrases
from .patterns import Split, expand, in_heldout_fifth
from .prompts import PROMPTS, SYSTEM_PROMPT
from .references import static_references
from .scene_view import CUBE_COLORS, OBJECT_NAMES, is_cube
from .situations import NEED_GROUPS
from .spatial import spatial_units
from .templates import questions, requests
from .templates.families import FAMILY_TEMPLATES
from .templates.needs_things import COLOR_NEEDS, COLOR_PHRASES, COLOR_THINGS, STACK_NEEDS
from .templates.wrappers import WRAPPERS

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_SLOT = re.compile(r"\{[a-zA-Z]+\}")
_USUAL_COLORS = (
    "white",
    "brown",
    "pink",
    "turquoise",
    "violet",
    "orange",
    "purple",
    "gray",
    "black",
    *CUBE_COLORS,
)


def _merged(groups: Iterable[Split]) -> Split:
    groups = tuple(groups)
    return Split(
        tuple(text for group in groups for text in group.train),
        tuple(text for group in groups for text in group.heldout),
    )


@cache
def pattern_groups() -> dict[str, Split]:
    """Every group of patterns that is split, by name."""
    groups = {
        f"{family} templates": Split(templates.of("train"), templates.of("heldout"))
        for family, templates in FAMILY_TEMPLATES.items()
    }
    groups["ways of asking"] = WRAPPERS
    groups["situations"] = _merged(group.needs for group in NEED_GROUPS)
    groups["place cues"] = _merged(cue.sentences for cue in requests.PLACE_CUES)
    groups["color wishes"] = COLOR_NEEDS
    groups["tower wishes"] = STACK_NEEDS
    groups["things of a color"] = Split(
        tuple(thing for things in COLOR_THINGS for thing in things.train),
        tuple(thing for things in COLOR_THINGS for thing in things.heldout),
    )
    groups["attribute phrases"] = attribute_phrases()
    units = spatial_units()
    groups["spatial phrases"] = Split(
        tuple(unit for unit in units if not in_heldout_fifth(unit)),
        tuple(unit for unit in units if in_heldout_fifth(unit)),
    )
    return groups


def _usual_colors(name: str) -> frozenset[str]:
    return frozenset({name.split()[0]}) if is_cube(name) else frozenset(_USUAL_COLORS)


@cache
def attribute_phrases() -> Split:
    """All descriptions of all objects, in whatever colour a scene may give them."""
    found: dict[str, dict[str, None]] = {"train": {}, "heldout": {}}
    for name, split in product(OBJECT_NAMES, ("train", "heldout")):
        found[split].update((item.text, None) for item in static_references(name, _usual_colors(name), split))
    return Split(tuple(found["train"]), tuple(found["heldout"]))


def words(text: str) -> set[str]:
    """The distinct lower-case words of a text; slots do not count."""
    return set(_WORD.findall(_SLOT.sub(" ", text).lower()))


def _question_texts() -> Iterator[str]:
    for value in vars(questions).values():
        if isinstance(value, tuple):
            yield from (text for text in value if isinstance(text, str))
        elif isinstance(value, dict):
            yield from (text for texts in value.values() if isinstance(texts, tuple) for text in texts)


def training_texts() -> Iterator[str]:
    """Every sentence pattern that training draws from, choices expanded, slots left open."""
    for name, group in pattern_groups().items():
        for pattern in group.train:
            text = pattern.split(":", 1)[1].replace("|", " ") if name == "spatial phrases" else pattern
            yield from expand(text)
    for pattern in (
        *requests.PICK_REQUESTS,
        *requests.PLACE_REQUESTS,
        *requests.NEAR_REQUESTS,
        *requests.OPENINGS,
    ):
        yield from expand(pattern)
    yield from (*COLOR_PHRASES, *requests.NEEDED, *requests.NAMED_OPENINGS, SYSTEM_PROMPT, *PROMPTS)
    yield from ("on", "in", "onto", "into")
    for task in ALL_TASKS:
        yield atomic_instruction(task)
        yield answer(task)
    yield from (group.reason for group in NEED_GROUPS)
    yield from (cue.reason for cue in requests.PLACE_CUES)
    yield from _question_texts()
    yield from all_phrases()
    for item in all_knowledge():
        yield item.question
        yield item.answer


def all_knowledge() -> Iterator[Annotated]:
    """Every text-only question."""
    for group in knowledge_groups():
        yield from group


@cache
def training_words() -> frozenset[str]:
    """The distinct words of all training language."""
    found: set[str] = set()
    for text in training_texts():
        found |= words(text)
    return frozenset(found)


def _expanded(patterns: Iterable[str]) -> list[str]:
    return [text for pattern in patterns for text in expand(pattern)]


def open_forms(family: str, split: str) -> Iterator[str]:
    """All sentences of a family with their slots left open, wrapped in every way of asking.

    For "heldout" these are the forms in which the template or the way of asking is held out.
    """
    templates = FAMILY_TEMPLATES[family]
    yield from _expanded(templates.of(split))
    combinations = [(split, "train")] if split == "train" else [("heldout", "train"), ("train", "heldout")]
    for core_split, ask_split in combinations:
        for ask, core in product(
            _expanded(WRAPPERS.of(ask_split)), _expanded(templates.imperatives(core_split))
        ):
            yield ask.replace("{c}", core)
