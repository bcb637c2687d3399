"""Prompts for frames of recorded episodes, from their instruction and annotations (reference §5.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from instructvla_model.prompts import Encoded, PromptBuilder, PromptError, Turn
from instructvla_training.data.episode_frames import Words
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.llava import Conversation
from instructvla_training.language.motion import all_phrases
from instructvla_training.language.templates.questions import CAPTION_PROMPTS
from instructvla_training.language.vla_it import QuestionAnswer

EPISODE_KINDS = ("action", "motion", "qa_action", "rewrite", "situated")
LONGEST_MOTION = max(all_phrases(), key=len)


class EpisodePrompter:
    """Token sequences. Where an episode lacks what a kind of prompt needs, a plain one takes its place."""

    def __init__(self, builder: PromptBuilder) -> None:
        self.builder = builder

    def action(
        self, kind: str, words: Words, motion: Callable[[], str], rng: np.random.Generator, motion_share: float
    ) -> tuple[str, Encoded]:
        """An instruction that ends in actions -> the kind it became, and its tokens. Raises DataError.

        ``kind``: "action", "motion", "qa_action", "situated" (CC) or "rewrite" (CR). ``motion_share``: of the plain
        prompts, how many ask for the motion, which is computed only then.
        """
        instruction = words.instruction.lower()
        try:
            pair = self._pair(kind, words, rng)
            if pair is not None and kind == "qa_action":
                return kind, self.builder.question_then_action(pair.question, pair.answer, instruction)
            if pair is not None:
                return kind, self.builder.think(pair.question, pair.answer)
            asked = kind == "motion" or (kind != "action" and rng.random() < motion_share)
            phrase = motion() if asked else ""
            if phrase:
                return "motion", self.builder.motion(instruction, phrase)
            return "action", self.builder.action(instruction)
        except PromptError as error:
            raise DataError(f"{words.name}: {error}") from error

    def check(self, words: Words) -> None:
        """Makes every prompt that `action` may draw. Raises DataError at the first that cannot be made."""
        instruction, found = words.instruction.lower(), words.annotation
        try:
            motions = found.move_primitive if found is not None else ()
            self.builder.motion(instruction, max((LONGEST_MOTION, *motions), key=len))
            if found is None:
                return
            captions = [QuestionAnswer(prompt, found.caption) for prompt in CAPTION_PROMPTS if found.caption]
            for pair in (*found.qa, *captions):
                self.builder.question_then_action(pair.question, pair.answer, instruction)
            for pair in (*found.cc, *found.cr):
                self.builder.think(pair.question, pair.answer)
        except PromptError as error:
            raise DataError(
                f"{words.name}: {error}; mend its instruction or annotation, or leave it out (data convert --without)"
            ) from error

    def conversation(self, talk: Conversation) -> Encoded:
        """A conversation without actions. One too long for the model loses its last turns, then half of its answer.

        Raises DataError where a question has no words or is too long by itself.
        """
        try:
            turns = [Turn(self.builder.question(question), answer) for question, answer in talk.turns]
        except PromptError as error:
            raise DataError(f"{talk.source}: {error}; leave it out") from error
        while True:
            try:
                return self.builder.conversation(turns, int(talk.image is not None))
            except PromptError as error:
                last = turns[-1]
                if len(turns) == 1 and len(last.assistant) < 2:
                    raise DataError(f"{talk.source}, {last.user[:60]!r}: {error}; leave it out") from error
                shorter = replace(last, assistant=last.assistant[: len(last.assistant) // 2])
                turns = turns[:-1] or [shorter]

    def _pair(self, kind: str, words: Words, rng: np.random.Generator) -> QuestionAnswer | None:
        """A question with its answer of the kind, drawn uniformly; None where the episode has none."""
        found = words.annotation
        if found is None or kind not in ("qa_action", "situated", "rewrite"):
            return None
        pairs = {"qa_action": found.qa, "situated": found.cc, "rewrite": found.cr}[kind]
        if kind == "qa_action" and found.caption:
            pairs = (*pairs, QuestionAnswer(str(rng.choice(CAPTION_PROMPTS)), found.caption))
        return pairs[rng.integers(len(pairs))] if pairs else None
