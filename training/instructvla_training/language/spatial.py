"""Where things are: left and right as the primary camera sees them, near and far as the robot sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import hypot

from .patterns import in_heldout_fifth
from .references import Reference
from .scene_view import ObjectView, SceneView, is_cube, preposition

_CLASSES: dict[str, frozenset[str] | None] = {
    "object": None,
    "thing": None,
    "item": None,
    "fruit": frozenset({"apple", "lemon"}),
    "vegetable": frozenset({"carrot", "eggplant"}),
}
_CUBE_HEADS = ("cube", "block")
_RELATION_HEADS = ("object", "thing", "item")

_SIDES: dict[str, tuple[str, ...]] = {
    "left": ("the leftmost {h}", "the {h} farthest to the left", "the {h} on the far left"),
    "right": ("the rightmost {h}", "the {h} farthest to the right", "the {h} on the far right"),
    "close": ("the {h} closest to the robot", "the {h} nearest to the robot", "the closest {h}"),
    "far": ("the {h} farthest from the robot", "the {h} farthest away", "the most distant {h}"),
}
_SIDE_REASONS = {
    "left": "The {x} is on the left.",
    "right": "The {x} is on the right.",
    "close": "The {x} is close.",
    "far": "The {x} is far away.",
}
_BESIDE = ("the {h} next to {r}", "the {h} beside {r}", "the {h} close to {r}", "the {h} that is near {r}")
_INSIDE = ("the {h} {on} {r}", "the {h} that is {on} {r}", "the {h} lying {on} {r}")
_BETWEEN = ("the {h} between {r} and {s}", "the {h} that is between {r} and {s}")


@dataclass(frozen=True)
class ViewConvention:
    """How base-frame positions map to words.

    Args:
        left_y_sign: -1 when larger base y is further right in the primary image (the camera faces the robot,
            as on the built-in bench), +1 when the camera looks away from it, as over its shoulder.
        margin_m: a word of place is used only when it holds by at least this distance.
        beside_m: largest distance between centres of two things that lie next to each other.
        inside_m: largest distance between centres when a thing lies on or in a receptacle.
        middle_y_m: base y of the middle of the workspace.
    """

    left_y_sign: int = -1
    margin_m: float = 0.04
    beside_m: float = 0.15
    inside_m: float = 0.06
    middle_y_m: float = 0.0

    def leftness_m(self, item: ObjectView) -> float:
        """How far to the left an object lies, metres."""
        return self.left_y_sign * item.position_m[1]


def distance_m(first: ObjectView, second: ObjectView) -> float:
    """Distance between two centres on the table, metres."""
    return hypot(
        first.position_m[0] - second.position_m[0],
        first.position_m[1] - second.position_m[1],
    )


def extreme(items: list[ObjectView], side: str, convention: ViewConvention) -> ObjectView | None:
    """The object that is furthest to a side by a clear margin; None when two compete or there is only one."""
    if len(items) < 2:
        return None
    if side in ("left", "right"):
        sign = 1.0 if side == "left" else -1.0
        ranked = sorted(
            ((sign * convention.leftness_m(item), item.name, item) for item in items), reverse=True
        )
    else:
        sign = 1.0 if side == "far" else -1.0
        ranked = sorted(((sign * hypot(*item.position_m), item.name, item) for item in items), reverse=True)
    return ranked[0][2] if ranked[0][0] - ranked[1][0] >= convention.margin_m else None


def inside(view: SceneView, receptacle: str, convention: ViewConvention) -> tuple[ObjectView, ...]:
    """The graspable objects that lie on or in a receptacle."""
    holder = view.find(receptacle)
    if holder is None:
        return ()
    return tuple(
        item
        for item in view.on_table
        if not item.is_receptacle and distance_m(item, holder) <= convention.inside_m
    )


def neighbour(view: SceneView, anchor: ObjectView, convention: ViewConvention) -> ObjectView | None:
    """The one object next to `anchor`: near it, and nearer than every other by the margin."""
    ranked = sorted(
        ((distance_m(item, anchor), item.name, item) for item in view.on_table if item is not anchor),
    )
    if not ranked or not convention.inside_m < ranked[0][0] <= convention.beside_m:
        return None
    if len(ranked) > 1 and ranked[1][0] - ranked[0][0] < convention.margin_m:
        return None
    return ranked[0][2]


def between(
    view: SceneView, first: ObjectView, second: ObjectView, convention: ViewConvention
) -> ObjectView | None:
    """The one object that lies between two others, near the line that joins them."""
    (ax, ay), (bx, by) = first.position_m, second.position_m
    length = hypot(bx - ax, by - ay)
    if length < 4 * convention.margin_m:
        return None
    ux, uy = (bx - ax) / length, (by - ay) / length
    found = []
    for item in view.on_table:
        if item is first or item is second:
            continue
        along = (item.position_m[0] - ax) * ux + (item.position_m[1] - ay) * uy
        across = abs((item.position_m[0] - ax) * uy - (item.position_m[1] - ay) * ux)
        if convention.margin_m < along < length - convention.margin_m and across < 2 * convention.margin_m:
            found.append((across, item))
    if len(found) != 1 or found[0][0] > convention.margin_m:
        return None
    return found[0][1]


def _members(view: SceneView, head: str) -> list[ObjectView]:
    if head in _CUBE_HEADS:
        return [item for item in view.on_table if is_cube(item.name)]
    allowed = _CLASSES[head]
    return [item for item in view.on_table if allowed is None or item.name in allowed]


def _one(name: str, pattern: str, head: str, reason: str | None, **anchors: str) -> Reference:
    text = pattern.format(h=head, **anchors)
    return Reference(text, frozenset({name}), "", reason, f"spatial:{pattern}|{head}")


def _references(view: SceneView, convention: ViewConvention) -> dict[str, list[Reference]]:
    found: dict[str, list[Reference]] = {item.name: [] for item in view.visible}
    for head in (*_CLASSES, *_CUBE_HEADS):
        members = _members(view, head)
        for side, patterns in _SIDES.items():
            item = extreme(members, side, convention)
            if item is not None:
                reason = _SIDE_REASONS[side].format(x=item.name)
                found[item.name] += [_one(item.name, pattern, head, reason) for pattern in patterns]
    for anchor in view.on_table:
        held_here = inside(view, anchor.name, convention) if anchor.is_receptacle else ()
        if len(held_here) == 1:
            name, word = held_here[0].name, preposition(anchor.name)
            reason = f"The {name} is {word} the {anchor.name}."
            for pattern, head in ((p, h) for p in _INSIDE for h in _RELATION_HEADS):
                found[name].append(_one(name, pattern, head, reason, on=word, r=f"the {anchor.name}"))
        item = neighbour(view, anchor, convention) if not held_here else None
        if item is not None and not item.is_receptacle:
            reason = f"The {item.name} is near the {anchor.name}."
            for pattern, head in ((p, h) for p in _BESIDE for h in _RELATION_HEADS):
                found[item.name].append(_one(item.name, pattern, head, reason, r=f"the {anchor.name}"))
    anchors = view.on_table
    for index, first in enumerate(anchors):
        for second in anchors[index + 1 :]:
            item = between(view, first, second, convention)
            if item is not None and not item.is_receptacle:
                for pattern, head in ((p, h) for p in _BETWEEN for h in _RELATION_HEADS):
                    names = {"r": f"the {first.name}", "s": f"the {second.name}"}
                    found[item.name].append(_one(item.name, pattern, head, None, **names))
    return found


def spatial_units() -> tuple[str, ...]:
    """All units that the split sees among descriptions by place."""
    heads = (*_CLASSES, *_CUBE_HEADS)
    sides = [
        f"spatial:{pattern}|{head}" for patterns in _SIDES.values() for pattern in patterns for head in heads
    ]
    relations = (*_INSIDE, *_BESIDE, *_BETWEEN)
    return tuple(sides + [f"spatial:{pattern}|{head}" for pattern in relations for head in _RELATION_HEADS])


@lru_cache(maxsize=256)
def spatial_references(
    view: SceneView, convention: ViewConvention, split: str
) -> dict[str, tuple[Reference, ...]]:
    """For each visible object, the descriptions by place that single it out in this scene."""
    wanted = split == "heldout"
    return {
        name: tuple(item for item in items if in_heldout_fifth(item.unit) == wanted)
        for name, items in _references(view, convention).items()
    }
