"""Prompt catalogue and chat template (facts of the format), and label spans.

Supervised: everything after an assistant header up to and including the end of its turn.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from instructvla_model.batch import IGNORE, LanguageBatch
from instructvla_model.config import PolicyConfig
from instructvla_model.tokenizer import (
    IMAGE_CONTEXT,
    IMAGE_END,
    IMAGE_START,
    TURN_END,
    TURN_START,
    PolicyTokenizer,
    query_token,
)

ACTION = "What action should the robot take to {lang}?"
MOTION = "What action should the robot take to {lang}? Give both move primitive and action."
THINK = "What action should the robot take to {lang}? First answer my question."
ANSWER = "{lang}"
MODES = {"action": ACTION, "motion": MOTION, "think": THINK, "answer": ANSWER}

_TOKEN_LIKE = re.compile(r"<\|[^<>|]*\|>|</?img>|<IMG_CONTEXT>|<new_token_\d+>|<image[^<>]*>")


class PromptError(ValueError):
    """Text that cannot become a prompt; the message is fit to be shown to the user."""


@dataclass(frozen=True)
class Turn:
    """One exchange. `latent_queries` puts the N query tokens at the end of the assistant's text."""

    user: str
    assistant: str = ""
    latent_queries: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one sequence, equally long; IGNORE where unsupervised."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def clean_text(text: str, strip: bool = True, keep: str = "") -> str:
    """Text from outside made safe: no strings that are tokens, and of control characters only those in `keep`; with
    `strip` single spaces.

    Raises PromptError if nothing is left or it is not text.
    """
    if not isinstance(text, str):
        raise PromptError(f"instruction is a {type(text).__name__}; expected text")
    kept = "".join(c if c in keep or unicodedata.category(c)[0] != "C" else " " for c in text)
    while True:  # removing one token string may join the halves of another
        smaller = _TOKEN_LIKE.sub("", kept)
        if smaller == kept:
            break
        kept = smaller
    words = " ".join(kept.split())
    if not words:
        raise PromptError("instruction is empty; expected words such as 'pick up the red cube'")
    return words if strip else kept


