"""Text-only world knowledge: what goes with what. It links every word of the situations to objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from .annotated import Annotated
from .patterns import pick
from .references import article
from .scene_view import CUBES, GRASPABLE, OBJECT_NAMES, is_cube
from .situations import NEED_GROUPS, color_sentence
from .templates import questions as wording
from .templates.needs_things import COLOR_THINGS
from .templates.requests import PLACE_CUES
from .templates.traits import ADJECTIVES, CLAUSES, KNOWN_COLORS, NOUNS, SYNONYMS, Trait

_SINGLE_NOUNS = tuple(noun for noun in NOUNS if noun.everywhere)


def name_list(names: Sequence[str], joint: str = "and") -> str:
    """ "the can, the plate and the bowl" in the fixed order of object names."""
    ordered = [f"the {name}" for name in OBJECT_NAMES if name in names]
    if len(ordered) == 1:
        return ordered[0]
    return f"{', '.join(ordered[:-1])} {joint} {ordered[-1]}"


def capitalised(text: str) -> str:
    """The text as a sentence that ends with a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _objects(names: Sequence[str]) -> str:
    """The answer that names objects; all four cubes together are "a cube"."""
    if set(names) == set(CUBES):
        return "A cube."
    return capitalised(name_list(names, "or"))


def _know(question: str, text: str) -> Annotated:
    return Annotated("knowledge", question, text)


def _need_facts() -> list[Annotated]:
    found = []
    linked = [(group.true_of, group.keywords) for group in NEED_GROUPS]
    linked += [(cue.true_of, cue.keywords) for cue in PLACE_CUES]
    for true_of, keywords in linked:
        reply = _objects(true_of)
        found += [
            _know(template.format(k=keyword), reply)
            for keyword in keywords
            for template in wording.KNOW_GOES_WITH
        ]
    for group in NEED_GROUPS:
        reply = _objects(group.true_of)
        found += [_know(question, reply) for question in group.facts for _ in range(2)]
    return found


def _color_facts() -> list[Annotated]:
    found = []
    for things in COLOR_THINGS:
        for thing in (*things.train, *things.heldout):
            found += [
                _know(template.format(t=thing), color_sentence(thing, things.color))
                for template in wording.KNOW_THING_COLOR
            ]
            found += [
                _know(template.format(t=thing), f"The {things.color} cube.")
                for template in wording.KNOW_THING_CUBE
            ]
    for name, color in KNOWN_COLORS.items():
        found.append(
            _know(f"What color is {article(name)}?", f"{capitalised(f'{article(name)} is {color}')}")
        )
    return found


def _trait_facts() -> list[Annotated]:
    found = []
    for traits, templates, slot in (
        (ADJECTIVES, wording.KNOW_ADJECTIVE, "j"),
        (CLAUSES, wording.KNOW_TRAIT, "c"),
        (NOUNS, wording.KNOW_MEMBERS, "noun"),
        (SYNONYMS, wording.KNOW_MEMBERS, "noun"),
    ):
        for trait in traits:
            for template in templates:
                question = (
                    template.format(**{slot: trait.text}).replace(" a a", " an a").replace(" a e", " an e")
                )
                found.append(_know(question, _objects(trait.true_of)))
    return found


def _class_facts() -> list[Annotated]:
    found = []
    for name in OBJECT_NAMES:
        mine = [noun for noun in _SINGLE_NOUNS if name in noun.true_of]
        for noun in _SINGLE_NOUNS:
            if name in noun.maybe:
                continue
            yes = noun in mine
            reply = "Yes." if yes else _correction(name, mine)
            for template in wording.KNOW_CLASS:
                found.append(_know(template.format(a=article(name), noun=noun.text), reply))
    return found


def _correction(name: str, mine: Sequence[Trait]) -> str:
    return f"No, {article(name)} is {article(mine[0].text)}." if mine and not is_cube(name) else "No."


def _description_facts() -> list[Annotated]:
    """ "What is a carrot?" with several true answers: one fact each, spread over the wordings."""
    found = []
    for name in GRASPABLE:
        says = [
            trait.says for trait in (*NOUNS, *ADJECTIVES, *CLAUSES) if name in trait.true_of and trait.says
        ]
        if is_cube(name):
            says = ["is a toy"]
        for index, text in enumerate(dict.fromkeys(says)):
            template = wording.KNOW_WHAT[index % len(wording.KNOW_WHAT)]
            found.append(_know(template.format(a=article(name)), capitalised(f"{article(name)} {text}")))
    return found


@cache
def knowledge_groups() -> tuple[tuple[Annotated, ...], ...]:
    """All knowledge questions, in groups that are drawn equally often."""
    return (
        tuple(_need_facts()),
        tuple(_color_facts()),
        tuple(_trait_facts()),
        tuple(_class_facts()),
        tuple(_description_facts()),
    )


_WEIGHTS = (0.45, 0.25, 0.2, 0.06, 0.04)


def knowledge(rng: np.random.Generator) -> Annotated:
    """One text-only question with its answer."""
    draw = float(rng.random())
    for weight, group in zip(_WEIGHTS, knowledge_groups(), strict=True):
        if draw < weight:
            return pick(rng, group)
        draw -= weight
    return pick(rng, knowledge_groups()[0])
