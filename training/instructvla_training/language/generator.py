"""The one entry point for the trainer and the evaluation: draws of language for a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import knowledge as knowledge_source
from . import questions, rewrites, situations
from .annotated import Annotated, EvaluationItem
from .atomic import answer, atomic_instruction
from .patterns import sentence_case
from .scene_view import SceneView
from .spatial import ViewConvention

SPLITS = ("train", "heldout")
VARIETIES = ("paraphrase", "attribute", "situated")
_ATTRIBUTE_SHARE = 0.6
_SCENES_PER_ITEM = 200


@dataclass(frozen=True)
class LanguageGenerator:
    """Draws instructions, questions and captions; every draw is a function of the scene and the generator.

    Args:
        split: "train", or "heldout" for instructions that training never contains. Questions, captions,
            pointing and knowledge are training material and the same in both.
        convention: what left, right, near and beside mean for the camera in use.
    """

    split: str = "train"
    convention: ViewConvention = field(default_factory=ViewConvention)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}: expected one of {SPLITS}")

    def atomic(self, view: SceneView) -> Annotated:
        """The canonical instruction of the view's task."""
        text = sentence_case(atomic_instruction(view.task))
        return Annotated("atomic", text, answer(view.task), task=view.task)

    def paraphrase(self, view: SceneView, rng: np.random.Generator) -> Annotated:
        """The task in another sentence, objects named."""
        return rewrites.paraphrase(view, rng, self.split)

    def attribute(self, view: SceneView, rng: np.random.Generator) -> Annotated | None:
        """The task with an object described instead of named; None when no description is clear."""
        return rewrites.attribute(view, rng, self.convention, self.split)

    def rewrite(self, view: SceneView, rng: np.random.Generator) -> Annotated:
        """CR: a paraphrase, or the objects described."""
        item = self.attribute(view, rng) if rng.random() < _ATTRIBUTE_SHARE else None
        return item if item is not None else self.paraphrase(view, rng)

    def situated(self, view: SceneView, rng: np.random.Generator) -> Annotated | None:
        """CC: a situation that calls for the task; None when the scene leaves it unclear."""
        return situations.situated(view, rng, self.convention, self.split)

    def qa(self, view: SceneView, rng: np.random.Generator) -> Annotated | None:
        """A question about the scene with its answer."""
        return questions.question(view, rng, self.convention)

    def caption(self, view: SceneView, rng: np.random.Generator) -> Annotated:
        """A caption prompt with the caption."""
        return questions.caption(view, rng)

    def pointing(
        self, view: SceneView, rng: np.random.Generator, names: Sequence[str] | None = None
    ) -> Annotated | None:
        """A request to point at an object (`target`), one of `names` where given."""
        return questions.pointing(view, rng, self.convention, names)

    def knowledge(self, rng: np.random.Generator) -> Annotated:
        """A text-only question about the world."""
        return knowledge_source.knowledge(rng)

    def _draw(self, variety: str) -> Callable[[SceneView, np.random.Generator], Annotated | None]:
        return {"paraphrase": self.paraphrase, "attribute": self.attribute, "situated": self.situated}[
            variety
        ]

    def instruct_set(
        self,
        views: Sequence[SceneView],
        n: int,
        seed: int,
        varieties: Sequence[str] = VARIETIES,
    ) -> list[EvaluationItem]:
        """`n` instructions for evaluation, the varieties in turn, no sentence twice.

        Scenes are used evenly; one that permits no instruction of a variety is passed over.

        Raises:
            ValueError: when the scenes permit too few instructions.
        """
        if not views:
            raise ValueError("no scenes were given: pass at least one SceneView")
        rng = np.random.default_rng(seed)
        order = {variety: rng.permutation(len(views)) for variety in varieties}
        cursor = dict.fromkeys(varieties, 0)
        seen: set[tuple[int, str]] = set()
        items: list[EvaluationItem] = []
        for count in range(n):
            variety = varieties[count % len(varieties)]
            for _ in range(_SCENES_PER_ITEM):
                index = int(order[variety][cursor[variety] % len(views)])
                cursor[variety] += 1
                item = self._draw(variety)(views[index], rng)
                if item is not None and (index, item.instruction) not in seen:
                    seen.add((index, item.instruction))
                    items.append(EvaluationItem(index, item))
                    break
            else:
                raise ValueError(
                    f"the {len(views)} scenes gave {len(items)} of {n} instructions, then no {variety!r} in "
                    f"{_SCENES_PER_ITEM} tries: pass more scenes"
                )
        return items
