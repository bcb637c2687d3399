"""Random scenes without a simulator: for the tokenizer's corpus, counts and tests."""

from __future__ import annotations

import numpy as np

from .scene_view import GRASPABLE, RECEPTACLES, ObjectView, SceneView, TaskView, is_cube

_KIND: dict[str, tuple[str, str, str]] = {  # category, colour, shape
    "carrot": ("vegetable", "orange", "cone"),
    "apple": ("fruit", "red", "ball"),
    "lemon": ("fruit", "yellow", "ball"),
    "can": ("can", "blue", "cylinder"),
    "sponge": ("sponge", "pink", "box"),
    "eggplant": ("vegetable", "purple", "ball"),
    "plate": ("dish", "white", "disc"),
    "bowl": ("dish", "turquoise", "bowl"),
    "basket": ("basket", "brown", "box"),
    "cloth": ("cloth", "violet", "square"),
}


def _object(name: str, position_m: tuple[float, float]) -> ObjectView:
    category, color, shape = ("cube", name.split()[0], "box") if is_cube(name) else _KIND[name]
    return ObjectView(name, category, color, shape, name in RECEPTACLES, position_m)


def random_task(rng: np.random.Generator, names: tuple[str, ...]) -> TaskView:
    """A task that these objects permit."""
    graspable = [name for name in names if name in GRASPABLE]
    target = graspable[int(rng.integers(len(graspable)))]
    receptacles = [name for name in names if name in RECEPTACLES]
    cubes = [name for name in graspable if is_cube(name) and name != target]
    families = ["pick", "near"] + ["place"] * bool(receptacles) + ["stack"] * bool(cubes and is_cube(target))
    family = families[int(rng.integers(len(families)))]
    if family == "pick":
        return TaskView("pick", target)
    others = {"place": receptacles, "stack": cubes}.get(family) or [name for name in names if name != target]
    return TaskView(family, target, others[int(rng.integers(len(others)))])


def random_scene(rng: np.random.Generator, held_share: float = 0.1) -> SceneView:
    """Three to six graspable objects and up to three receptacles on a 30 cm by 40 cm area, with a task."""
    graspable = rng.permutation(GRASPABLE)[: int(rng.integers(3, 7))]
    receptacles = rng.permutation(RECEPTACLES)[: int(rng.integers(0, 4))]
    names = tuple(str(name) for name in (*graspable, *receptacles))
    objects = tuple(
        _object(name, (float(rng.uniform(0.15, 0.45)), float(rng.uniform(-0.2, 0.2)))) for name in names
    )
    held = str(graspable[0]) if rng.random() < held_share else None
    return SceneView(objects, random_task(rng, names), held)
