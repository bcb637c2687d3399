"""The canonical instruction of a task, the answer the model must give, and the parser of that answer.

An answer is an optional short reason followed by the canonical instruction as a sentence, for example
`The lemon is sour. Put the lemon on the plate.` The last sentence alone decides what was meant, so the
evaluation can compare it exactly with the ground truth.
"""

from __future__ import annotations

import re

from instructvla_sim.task_text import text_of

from .scene_view import GRASPABLE, OBJECT_NAMES, RECEPTACLES, TaskView, is_cube

_SPECIAL_TOKEN = re.compile(r"<[^<>\s]*>")


def atomic_instruction(task: TaskView) -> str:
    """The canonical lower-case instruction, without a full stop."""
    return text_of(task)


def answer(task: TaskView, reason: str | None = None) -> str:
    """The reasoning text for a task: `reason` (a sentence with its full stop, or None), then the command."""
    command = atomic_instruction(task)
    sentence = f"{command[0].upper()}{command[1:]}."
    return f"{reason} {sentence}" if reason else sentence


def _all_tasks() -> list[TaskView]:
    tasks = [TaskView("pick", target) for target in GRASPABLE]
    for target in GRASPABLE:
        tasks += [TaskView("place", target, place) for place in RECEPTACLES]
        tasks += [TaskView("near", target, place) for place in OBJECT_NAMES if place != target]
        if is_cube(target):
            tasks += [
                TaskView("stack", target, place) for place in GRASPABLE if is_cube(place) and place != target
            ]
    return tasks


ALL_TASKS: tuple[TaskView, ...] = tuple(_all_tasks())
_TASK_OF_COMMAND = {atomic_instruction(task): task for task in ALL_TASKS}


def parse_answer(text: str) -> TaskView | None:
    """Reads the last sentence of an answer as a task.

    Special tokens such as `<|im_end|>`, case and repeated blanks do not matter; every word does. Returns
    None when the last sentence is not exactly one of the canonical instructions.
    """
    plain = " ".join(_SPECIAL_TOKEN.sub(" ", text).lower().split())
    sentences = [part.strip() for part in plain.split(".") if part.strip()]
    return _TASK_OF_COMMAND.get(sentences[-1]) if sentences else None
