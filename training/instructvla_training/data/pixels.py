"""Images of a mixture at the sizes that the policy takes: all in memory where they fit, else decoded one by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from instructvla_model.image import ImageRecipe

from .mixture import Mixture, Place

logger = logging.getLogger(__name__)

BUDGET_BYTES = 2 * 2**30


class PixelStore:
    """Pixels after the geometric steps of image recipes; one that an episode lacks is black.

    Where all images of a mixture fit into ``budget_bytes``, an episode is decoded from beginning to end when one of
    its images is first asked for, and kept; otherwise each image is decoded alone and nothing is kept.
    """

    def __init__(
        self, mixture: Mixture, recipes: Sequence[ImageRecipe], views: Sequence[str], budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._mixture, self._views = mixture, tuple(views)
        self._recipes = {recipe.name + str(recipe.steps): recipe for recipe in recipes}
        self._kept: dict[tuple[int, int, str], dict[str, np.ndarray]] = {}
        steps = sum(part.survey.n_steps for part in mixture.parts)
        side = {name: _side(recipe) for name, recipe in self._recipes.items()}
        needed = steps * len(self._views) * sum(3 * size**2 for size in side.values())
        self.keeps = needed <= budget_bytes
        logger.info("images: %.2f GiB, %s", needed / 2**30, "kept in memory" if self.keeps else "decoded when drawn")

    def __call__(self, place: Place, view: str, recipe: ImageRecipe) -> np.ndarray:
        """(S, S, 3) uint8 of the step, of one of the recipes."""
        key = recipe.name + str(recipe.steps)
        episode = self._mixture.episode(place.part, place.episode)
        images = episode.images.get(view)
        if images is None:
            return np.zeros((_side(recipe), _side(recipe), 3), np.uint8)
        if not self.keeps:
            return recipe.pixels(images[place.step])
        own = (place.part, place.episode, view)
        if own not in self._kept:
            columns: dict[str, list[np.ndarray]] = {name: [] for name in self._recipes}
            for image in images:
                for name, known in self._recipes.items():
                    columns[name].append(known.pixels(image))
            self._kept[own] = {name: np.stack(column) for name, column in columns.items()}
        return self._kept[own][key][place.step]


def _side(recipe: ImageRecipe) -> int:
    """Pixels of a side of what the recipe makes."""
    size = (1024, 1024)
    for step in recipe.steps:
        size = step.output_size(size)
    return size[0]
