"""CC: situations from which the task is to be inferred ("I am thirsty." with one drink on the table)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .annotated import Annotated, instruct
from .patterns import Expanded, expand_all, pick, sentence_case
from .references import Reference, name_reference
from .rewrites import compose, describe
from .scene_view import SceneView, TaskView, is_cube, preposition
from .spatial import ViewConvention
from .templates.need_types import NeedGroup
from .templates.needs_food import FOOD_GROUPS
from .templates.needs_things import (
    COLOR_NEEDS,
    COLOR_PHRASES,
    COLOR_THINGS,
    STACK_NEEDS,
    THING_GROUPS,
    ColorThings,
)
from .templates.requests import (
    NAMED_OPENINGS,
    NEAR_REQUESTS,
    NEEDED,
    OPENINGS,
    PICK_REQUESTS,
    PLACE_CUES,
    PLACE_REQUESTS,
    PlaceCue,
)

NEED_GROUPS: tuple[NeedGroup, ...] = FOOD_GROUPS + THING_GROUPS
THINGS_OF_COLOR: dict[str, ColorThings] = {item.color: item for item in COLOR_THINGS}
_SPLITS = ("train", "heldout")
_REQUESTS = {
    "pick": expand_all(PICK_REQUESTS),
    "place": expand_all(PLACE_REQUESTS),
    "near": expand_all(NEAR_REQUESTS),
}
_OPENINGS = expand_all(OPENINGS)
_OPENING_SHARE = 0.12
_COLOR_SHARE = 0.75
_CUE_SHARE = 0.45
_NAMED_CUE_SHARE = 0.3


@dataclass(frozen=True)
class _Need:
    """A situation: its sentence, why its object answers it, and the unit that the split holds out."""

    text: str
    reason: str | None
    unit: str


@dataclass(frozen=True)
class _Sentences:
    """The expanded sentences of one group in each split."""

    group: NeedGroup | PlaceCue
    by_split: dict[str, tuple[Expanded, ...]]

    def is_clear(self, name: str, names: frozenset[str]) -> bool:
        """True when `name` is the only one among `names` that the group could call for."""
        group = self.group
        if name not in group.true_of:
            return False
        return sum(other in names for other in (*group.true_of, *group.maybe)) == 1


_NEEDS = tuple(
    _Sentences(group, {split: expand_all(group.needs.of(split)) for split in _SPLITS})
    for group in NEED_GROUPS
)
_CUES = tuple(
    _Sentences(cue, {split: expand_all(cue.sentences.of(split)) for split in _SPLITS}) for cue in PLACE_CUES
)
_COLOR_NEEDS = {split: expand_all(COLOR_NEEDS.of(split)) for split in _SPLITS}
_STACK_NEEDS = {split: expand_all(STACK_NEEDS.of(split)) for split in _SPLITS}


def color_sentence(thing: str, color: str) -> str:
    """ "A fire truck is red.": the piece of knowledge that links a thing to a cube."""
    return f"{thing[0].upper()}{thing[1:]} is {color}."


def join(*sentences: str) -> str:
    """Sentences as one text, each with a mark at its end."""
    closed = [part if part[-1] in ".?!" else f"{part}." for part in sentences if part]
    return sentence_case(" ".join(closed))


def _thing(name: str, rng: np.random.Generator, split: str) -> tuple[str, str]:
    """A thing with the colour of a cube; returns it with the reason."""
    color = name.split()[0]
    things = THINGS_OF_COLOR[color]
    chosen = pick(rng, things.heldout if split == "heldout" else things.train)
    return chosen, color_sentence(chosen, color)


def _color_need(name: str, rng: np.random.Generator, split: str) -> _Need:
    """A wish for the cube with the colour of a thing; held out by thing or by sentence."""
    by_thing = split == "heldout" and rng.random() < 0.5
    thing, reason = _thing(name, rng, "heldout" if by_thing else "train")
    chosen = pick(rng, _COLOR_NEEDS["train" if by_thing else split])
    text = pick(rng, chosen.texts).replace("{t}", thing)
    return _Need(text, reason, f"thing:{thing}" if by_thing else chosen.unit)


def need_for(view: SceneView, rng: np.random.Generator, split: str) -> _Need | None:
    """A situation that only the target of the view's task answers; None when the scene permits none."""
    name, names = view.task.target, view.names
    if is_cube(name) and rng.random() < _COLOR_SHARE:
        return _color_need(name, rng, split)
    clear = [item for item in _NEEDS if item.is_clear(name, names)]
    if not clear:
        return _color_need(name, rng, split) if is_cube(name) else None
    sentences = [(item.group.reason, chosen) for item in clear for chosen in item.by_split[split]]
    reason, chosen = pick(rng, sentences)
    return _Need(pick(rng, chosen.texts), reason.replace("{x}", name) or None, chosen.unit)


