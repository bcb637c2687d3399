"""Between a task and its plain instruction: the one place that words tasks, for the live verdict and for training.

What is worded otherwise cannot be judged from its words.
"""

from __future__ import annotations

import re
from typing import Protocol

from instructvla_sim.catalog import CUBES, GRASPABLE, NAMES, RECEPTACLES, spec_of
from instructvla_sim.types import Task

_NAME = re.compile(r"\b(" + "|".join(sorted(NAMES, key=len, reverse=True)) + r")\b")
_NEAR = re.compile(r"\b(next to|near|beside|close to|alongside)\b")
_PICK = re.compile(r"\b(pick|lift|grab|grasp|take|raise)\b")
_BRING = re.compile(r"\b(put|place|move|set|drop|lay|stack|bring|carry|into|onto|(?<!next )(?<!close )to the)\b")
"""Words that say where a thing should go, where a place alone might say where it stands."""
_NOT = re.compile(r"\b(not|without|except|never|don't|dont|can't|cannot|instead)\b")
_AWAY = re.compile(r"\b(off|from|out of|away)\b")
_ELSEWHERE = re.compile(
    r"\b((?:left|right|front|back|side)(?:[ -]hand)?(?: side)? of|behind|under|underneath|below|beneath|above|over"
    r"|around|past|beyond|towards?|between)"
    r"(?: (?!(?:to|in|into|inside|on|onto|atop|next|near|beside|alongside)\b)[\w-]+)* ?$"
)
"""Another place than in, on or next to what is named after it; "the carrot on the left" and "over to" say none."""
_OWN_SIDE = re.compile(r"'s? (?:[\w-]+ )*?(left|right|front|back|rear|sides?|edge)\b")
"""Another place, told after the name: "to the bowl's left", "at the plate's far side"."""
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u00b4`", "'"))
_ASKED = re.compile(r"(?<!\bthe )\b(can|could|would|will) you\b|\byou can\b")
"""The word can, where no can is meant."""
_FROM_TABLE = re.compile(r"\b(off|from) (the |my )?(table|bench)\b")
"""Where all things are; says nothing about another place."""


class Wanted(Protocol):
    """What is to be done: Task, and whatever else has its fields."""

    @property
    def family(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def place(self) -> str | None: ...


class TaskTextError(ValueError):
    """The text does not tell which task is meant; the message says what was expected."""


def text_of(task: Wanted) -> str:
    """The plain instruction, lower case, without a full stop."""
    if task.family == "pick":
        return f"pick up the {task.target}"
    if task.family == "place":
        return f"put the {task.target} {spec_of(str(task.place)).support} the {task.place}"
    if task.family == "near":
        return f"move the {task.target} next to the {task.place}"
    return f"stack the {task.target} on the {task.place}"


def task_of(text: str) -> Task:
    """The task that a plainly worded instruction asks for. Raises TaskTextError when the words leave it open.

    The things must be called by their names, the one to move first: "put the carrot on the plate".
    """
    plain = " ".join(text.lower().translate(_APOSTROPHES).replace("block", "cube").split())
    plain = _FROM_TABLE.sub("", _ASKED.sub("", plain))
    named = _NAME.findall(plain)
    if _NOT.search(plain) or not 1 <= len(named) <= 2 or named[0] not in GRASPABLE or len(set(named)) < len(named):
        raise TaskTextError(
            f"cannot tell from {text[:80]!r} what to check; expected the thing to move and at most one place, by name: "
            f"{', '.join(GRASPABLE)}; {', '.join(RECEPTACLES)}"
        )
    away = _AWAY.search(plain)
    if away:
        raise TaskTextError(
            f"cannot tell from {text[:80]!r} what to check: {away[0]!r} says where the {named[0]} should not be; "
            "say where it should go, or only pick up"
        )
    target = named[0]
    if len(named) == 1:
        if _PICK.search(plain):
            return Task("pick", target)
        raise TaskTextError(
            f"cannot tell from {text[:80]!r} where the {target} should go; name a place, or say pick up"
        )
    return _with_place(text, plain, target, named[1])


def _with_place(text: str, plain: str, target: str, place: str) -> Task:
    """The task of a text that names two things; `text` is as it was given."""
    if _PICK.search(plain) and not _BRING.search(plain[: plain.rindex(place)]):
        raise TaskTextError(
            f"cannot tell from {text[:80]!r} whether the {target} stands at the {place} or should go there; "
            f"say: pick up the {target}, or: put the {target} and where"
        )
    at = plain.rindex(place)
    elsewhere = _ELSEWHERE.search(plain[:at]) or _OWN_SIDE.match(plain[at + len(place) :])
    if elsewhere:
        raise TaskTextError(
            f"cannot tell from {text[:80]!r} what to check: {elsewhere[1]!r} is no place that can be judged; "
            f"say next to the {place}, or in or on it"
        )
    if _NEAR.search(plain):
        return Task("near", target, place)
    if place in RECEPTACLES:
        return Task("place", target, place)
    if target in CUBES and place in CUBES and re.search(r"\b(stack|on|onto|atop)\b", plain):
        return Task("stack", target, place)
    raise TaskTextError(
        f"cannot tell from {text[:80]!r} how the {target} should go to the {place}; "
        "expected next to, or on another cube"
    )