class PromptBuilder:
    """Builds ids and labels for one policy: its tokenizer, system message, image tokens and queries."""

    def __init__(self, tokenizer: PolicyTokenizer, config: PolicyConfig) -> None:
        if tokenizer.n_queries != config.n_queries or tokenizer.vocab_size != config.language.vocab_size:
            raise PromptError(
                f"tokenizer has {tokenizer.vocab_size} tokens and {tokenizer.n_queries} queries; expected "
                f"{config.language.vocab_size} and {config.n_queries}; use config.with_vocab_size or the "
                "checkpoint's own tokenizer"
            )
        self.tokenizer = tokenizer
        self.config = config
        self._queries = "".join(query_token(i) for i in range(config.n_queries))
        self._image = IMAGE_START + IMAGE_CONTEXT * config.vision.tokens_per_image + IMAGE_END + "\n"

    # ---- texts ----------------------------------------------------------------------------------------

    def user_text(self, mode: str, instruction: str) -> str:
        """The user's words for a mode of the catalogue (action, motion, think, answer)."""
        if mode not in MODES:
            raise PromptError(f"mode {mode!r} does not exist; expected one of {sorted(MODES)}")
        if mode == "answer":
            return ANSWER.format(lang=self.question(instruction))
        instruction = clean_text(instruction, self.config.strip_instructions)
        if self.config.lowercase_instructions:  # as the training data spells them
            instruction = clean_text(instruction.lower(), self.config.strip_instructions)  # <IMG> is a token now
            if self.config.strip_instructions:
                instruction = instruction.rstrip(".?! ") or instruction
        return MODES[mode].format(lang=instruction)

    def question(self, text: str) -> str:
        """A plain question: it keeps its spelling and, unless the policy strips what it is told, its lines."""
        return clean_text(text, self.config.strip_instructions, keep="\n")

    def _images(self, n_images: int) -> str:
        if n_images == 1:
            return self._image
        return "".join(f"<image {i + 1}>{self._image}" for i in range(n_images))

    def _pieces(self, turns: Sequence[Turn], n_images: int) -> list[tuple[str, bool]]:
        """Text pieces with a flag: supervised. Pieces meet at special tokens or after a newline."""
        pieces: list[tuple[str, bool]] = []
        if self.config.system_message is not None:
            pieces.append((f"{TURN_START}system\n{self.config.system_message}{TURN_END}\n", False))
        for index, turn in enumerate(turns):
            images = self._images(n_images) if index == 0 else ""
            pieces.append((f"{TURN_START}user\n{images}{turn.user}{TURN_END}\n{TURN_START}assistant\n", False))
            text = turn.assistant.lstrip()
            if turn.latent_queries:
                text = (text.rstrip() + " " if text.strip() else "") + self._queries
            pieces += [(text + TURN_END, True), ("\n", False)]
        return pieces

    def text(self, turns: Sequence[Turn], n_images: int = 1) -> str:
        """The whole prompt as one string, image placeholders expanded."""
        return "".join(piece for piece, _ in self._pieces(turns, n_images))

    # ---- ids ------------------------------------------------------------------------------------------

    def conversation(self, turns: Sequence[Turn], n_images: int = 1) -> Encoded:
        """Ids and labels of whole turns. Raises PromptError if longer than the model's context."""
        ids: list[int] = []
        labels: list[int] = []
        for text, supervised in self._pieces(turns, n_images):
            piece = self.tokenizer.encode(text)
            ids += piece
            labels += piece if supervised else [IGNORE] * len(piece)
        self._check_length(len(ids))
        return Encoded(tuple(ids), tuple(labels))

    def action(self, instruction: str) -> Encoded:
        return self.conversation([Turn(self.user_text("action", instruction), "", True)])

    def motion(self, instruction: str, primitive: str) -> Encoded:
        return self.conversation([Turn(self.user_text("motion", instruction), primitive, True)])

    def think(self, instruction: str, answer: str) -> Encoded:
        return self.conversation([Turn(self.user_text("think", instruction), answer, True)])

    def question_then_action(self, question: str, answer: str, instruction: str) -> Encoded:
        turns = [Turn(self.question(question), answer), Turn(self.user_text("action", instruction), "", True)]
        return self.conversation(turns)

    def answer(self, question: str, answer: str, n_images: int = 1) -> Encoded:
        return self.conversation([Turn(self.user_text("answer", question), answer)], n_images)

    def opening(self, mode: str, instruction: str) -> list[int]:
        """Ids up to and including the open assistant header: where generation starts."""
        pieces = self._pieces([Turn(self.user_text(mode, instruction))], 1)[:-2]
        ids = [i for text, _ in pieces for i in self.tokenizer.encode(text)]
        self._check_length(len(ids) + self.config.n_queries)
        return ids

    def _check_length(self, found: int) -> None:
        limit = self.config.language.max_position
        if found > limit:
            raise PromptError(f"prompt has {found} tokens; expected at most {limit}; shorten the instruction")


def collate(samples: Sequence[Encoded], pad_id: int, max_length: int | None = None) -> LanguageBatch:
    """Right-pad to the longest sample -> ids, mask and labels; images are the caller's to add.

    Raises PromptError for a sample over `max_length`: truncation would cut the queries off.
    """
    longest = max(len(sample.ids) for sample in samples)
    if max_length is not None and longest > max_length:
        raise PromptError(f"a sample has {longest} tokens; expected at most {max_length}; drop or shorten it")
    ids = torch.full((len(samples), longest), pad_id, dtype=torch.long)
    labels = torch.full((len(samples), longest), IGNORE, dtype=torch.long)
    mask = torch.zeros((len(samples), longest), dtype=torch.bool)
    for row, sample in enumerate(samples):
        length = len(sample.ids)
        ids[row, :length] = torch.tensor(sample.ids)
        labels[row, :length] = torch.tensor(sample.labels)
        mask[row, :length] = True
    return LanguageBatch(ids, mask, labels)
