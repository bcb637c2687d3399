"""Random tasks and layouts: what stands on the table, where, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructvla_sim.catalog import CUBES, GRASPABLE, NAMES, RECEPTACLES, ObjectSpec, spec_of
from instructvla_sim.types import FAMILIES, Task, WorldConfig

WORKSPACE_LOWER_M = np.array([0.20, -0.16])
WORKSPACE_UPPER_M = np.array([0.395, 0.16])
"""Where the centres of graspable things may stand (x, y in the base frame)."""
RECEPTACLE_INSET_M = np.array([0.025, 0.040])
GAP_M = 0.020
"""Least gap between the footprints of two things."""
FINGER_GAP_M = 0.030
"""Least gap around the target: the open fingers must fit in."""
TASK_GAP_M = 0.085
"""Least gap between target and place, so that no task is solved at the start."""


@dataclass(frozen=True)
class Placement:
    """Pose of one thing on the table: centre x, y in metres and heading in radians."""

    name: str
    x_m: float
    y_m: float
    yaw_rad: float


def sample_task(rng: np.random.Generator, families: Sequence[str] | None) -> Task:
    """A task of one of the families, all objects equally likely."""
    known = tuple(families or FAMILIES)
    unknown = [f for f in known if f not in FAMILIES]
    if unknown:
        raise ValueError(f"task families {unknown} unknown, expected some of {FAMILIES}.")
    family = known[rng.integers(len(known))]
    if family == "stack":
        target, place = rng.choice(len(CUBES), 2, replace=False)
        return Task("stack", CUBES[target], CUBES[place])
    target = GRASPABLE[rng.integers(len(GRASPABLE))]
    if family == "pick":
        return Task("pick", target)
    if family == "place":
        return Task("place", target, RECEPTACLES[rng.integers(len(RECEPTACLES))])
    others = [n for n in NAMES if n != target and n != "cloth"]
    return Task("near", target, others[rng.integers(len(others))])


def sample_names(rng: np.random.Generator, task: Task, config: WorldConfig, n_distractors: int | None) -> list[str]:
    """Target, place, then distractors; at most two receptacles altogether."""
    names = [task.target] + ([task.place] if task.place else [])
    count = (
        int(rng.integers(config.min_distractors, config.max_distractors + 1))
        if n_distractors is None
        else n_distractors
    )
    if not 0 <= count <= 5:
        raise ValueError(f"n_distractors is {count}, expected 0..5: more do not fit on the table.")
    for _ in range(count):
        receptacles = sum(n in RECEPTACLES for n in names)
        want_receptacle = rng.random() < 0.3 and receptacles < 2
        pool = [n for n in (RECEPTACLES if want_receptacle else GRASPABLE) if n not in names]
        if task.family == "stack":  # another cube between would be stacked on as well: keep two cubes of four apart
            pool = [n for n in pool if n not in CUBES] if rng.random() < 0.7 else pool
        names.append(pool[rng.integers(len(pool))])
    return names


def sample_layout(rng: np.random.Generator, names: Sequence[str], task: Task) -> list[Placement]:
    """Poses without overlap, big things first. When the table is too full, the last distractors are left
    out."""
    needed = 2 if task.place else 1
    for count in range(len(names), needed - 1, -1):
        order = sorted(names[:count], key=lambda n: (-spec_of(n).footprint_m, n))
        for _ in range(25):
            placed = _try_layout(rng, order, task)
            if placed is not None:
                return placed
    raise RuntimeError(
        f"no layout without overlap found for {list(names)[:needed]}: the workspace is too small for them."
    )


def _try_layout(rng: np.random.Generator, order: Sequence[str], task: Task) -> list[Placement] | None:
    placed: list[Placement] = []
    for name in order:
        spot = _spot(rng, spec_of(name), placed, task)
        if spot is None:
            return None
        placed.append(spot)
    return placed


def _spot(rng: np.random.Generator, item: ObjectSpec, placed: Sequence[Placement], task: Task) -> Placement | None:
    inset = RECEPTACLE_INSET_M if item.is_receptacle else np.zeros(2)
    for _ in range(30):
        x, y = rng.uniform(WORKSPACE_LOWER_M + inset, WORKSPACE_UPPER_M - inset)
        yaw = rng.uniform(-item.yaw_range_rad, item.yaw_range_rad)
        if all(_apart(item, x, y, other, task) for other in placed):
            return Placement(item.name, float(x), float(y), float(yaw))
    return None


def _apart(item: ObjectSpec, x: float, y: float, other: Placement, task: Task) -> bool:
    second = spec_of(other.name)
    pair = {item.name, other.name}
    gap = FINGER_GAP_M if task.target in pair else GAP_M
    if pair == {task.target, task.place}:
        gap = TASK_GAP_M if task.family == "near" else TASK_GAP_M / 2
    need = item.footprint_m + second.footprint_m + gap
    return (x - other.x_m) ** 2 + (y - other.y_m) ** 2 > need * need
