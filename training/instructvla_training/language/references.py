"""Descriptions of one object by what it is: noun, colour, shape, taste, use. Used only where unambiguous."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from .patterns import in_heldout_fifth
from .scene_view import ObjectView, is_cube
from .templates.traits import ADJECTIVES, CLAUSES, COLOR_MAYBE, GENERIC_HEADS, NOUNS, SYNONYMS, Trait


@dataclass(frozen=True)
class Reference:
    """A noun phrase for one object.

    Args:
        text: the phrase with its article, for example "the sour fruit".
        candidates: the objects that the phrase could mean, before colour is looked at.
        color: the colour word in the phrase, or "".
        reason: what makes the phrase fit, as a sentence, or None.
        unit: what the split holds out; "" for plain names, which belong to every split.
        definite: False for "something sour" or "a fruit".
    """

    text: str
    candidates: frozenset[str]
    color: str = ""
    reason: str | None = None
    unit: str = ""
    definite: bool = True


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def name_reference(name: str) -> Reference:
    """The plain name: "the lemon"."""
    return Reference(f"the {name}", frozenset({name}))


def could_be_colored(item: ObjectView, color: str) -> bool:
    """Whether an observer might call the object by that colour."""
    return color in item.colors or color in COLOR_MAYBE.get(item.name, ())


def _reason(name: str, trait: Trait) -> str | None:
    """A reason sentence; cubes get none, since their names say everything and answers stay short."""
    return f"The {name} {trait.says}." if trait.says and not is_cube(name) else None


def _spread(trait: Trait) -> frozenset[str]:
    return frozenset(trait.true_of) | frozenset(trait.maybe)


def _heads(name: str) -> list[tuple[str, frozenset[str] | None]]:
    """Head nouns for an object, each with the set it restricts to (None for no restriction)."""
    heads: list[tuple[str, frozenset[str] | None]] = [(head, None) for head in GENERIC_HEADS]
    heads += [(noun.text, _spread(noun)) for noun in NOUNS if name in noun.true_of and noun.everywhere]
    return heads


def _noun_references(name: str) -> list[Reference]:
    """ "the fruit", "a fruit", "the soda can": in training always."""
    found = []
    for noun in (*NOUNS, *SYNONYMS):
        if name in noun.true_of:
            for text, definite in ((f"the {noun.text}", True), (article(noun.text), False)):
                found.append(
                    Reference(text, _spread(noun), "", _reason(name, noun), f"noun:{text}", definite)
                )
    return found


def _adjective_references(name: str) -> list[Reference]:
    found = []
    for trait in (item for item in ADJECTIVES if name in item.true_of):
        reason, candidates = _reason(name, trait), _spread(trait)
        for head, restricted in _heads(name):
            within = candidates if restricted is None else candidates & restricted
            for text in (f"the {trait.text} {head}", f"the {head} that is {trait.text}"):
                found.append(Reference(text, within, "", reason, text))
        for text in (f"something {trait.text}", f"something that is {trait.text}"):
            found.append(Reference(text, candidates, "", reason, text, definite=False))
    return found


def _clause_references(name: str) -> list[Reference]:
    found = []
    for trait in (item for item in CLAUSES if name in item.true_of):
        reason, candidates = _reason(name, trait), _spread(trait)
        for head, restricted in _heads(name):
            within = candidates if restricted is None else candidates & restricted
            text = f"the {head} that {trait.text}"
            found.append(Reference(text, within, "", reason, text))
        text = f"something that {trait.text}"
        found.append(Reference(text, candidates, "", reason, text, definite=False))
    return found


def _color_references(name: str, color: str) -> list[Reference]:
    everything: frozenset[str] = frozenset()
    reason = None if is_cube(name) else f"The {name} is {color}."
    found = []
    for head, restricted in _heads(name):
        for text in (
            f"the {color} {head}",
            f"the {head} that is {color}",
            f"the {head} with the {color} color",
        ):
            found.append(Reference(text, restricted or everything, color, reason, text))
    for text in (f"something {color}", f"something with {article(color)} color"):
        found.append(Reference(text, everything, color, reason, text, definite=False))
    traits = [item for item in ADJECTIVES if name in item.true_of and item.text not in ("edible", "metal")]
    for trait, (head, restricted) in product(traits, _heads(name)):
        within = _spread(trait) if restricted is None else _spread(trait) & restricted
        text = f"the {trait.text} {color} {head}"
        found.append(Reference(text, within, color, reason, text))
    if not is_cube(name):
        text = f"the {color} {name}"
        found.append(Reference(text, frozenset({name}), "", reason, f"noun:{text}"))
    return found


def _is_heldout(reference: Reference) -> bool:
    return not reference.unit.startswith("noun:") and in_heldout_fifth(reference.unit)


@lru_cache(maxsize=4096)
def static_references(name: str, colors: frozenset[str], split: str) -> tuple[Reference, ...]:
    """All descriptions of an object in a split; whether one is unambiguous depends on the scene."""
    found = _noun_references(name) + _adjective_references(name) + _clause_references(name)
    for color in sorted(colors):
        found += _color_references(name, color)
    unique = {item.text: item for item in found if item.text != f"the {name}"}.values()
    return tuple(item for item in unique if _is_heldout(item) == (split == "heldout"))


@lru_cache(maxsize=1024)
def noun_references(name: str, colors: frozenset[str]) -> tuple[Reference, ...]:
    """The training descriptions that are a bare noun or another name: "the fruit", "the soda can"."""
    return tuple(item for item in static_references(name, colors, "train") if item.unit.startswith("noun:"))


def is_unambiguous(reference: Reference, name: str, pool: tuple[ObjectView, ...]) -> bool:
    """True when `name` is the only object of `pool` that the phrase could mean."""
    anything = not reference.candidates
    for item in pool:
        fits = anything or item.name in reference.candidates
        if fits and reference.color and not could_be_colored(item, reference.color):
            fits = False
        if fits != (item.name == name):
            return False
    return True
