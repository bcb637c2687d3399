"""From the simulated world to the columns of a frame."""

from __future__ import annotations

import cv2
import numpy as np

from instructvla_model.image import ImageRecipe
from instructvla_sim import RenderSpec, Scene, World
from instructvla_sim.catalog import CATALOG
from instructvla_training.language.scene_view import ObjectView, SceneView, TaskView

from .shards import NO_OBJECT

RECORD_RENDER = RenderSpec(width=336, height=252, samples=0)
"""Same view as the live 640x480 camera; averaged down by the image recipe, so it needs no multisampling."""
PATCH_SHARE = 0.08
"""An object owns a patch when it covers at least this share of it and more than any other object."""


def image_columns(world: World, recipe: ImageRecipe, patches_per_side: int) -> dict[str, np.ndarray]:
    """The frame's ``image`` (S, S, 3), ``grid`` (P, P) and ``objects`` (n, 5)."""
    image = recipe.pixels(world.render("primary"))
    grid = patch_grid(world.segment("primary"), image.shape[0], patches_per_side)
    return {"image": image, "grid": grid, "objects": object_table(world.scene)}


def patch_grid(segmentation: np.ndarray, image_size: int, patches_per_side: int) -> np.ndarray:
    """Object index of each patch, NO_OBJECT where none covers PATCH_SHARE of it -> (P, P) uint8."""
    small = cv2.resize(
        segmentation.astype(np.int16), (image_size, image_size), interpolation=cv2.INTER_NEAREST
    )
    cell = image_size // patches_per_side
    blocks = small.reshape(patches_per_side, cell, patches_per_side, cell).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(patches_per_side, patches_per_side, cell * cell)
    counts = np.stack([(blocks == i).sum(-1) for i in range(len(CATALOG))], axis=-1)
    best = counts.argmax(-1)
    owned = counts.max(-1) >= PATCH_SHARE * cell * cell
    return np.where(owned, best, NO_OBJECT).astype(np.uint8)


def object_table(scene: Scene) -> np.ndarray:
    """(n_objects, 5): x, y, z (m), 1 where the object is on the bench, and its yaw (rad)."""
    return np.array([[*o.position_m, float(o.visible), o.yaw_rad] for o in scene.objects], dtype=np.float32)


def scene_view(
    objects: np.ndarray, family: str, target: str, place: str | None, held: str | None = None
) -> SceneView:
    """What the language generator needs to know of a frame; ``objects`` as in ``object_table``."""
    views = tuple(
        ObjectView(
            name=spec.name,
            category=spec.category,
            color=spec.color,
            shape=spec.shape,
            is_receptacle=spec.is_receptacle,
            position_m=(float(row[0]), float(row[1])),
            visible=bool(row[3] > 0.5),
        )
        for spec, row in zip(CATALOG, objects, strict=True)
    )
    return SceneView(views, TaskView(family, target, place), held)
