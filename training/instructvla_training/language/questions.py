"""Captions, questions and pointing prompts about one scene, answered from the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .annotated import Annotated
from .knowledge import capitalised, name_list
from .patterns import pick
from .references import article, name_reference
from .rewrites import describe
from .scene_view import OBJECT_NAMES, SceneView, is_cube, preposition
from .situations import NEED_GROUPS
from .spatial import ViewConvention, extreme, inside, neighbour
from .templates import questions as wording

_COUNTED: tuple[tuple[str, str, frozenset[str] | None], ...] = (
    ("cube", "cubes", frozenset(name for name in OBJECT_NAMES if is_cube(name))),
    ("fruit", "fruits", frozenset({"apple", "lemon"})),
    ("vegetable", "vegetables", frozenset({"carrot", "eggplant"})),
    ("object", "objects", None),
)
_Maker = Callable[[SceneView, np.random.Generator, ViewConvention], "Annotated | None"]


def caption(view: SceneView, rng: np.random.Generator) -> Annotated:
    """The visible objects in a fixed order, then what the robot holds."""
    names = [article(item.name) for item in view.on_table]
    if not names:
        text = "The table is empty."
    elif len(names) == 1:
        text = f"There is {names[0]} on the table."
    else:
        text = f"There is {', '.join(names[:-1])} and {names[-1]} on the table."
    if view.held is not None:
        text += f" The robot is holding the {view.held}."
    return Annotated("Caption", pick(rng, wording.CAPTION_PROMPTS), text)


def _qa(question: str, reply: str) -> Annotated:
    return Annotated("QA", question, reply)


def _color(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    items = [item for item in view.visible if item.colors and not is_cube(item.name)]
    if not items:
        return None
    item = pick(rng, items)
    question = pick(rng, wording.COLOR).format(x=f"the {item.name}")
    return _qa(question, f"The {item.name} is {' and '.join(sorted(item.colors))}.")


def _exists(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    absent = [name for name in OBJECT_NAMES if name not in view.names]
    there = bool(view.visible) and (not absent or rng.random() < 0.5)
    name = pick(rng, view.visible).name if there else pick(rng, absent)
    return _qa(pick(rng, wording.EXISTS).format(a=article(name)), "Yes." if there else "No.")


def _count(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    one, many, members = pick(rng, _COUNTED)
    number = sum(members is None or item.name in members for item in view.visible)
    if number >= len(wording.NUMBERS):
        return None
    question = pick(rng, wording.COUNT).format(nouns=many)
    verb, noun = ("is", one) if number == 1 else ("are", many)
    return _qa(question, f"There {verb} {wording.NUMBERS[number]} {noun}.")


def _which_class(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    many, members = pick(rng, _COUNTED[:3])[1:]
    names = [item.name for item in view.visible if members is not None and item.name in members]
    question = pick(rng, wording.WHICH_CLASS).format(nouns=many)
    return _qa(question, capitalised(name_list(names)) if names else f"There are no {many}.")


def _holding(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    if rng.random() < 0.5:
        reply = f"The robot is holding the {view.held}." if view.held else "Nothing."
        return _qa(pick(rng, wording.HOLDING), reply)
    graspable = [item.name for item in view.visible if not item.is_receptacle]
    if not graspable:
        return None
    name = view.held if view.held is not None and rng.random() < 0.5 else pick(rng, graspable)
    question = pick(rng, wording.IS_HOLDING).format(x=f"the {name}")
    return _qa(question, "Yes." if name == view.held else "No.")


def _content(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    holders = [item.name for item in view.on_table if item.is_receptacle]
    if not holders:
        return None
    name = pick(rng, holders)
    names = [item.name for item in inside(view, name, convention)]
    question = pick(rng, wording.CONTENT).format(on=preposition(name), y=f"the {name}")
    return _qa(question, capitalised(name_list(names)) if names else "Nothing.")


def _side(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    side = pick(rng, tuple(wording.SIDE))
    item = extreme(list(view.on_table), side, convention)
    return _qa(pick(rng, wording.SIDE[side]), f"The {item.name}.") if item else None


def _beside(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    if not view.on_table:
        return None
    anchor = pick(rng, view.on_table)
    item = neighbour(view, anchor, convention)
    if item is None:
        return None
    return _qa(pick(rng, wording.BESIDE).format(y=f"the {anchor.name}"), f"The {item.name}.")


def _left_or_right(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    if len(view.on_table) < 2:
        return None
    first, second = pick(rng, view.on_table), pick(rng, view.on_table)
    lead = convention.leftness_m(first) - convention.leftness_m(second)
    if abs(lead) < convention.margin_m:
        return None
    asks_left = rng.random() < 0.5
    template = pick(rng, wording.LEFT_OF if asks_left else wording.RIGHT_OF)
    question = template.format(x=f"the {first.name}", y=f"the {second.name}")
    return _qa(question, "Yes." if (lead > 0) == asks_left else "No.")


def _where(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    if not view.on_table:
        return None
    item = pick(rng, view.on_table)
    offset = convention.leftness_m(item) - convention.left_y_sign * convention.middle_y_m
    if abs(offset) < convention.margin_m:
        return None
    question = pick(rng, wording.WHERE).format(x=f"the {item.name}")
    return _qa(question, f"The {item.name} is on the {'left' if offset > 0 else 'right'}.")


def _attribute(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    if not view.visible:
        return None
    name = pick(rng, view.visible).name
    reference = describe(view, name, rng, convention, "train", spatial=True)
    if reference is None:
        return None
    templates = wording.WHICH if reference.definite else wording.WHICH_ANY
    return _qa(pick(rng, templates).format(x=reference.text), f"The {name}.")


def _goes_with(view: SceneView, rng: np.random.Generator, _: ViewConvention) -> Annotated | None:
    clear = []
    for group in NEED_GROUPS:
        names = [name for name in (*group.true_of, *group.maybe) if name in view.names]
        if len(names) == 1 and names[0] in group.true_of:
            clear.append((names[0], group))
    if not clear:
        return None
    name, group = pick(rng, clear)
    return _qa(pick(rng, wording.GOES_WITH).format(k=pick(rng, group.keywords)), f"The {name}.")


_MAKERS: tuple[_Maker, ...] = (
    _color,
    _exists,
    _exists,
    _count,
    _which_class,
    _holding,
    _content,
    _side,
    _beside,
    _left_or_right,
    _where,
    _attribute,
    _attribute,
    _goes_with,
    _goes_with,
)
_TRIES = 8


def question(view: SceneView, rng: np.random.Generator, convention: ViewConvention) -> Annotated | None:
    """One question about the scene; None when the scene permits none of those that were drawn."""
    for _ in range(_TRIES):
        item = pick(rng, _MAKERS)(view, rng, convention)
        if item is not None:
            return item
    return None


def pointing(
    view: SceneView, rng: np.random.Generator, convention: ViewConvention, names: Sequence[str] | None = None
) -> Annotated | None:
    """A request to point at one object, named or described; `target` says which.

    Args:
        names: the objects to choose from; all visible ones by default.
    """
    options = [name for name in (names or sorted(view.names)) if name in view.names]
    if not options:
        return None
    name = pick(rng, options)
    reference = None
    if rng.random() < 0.5:
        reference = describe(view, name, rng, convention, "train", spatial=True)
    reference = reference or name_reference(name)
    text = pick(rng, wording.POINT).format(x=reference.text)
    return Annotated("pointing", text, f"The {name}.", target=name)
