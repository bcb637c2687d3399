"""Where the target should end up, from the objects' present positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructvla_sim.catalog import CATALOG, CUBE_HALF_M, INDEX
from instructvla_sim.observe import Observer, lies_down, vertical_half_m
from instructvla_sim.sampling import WORKSPACE_LOWER_M, WORKSPACE_UPPER_M
from instructvla_sim.success import NEAR_GAP_M, rests_in, rests_on_cube, stands_on_table
from instructvla_sim.types import Task

NEAR_AIM_GAP_M = 0.038
"""near: the gap to leave, so that an opening finger and the palm above it (5 cm to each side) fit in."""
FREE_M = 0.018
_DIRECTIONS = (
    (0.0, 1.0),
    (0.7071, 0.7071),
    (-0.7071, 0.7071),
    (1.0, 0.0),
    (-1.0, 0.0),
    (0.0, -1.0),
    (0.7071, -0.7071),
    (-0.7071, -0.7071),
)


@dataclass(frozen=True)
class Goal:
    """Where the target's centre should be when it is let go. `tolerance` scales the demonstrator's own."""

    centre_m: np.ndarray
    yaw_rad: float | None = None
    tolerance: float = 1.0


def goal_of(observer: Observer, task: Task) -> Goal:
    """Goal of a task with a place. The target's own position does not enter, so the goal stands still."""
    if task.place is None:
        raise ValueError(f"task {task.family!r} has no place, so no goal position: expected place, near or stack.")
    target, place = INDEX[task.target], INDEX[task.place]
    spec = CATALOG[place]
    half = vertical_half_m(CATALOG[target], observer.rotation(target))
    centre = observer.position(place)
    if task.family == "stack":
        return Goal(np.array([centre[0], centre[1], centre[2] + 2 * CUBE_HALF_M + 0.002]), observer.yaw(place), 0.5)
    if task.family == "place":
        bottom = max(spec.floor_m + 0.004, spec.rim_m - 0.014)
        return Goal(np.array([centre[0], centre[1], bottom + half]), None, 1.2)
    spot = near_spot(observer, target, place)
    return Goal(np.array([spot[0], spot[1], half + 0.004]), None, 0.8)


def near_spot(observer: Observer, target: int, place: int) -> np.ndarray:
    """A free place (x, y) beside `place`: left or right of it, towards the middle of the table when that is
    free."""
    centre = observer.position(place)[:2]
    inward = -1.0 if centre[1] > 0 else 1.0
    best, best_room = centre, -np.inf
    for forward, sideways in _DIRECTIONS:
        u = np.array([forward, sideways * inward])
        spot = centre + (_extent(observer, place, u) + _extent(observer, target, u) + NEAR_AIM_GAP_M) * u
        room = _room(observer, spot, target, place)
        if room > FREE_M:
            return spot
        if room > best_room:
            best, best_room = spot, room
    return best


def _extent(observer: Observer, index: int, u: np.ndarray) -> float:
    """How far an object reaches from its centre in the horizontal direction u (unit)."""
    spec = CATALOG[index]
    if spec.shape in ("sphere", "disc", "bowl") or (
        spec.shape == "cylinder" and not lies_down(spec, observer.rotation(index))
    ):
        return spec.half_m[0]
    yaw = observer.yaw(index)
    along = abs(np.cos(yaw) * u[0] + np.sin(yaw) * u[1])
    long, wide = (spec.half_m[2], spec.half_m[0]) if spec.shape == "cylinder" else spec.half_m[:2]
    across = np.sqrt(max(1.0 - along**2, 0.0))
    if spec.category == "cube" or spec.shape == "box":
        return float(long * along + wide * across)
    # stems and leaves are drawn but touch nothing: the solid part is shorter than the drawing
    return float(np.hypot(0.86 * long * along, wide * across))


def _room(observer: Observer, spot: np.ndarray, target: int, place: int) -> float:
    """Free distance around a spot: to the other things and to the edge of the reachable table."""
    room = float(min(*(spot - WORKSPACE_LOWER_M), *(WORKSPACE_UPPER_M - spot))) + 0.025
    for index in range(len(CATALOG)):
        position = observer.position(index)
        if index in (target, place) or position[2] < -0.1:
            continue
        away = position[:2] - spot
        distance = float(np.hypot(*away)) + 1e-9
        u = away / distance
        room = min(room, distance - _extent(observer, target, u) - _extent(observer, index, u))
    return room


def reached(observer: Observer, task: Task) -> bool:
    """Whether the target already lies where it should, whatever the gripper does."""
    target, place = INDEX[task.target], INDEX[task.place or ""]
    if task.family == "place":
        return rests_in(observer, target, place)
    if task.family == "stack":
        return rests_on_cube(observer, target, place)
    return stands_on_table(observer, target) and observer.gap_m(target, place, 2 * NEAR_GAP_M) <= NEAR_GAP_M
