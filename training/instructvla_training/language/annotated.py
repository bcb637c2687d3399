"""The records that the language side hands to the trainer and to the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .atomic import answer as canonical_answer
from .prompts import spoken
from .scene_view import TaskView

MAX_ANSWER_WORDS = 16
"""Longest reasoning answer, counting words and full stops; a reason that would exceed it is left out."""


@dataclass(frozen=True)
class Annotated:
    """One question with its answer.

    Args:
        kind: "atomic", "CR" (rewritten command), "CC" (situated), "QA", "Caption", "knowledge" or "pointing".
        question: natural spelling; `instruction` is the form that enters a prompt.
        answer: the text the model is to generate.
        task: what the answer asks for, for instructions; None for the rest.
        target: the object a pointing question is about; None otherwise.
        variety: for instructions "paraphrase", "attribute" or "situated"; else "".
        units: the patterns and phrases it was built from, as the split counts them.
    """

    kind: str
    question: str
    answer: str
    task: TaskView | None = None
    target: str | None = None
    variety: str = ""
    units: tuple[str, ...] = ()

    @property
    def instruction(self) -> str:
        """The question in the spelling of the prompts: lower case, no mark at the end."""
        return spoken(self.question)


@dataclass(frozen=True)
class EvaluationItem:
    """An instruction of the held-out set and the index of the scene it belongs to."""

    view_index: int
    annotated: Annotated

    @property
    def task(self) -> TaskView:
        """The ground truth."""
        if self.annotated.task is None:
            raise ValueError(f"no task for {self.annotated.question!r}: only instructions can be evaluated")
        return self.annotated.task


def word_count(text: str) -> int:
    """Words and punctuation marks of a text, a lower bound of its length in tokens."""
    return sum(1 + (word[-1] in ".,?!:") for word in text.split())


def instruct(
    kind: str, question: str, task: TaskView, reason: str | None, variety: str, units: tuple[str, ...]
) -> Annotated:
    """An instruction with the canonical answer of its task, shortened by leaving out an overlong reason."""
    text = canonical_answer(task, reason)
    if word_count(text) > MAX_ANSWER_WORDS:
        text = canonical_answer(task)
    return Annotated(kind, question, text, task=task, variety=variety, units=units)


def with_kind(item: Annotated, kind: str) -> Annotated:
    """The same question under another kind."""
    return replace(item, kind=kind)
