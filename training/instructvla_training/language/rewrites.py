"""CR: the same task in other words — another template, or another description of the objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .annotated import Annotated, instruct
from .patterns import Expanded, expand_all, pick, sentence_case
from .references import Reference, is_unambiguous, name_reference, noun_references, static_references
from .scene_view import FAMILIES, SceneView, TaskView, preposition
from .spatial import ViewConvention, spatial_references
from .templates.families import FAMILY_TEMPLATES
from .templates.wrappers import WRAPPERS

_SPATIAL_SHARE = 0.3
_NOUN_SHARE = 0.25
_TRIES = 8
_NOUN_TRIES = 2
WRAP_SHARE = 0.5


@dataclass(frozen=True)
class _Bank:
    """Expanded templates of one family and split."""

    cores: tuple[Expanded, ...]
    sentences: tuple[Expanded, ...]

    def draw(self, rng: np.random.Generator) -> tuple[Expanded, bool]:
        """A template, and whether it may be wrapped."""
        index = int(rng.random() * (len(self.cores) + len(self.sentences)))
        if index < len(self.cores):
            return self.cores[index], True
        return self.sentences[index - len(self.cores)], False


def _bank(family: str, word: str, split: str) -> _Bank:
    templates = FAMILY_TEMPLATES[family]
    extra = templates.container_cores if word == "in" else templates.surface_cores
    return _Bank(
        expand_all(templates.cores.of(split) + extra.of(split)), expand_all(templates.sentences.of(split))
    )


_BANKS: dict[tuple[str, str, str], _Bank] = {
    (family, word, split): _bank(family, word, split)
    for family in FAMILIES
    for word in ("on", "in")
    for split in ("train", "heldout")
}
_WRAPPERS = {split: expand_all(WRAPPERS.of(split)) for split in ("train", "heldout")}


def bank(task: TaskView, split: str) -> _Bank:
    """The templates that suit a task."""
    word = preposition(task.place) if task.family == "place" and task.place else "on"
    return _BANKS[task.family, word, split]


def describe(
    view: SceneView,
    name: str,
    rng: np.random.Generator,
    convention: ViewConvention,
    split: str,
    avoid: str | None = None,
    spatial: bool = True,
) -> Reference | None:
    """A description that only `name` fits in this scene, or None when none was found.

    Args:
        avoid: an object that the description must not mention, because the sentence names it elsewhere.
        spatial: whether descriptions by place may be used.
    """
    item = view.find(name)
    if item is None:
        return None
    if spatial and rng.random() < _SPATIAL_SHARE:
        found = spatial_references(view, convention, split).get(name, ())
        if found:
            chosen = pick(rng, found)
            if avoid is None or f"the {avoid}" not in chosen.text:
                return chosen
    options = static_references(name, item.colors, split)
    nouns = noun_references(name, item.colors) if split == "train" and rng.random() < _NOUN_SHARE else ()
    if not options:
        return None
    for attempt in range(_TRIES):
        chosen = pick(rng, nouns if nouns and attempt < _NOUN_TRIES else options)
        if is_unambiguous(chosen, name, view.visible):
            return chosen
    return None


def fill(template: str, task: TaskView, x: Reference, y: Reference | None) -> str | None:
    """A template with its references, or None when it needs a definite one and got "something ..."."""
    if "{X}" in template and not x.definite:
        return None
    if y is not None and "{Y}" in template and not y.definite:
        return None
    word = preposition(task.place) if task.place else "on"
    place_text = y.text if y is not None else ""
    return (
        template.replace("{x}", x.text)
        .replace("{X}", x.text)
        .replace("{y}", place_text)
        .replace("{Y}", place_text)
        .replace("{onto}", "into" if word == "in" else "onto")
        .replace("{on}", word)
    )


def compose(
    task: TaskView,
    x: Reference,
    y: Reference | None,
    rng: np.random.Generator,
    template_split: str,
    wrapper_split: str,
    wrap: bool | None = None,
) -> tuple[str, tuple[str, ...]]:
    """A sentence for a task with given references; returns it with the units it was built from.

    Args:
        wrap: True forces an imperative with a wrapper, None leaves it to chance.
    """
    templates = bank(task, template_split)
    while True:
        chosen, may_wrap = templates.draw(rng)
        if wrap and not may_wrap:
            continue
        text = fill(pick(rng, chosen.texts), task, x, y)
        if text is not None:
            break
    units: tuple[str, ...] = (chosen.unit,)
    if may_wrap and (wrap or (wrap is None and rng.random() < WRAP_SHARE)):
        wrapper = pick(rng, _WRAPPERS[wrapper_split])
        text = pick(rng, wrapper.texts).replace("{c}", text)
        units += (wrapper.unit,)
    return sentence_case(text), units


def paraphrase(view: SceneView, rng: np.random.Generator, split: str) -> Annotated:
    """The task with its objects named, in another sentence."""
    task = view.task
    x = name_reference(task.target)
    y = name_reference(task.place) if task.place else None
    if split == "train":
        text, units = compose(task, x, y, rng, "train", "train")
    elif rng.random() < 0.5:
        text, units = compose(task, x, y, rng, "heldout", "train")
    else:
        text, units = compose(task, x, y, rng, "train", "heldout", wrap=True)
    return instruct("CR", text, task, None, "paraphrase", units)


def attribute(
    view: SceneView, rng: np.random.Generator, convention: ViewConvention, split: str
) -> Annotated | None:
    """The task with at least one object described instead of named; None when no description is clear.

    In the held-out split at least one description is one that training never used.
    """
    task = view.task
    place_name = task.place
    describe_place = place_name is not None and rng.random() < 0.35
    describe_target = not describe_place or rng.random() < 0.5
    spatial = task.family != "near"
    x = y = None
    if describe_target:
        x = describe(view, task.target, rng, convention, split, avoid=place_name, spatial=spatial)
    if describe_place and place_name is not None:
        y = describe(view, place_name, rng, convention, split, avoid=task.target, spatial=spatial)
    if x is None and y is None:
        return None
    reasons = [item.reason for item in (x, y) if item is not None and item.reason]
    units = tuple(item.unit for item in (x, y) if item is not None and item.unit)
    if x is None:
        x = name_reference(task.target)
    if y is None and place_name is not None:
        y = name_reference(place_name)
    text, template_units = compose(task, x, y, rng, "train", "train")
    return instruct("CR", text, task, reasons[0] if reasons else None, "attribute", units + template_units)
