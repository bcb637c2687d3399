"""What the annotating model must answer, checked; and from there to the VLA-IT file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from instructvla_training.language.vla_it import EpisodeAnnotation, QuestionAnswer

LONGEST = 400


class AnswerError(ValueError):
    """The model's text is not the annotation that was asked for; the message is fit to be shown to the model."""


class Pair(BaseModel):
    """A question or instruction with its answer."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)
    question: str = Field(min_length=3, max_length=LONGEST)
    answer: str = Field(min_length=1, max_length=LONGEST)


class Annotation(BaseModel):
    """Caption, questions (QA), rewritten commands (CR) and situations that call for the task (CC)."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True, frozen=True)
    Caption: str = Field(min_length=10, max_length=2 * LONGEST)
    QA: tuple[Pair, ...] = Field(min_length=1, max_length=10)
    CR: tuple[Pair, ...] = Field(min_length=1, max_length=10)
    CC: tuple[Pair, ...] = Field(min_length=1, max_length=10)

    @field_validator("QA")
    @classmethod
    def _asks(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        wrong = [pair.question for pair in pairs if not pair.question.endswith("?")]
        if wrong:
            raise ValueError(f"a QA question must end with a question mark, found {wrong[0]!r}")
        return pairs

    @model_validator(mode="after")
    def _different(self) -> Annotation:
        for name, pairs in (("QA", self.QA), ("CR", self.CR), ("CC", self.CC)):
            questions = [pair.question.lower() for pair in pairs]
            if len(set(questions)) < len(questions):
                raise ValueError(f"{name} holds the same question twice")
        return self


def parse(text: str, instruction: str) -> Annotation:
    """The annotation in a model's answer; words around the JSON object are ignored. Raises AnswerError."""
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        raise AnswerError("the answer holds no JSON object")
    try:
        found = Annotation.model_validate(json.loads(text[start : stop + 1]))
    except json.JSONDecodeError as error:
        raise AnswerError(f"the answer is not valid JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise AnswerError(f"{place or 'the answer'}: {first['msg']}") from error
    same = [pair.question for pair in found.CR if _plain(pair.question) == _plain(instruction)]
    if same:
        raise AnswerError(f"CR must word the instruction differently, found {same[0]!r}")
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".!?")


def to_episode(found: Annotation, file_path: str, episode_id: str, motions: Sequence[str]) -> EpisodeAnnotation:
    """The annotation under an episode's key, with its language motion."""

    def pairs(kind: tuple[Pair, ...]) -> tuple[QuestionAnswer, ...]:
        return tuple(QuestionAnswer(pair.question, pair.answer) for pair in kind)

    return EpisodeAnnotation(
        file_path, episode_id, tuple(motions), found.Caption, pairs(found.CR), pairs(found.CC), pairs(found.QA)
    )
