"""Prompts of a batch: which kind of text, and its tokens."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from instructvla_model.prompts import Encoded, PromptBuilder, Turn
from instructvla_sim.catalog import INDEX, NAMES
from instructvla_training.language import Annotated, LanguageGenerator, SceneView, ViewConvention

CONVENTION = ViewConvention(left_y_sign=-1)
"""The primary camera stands in front and looks towards the robot: smaller base y is further left."""
NOBODY = -1  # object index where a role is not filled


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
        self,
        kind: str,
        view: SceneView,
        motion: str,
        rng: np.random.Generator,
        source: LanguageGenerator | None = None,
    ) -> Encoded:
        """An instruction that ends in actions. ``kind``: action, motion, think, rewrite, situated, qa_action.

        think, rewrite and situated answer before they act. Where the scene permits no such sentence, or a still has
        no motion, the plain action prompt takes its place (reference §5.3).
        """
        language = source or self.language
        atomic = language.atomic(view)
        if kind == "motion" and motion:
            return self.builder.motion(atomic.instruction, motion)
        if kind == "qa_action":
            item = language.qa(view, rng) if rng.random() < 0.7 else language.caption(view, rng)
            if item is not None:
                return self.builder.question_then_action(item.question, item.answer, atomic.instruction)
        if kind in ("rewrite", "situated"):
            item = language.rewrite(view, rng) if kind == "rewrite" else language.situated(view, rng)
            if item is not None:
                return self.builder.think(item.instruction, item.answer)
        if kind == "think":
            return self.builder.think(atomic.instruction, atomic.answer)
        return self.builder.action(atomic.instruction)


def choose(shares: tuple[tuple[str, float], ...], rng: np.random.Generator) -> str:
    """One name by its share."""
    weights = np.array([share for _, share in shares])
    return shares[rng.choice(len(shares), p=weights / weights.sum())][0]


def role_index(name: str | None) -> int:
    """Catalogue index of an object, NOBODY for None."""
    return NOBODY if name is None else NAMES.index(name)
