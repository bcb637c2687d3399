"""Prompts of a batch: which kind of text, and its tokens."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from instructvla_model.prompts import Encoded, PromptBuilder, Turn
from instructvla_sim.catalog import INDEX, NAMES
from instructvla_training.language import Annotated, LanguageGenerator, SceneView, ViewConvention
from instructvla_training.recipes import Shares

CONVENTION = ViewConvention(left_y_sign=-1)
"""The primary camera stands in front and looks towards the robot: smaller base y is further left."""
NOBODY = -1  # object index where a role is not filled
ACTION_KINDS = ("action", "motion", "qa_action", "think", "rewrite", "situated")
"""Prompts that end in actions."""
QUESTION_KINDS = ("point", "qa", "caption", "knowledge")
"""Prompts of a stage without actions."""


def generator(split: str = "train") -> LanguageGenerator:
    """The language generator for the built-in bench's camera."""
    return LanguageGenerator(split, CONVENTION)


class Prompter:
    """Turns scene views into token sequences, with the objects that the latents should point at."""

    def __init__(self, builder: PromptBuilder, language: LanguageGenerator | None = None):
        self.builder = builder
        self.language = language or generator()
        # most pieces of a prompt recur in every sample: encode each once
        builder.tokenizer.encode = lru_cache(maxsize=50_000)(builder.tokenizer.encode)  # type: ignore[method-assign]

    def point(self, view: SceneView, rng: np.random.Generator) -> tuple[Encoded, int, int]:
        """Point at one or two named objects; the answer ends with the latent queries."""
        names = [item.name for item in view.visible]
        first = names[rng.integers(len(names))]
        second = names[rng.integers(len(names))]
        if first == second or rng.random() < 0.4:
            turn = Turn(f"Point at the {first}.", f"The {first}.", True)
            return self.builder.conversation([turn]), INDEX[first], NOBODY
        turn = Turn(f"Point at the {first}, then at the {second}.", f"The {first}. The {second}.", True)
        return self.builder.conversation([turn]), INDEX[first], INDEX[second]

    def question(self, item: Annotated, *, image: bool = True) -> Encoded:
        """A plain question with its answer, no latent queries."""
        return self.builder.conversation([Turn(item.question, item.answer)], int(image))

    def action(
        self, kind: str, view: SceneView, motion: str, rng: np.random.Generator, motion_share: float = 0.0
    ) -> tuple[str, Encoded]:
        """An instruction that ends in actions -> the kind it became, and its tokens. ``kind``: one of ACTION_KINDS.

        think, rewrite and situated answer before they act. Where the scene permits no such sentence, the plain prompt
        takes its place, with the motion asked for in a ``motion_share`` of the cases (reference §5.3); where there is
        no motion, as in a still, the plain one too.
        """
        language, atomic = self.language, self.language.atomic(view)
        if kind == "think":
            return kind, self.builder.think(atomic.instruction, atomic.answer)
        if kind in ("rewrite", "situated"):
            item = language.rewrite(view, rng) if kind == "rewrite" else language.situated(view, rng)
            if item is not None:
                return kind, self.builder.think(item.instruction, item.answer)
        if kind == "qa_action":
            item = language.qa(view, rng) if rng.random() < 0.7 else language.caption(view, rng)
            if item is not None:
                return kind, self.builder.question_then_action(item.question, item.answer, atomic.instruction)
        asked = kind == "motion" or (kind != "action" and rng.random() < motion_share)
        if asked and motion:
            return "motion", self.builder.motion(atomic.instruction, motion)
        return "action", self.builder.action(atomic.instruction)


def motion_share(shares: Shares) -> float:
    """Of the plain prompts, the share that asks for the language motion."""
    weights = dict(shares)
    motion, plain = weights.get("motion", 0.0), weights.get("action", 0.0)
    return motion / (motion + plain) if motion else 0.0


def choose(shares: Shares, rng: np.random.Generator) -> str:
    """One name by its share."""
    weights = np.array([share for _, share in shares])
    return shares[rng.choice(len(shares), p=weights / weights.sum())][0]


def role_index(name: str | None) -> int:
    """Catalogue index of an object, NOBODY for None."""
    return NOBODY if name is None else NAMES.index(name)