def cue_for(view: SceneView, rng: np.random.Generator, split: str) -> _Need | None:
    """A request with `{it}` that implies the place of the view's task; None when none is clear."""
    name = view.task.place
    receptacles = frozenset(item.name for item in view.visible if item.is_receptacle)
    clear = [item for item in _CUES if name and item.is_clear(name, receptacles)]
    if not clear or name is None:
        return None
    sentences = [(item.group.reason, chosen) for item in clear for chosen in item.by_split[split]]
    reason, chosen = pick(rng, sentences)
    return _Need(pick(rng, chosen.texts), reason.replace("{y}", name) or None, chosen.unit)


def _opening(rng: np.random.Generator) -> str:
    return pick(rng, pick(rng, _OPENINGS).texts) if rng.random() < _OPENING_SHARE else ""


def _request(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> str:
    """What to do with the object that the situation calls for, with the place named or described."""
    task = view.task
    text = pick(rng, pick(rng, _REQUESTS[task.family]).texts)
    if task.place is None:
        return text
    place = None
    if rng.random() < 0.25:
        place = describe(view, task.place, rng, convention, "train", avoid=task.target, spatial=False)
    place = place or name_reference(task.place)
    word = preposition(task.place)
    onto = "into" if word == "in" else "onto"
    return text.replace("{y}", place.text).replace("{onto}", onto).replace("{on}", word)


def _named_cue(view: SceneView, rng: np.random.Generator, split: str) -> Annotated | None:
    """The object is named and only the place is to be inferred."""
    cue = cue_for(view, rng, split)
    if cue is None:
        return None
    target = view.task.target
    opening = pick(rng, NAMED_OPENINGS).replace("{x}", target)
    text = join(opening, cue.text.replace("{it}", "it" if opening else f"the {target}"))
    return instruct("CC", text, view.task, cue.reason, "situated", (cue.unit,))


def _tower(view: SceneView, rng: np.random.Generator, split: str) -> Annotated:
    """Stacking with cubes described by things of their colour."""
    task = view.task
    by_sentence = split == "heldout" and rng.random() < 0.4
    thing_split = "heldout" if split == "heldout" and not by_sentence else "train"
    units: list[str] = []
    reasons: list[str] = []
    references = [name_reference(task.target), name_reference(str(task.place))]
    which = int(rng.random() * 3)  # the upper cube, the lower one or both
    for index, name in enumerate((task.target, str(task.place))):
        if which in (index, 2):
            thing, reason = _thing(name, rng, thing_split)
            references[index] = Reference(pick(rng, COLOR_PHRASES).replace("{t}", thing), frozenset({name}))
            units.append(f"thing:{thing}")
            reasons.append(reason)
    if by_sentence or rng.random() < 0.5:
        chosen = pick(rng, _STACK_NEEDS["heldout" if by_sentence else "train"])
        text = pick(rng, chosen.texts).replace("{x}", references[0].text).replace("{y}", references[1].text)
        units.append(chosen.unit)
    else:
        text, extra = compose(task, references[0], references[1], rng, "train", "train")
        units += extra
    return instruct("CC", sentence_case(text), task, reasons[0], "situated", tuple(units))


def _colored_command(view: SceneView, rng: np.random.Generator, split: str) -> Annotated:
    """A command about the cube that has the colour of a thing."""
    task = view.task
    thing, reason = _thing(task.target, rng, split)
    x = Reference(pick(rng, COLOR_PHRASES).replace("{t}", thing), frozenset({task.target}))
    y = name_reference(task.place) if task.place else None
    text, units = compose(task, x, y, rng, "train", "train")
    return instruct("CC", text, task, reason, "situated", (f"thing:{thing}", *units))


def situated(
    view: SceneView, rng: np.random.Generator, convention: ViewConvention, split: str
) -> Annotated | None:
    """A situated instruction for the view's task, or None when the scene leaves it unclear.

    In the held-out split the situation, or the cue of the place, or the thing compared with, is one that
    training never used; the sentences around it are known ones.
    """
    task: TaskView = view.task
    if task.target not in view.names or (task.place is not None and task.place not in view.names):
        return None
    if task.family == "stack":
        return _tower(view, rng, split)
    if task.family == "place" and rng.random() < _NAMED_CUE_SHARE:
        item = _named_cue(view, rng, split)
        if item is not None:
            return item
    if is_cube(task.target) and rng.random() < 0.3:
        return _colored_command(view, rng, split)
    cue_heldout = split == "heldout" and task.family == "place" and rng.random() < 0.3
    cue = None
    if task.family == "place" and (cue_heldout or rng.random() < _CUE_SHARE):
        cue = cue_for(view, rng, "heldout" if cue_heldout else "train")
    need = need_for(view, rng, "train" if cue is not None and cue_heldout else split)
    if need is None:
        return None
    request = cue.text.replace("{it}", pick(rng, NEEDED)) if cue else _request(view, rng, convention)
    text = join(_opening(rng), need.text, request)
    units = (need.unit, cue.unit) if cue else (need.unit,)
    return instruct("CC", text, task, need.reason, "situated", units)
