"""Is the task done? Judged on the simulator's state, never on images."""

from __future__ import annotations

import numpy as np

from instructvla_sim.catalog import CATALOG, CUBE_HALF_M, INDEX, ObjectSpec
from instructvla_sim.observe import Observer
from instructvla_sim.types import Task

LIFT_M = 0.05
"""pick: the target's centre is this much above where it stood, held by both fingers."""
NEAR_GAP_M = 0.06
"""near: surfaces at most this far apart, the target standing on the table."""
STACK_OFFSET_M = 0.016
"""stack: centres at most this far apart sideways."""
REST_SPEED_M_S = 0.03
OPEN_ENOUGH = 0.5


def succeeded(observer: Observer, task: Task, start_height_m: float, opening: float) -> bool:
    """Whether the task's goal holds now. `start_height_m` is the target's height at reset, `opening` 0..1."""
    target = INDEX[task.target]
    position = observer.position(target)
    if task.family == "pick":
        return bool(position[2] - start_height_m >= LIFT_M) and observer.held() == target
    if opening < OPEN_ENOUGH or target in observer.finger_contacts():
        return False
    if observer.speed_m_s(target) > REST_SPEED_M_S:
        return False
    place = INDEX[task.place or ""]
    if task.family == "place":
        return rests_in(observer, target, place)
    if task.family == "stack":
        return rests_on_cube(observer, target, place)
    return stands_on_table(observer, target) and observer.gap_m(target, place, 2 * NEAR_GAP_M) <= NEAR_GAP_M


def rests_in(observer: Observer, thing: int, receptacle: int) -> bool:
    """Whether a thing lies on the receptacle's floor, within its inner radius, touching it and not the
    table."""
    spec: ObjectSpec = CATALOG[receptacle]
    offset = observer.rotation(receptacle).T @ (observer.position(thing) - observer.position(receptacle))
    inside = float(np.hypot(offset[0], offset[1])) <= spec.inner_radius_m
    height = observer.position(thing)[2] - spec.floor_m
    low = height < CATALOG[thing].half_m[2] + max(0.02, spec.rim_m - spec.floor_m)
    pairs = observer.touching_pairs()
    touching = (min(thing, receptacle), max(thing, receptacle)) in pairs
    return bool(inside and low and touching and (-1, thing) not in pairs)


def stands_on_table(observer: Observer, thing: int) -> bool:
    """Whether a thing lies on the table, or flat on the cloth, and touches nothing else."""
    others = {a if b == thing else b for a, b in observer.touching_pairs() if thing in (a, b)}
    return bool(others) and others <= {-1, INDEX["cloth"]}


def rests_on_cube(observer: Observer, upper: int, lower: int) -> bool:
    """Whether a cube stands on another one."""
    offset = observer.position(upper) - observer.position(lower)
    sideways = float(np.hypot(offset[0], offset[1]))
    stands = abs(offset[2] - 2 * CUBE_HALF_M) < 0.006
    on_table = abs(observer.position(lower)[2] - CUBE_HALF_M) < 0.006
    return bool(sideways <= STACK_OFFSET_M and stands and on_table)
