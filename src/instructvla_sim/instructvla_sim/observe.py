"""Measurements on the physics: object poses, who touches whom, what is held. Pure reads of MjData."""

from __future__ import annotations

import mujoco
import numpy as np

from instructvla_sim.catalog import CATALOG, ObjectSpec
from instructvla_sim.types import Ids


class Observer:
    """Reads one model's data. All results refer to the positions of the last completed World.step."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, ids: Ids) -> None:
        self._model, self._data, self._ids = model, data, ids
        self._collision_geoms = [
            np.flatnonzero((ids.object_of_geom == i) & (model.geom_contype != 0)) for i in range(len(CATALOG))
        ]

    def position(self, index: int) -> np.ndarray:
        """Centre of an object, (3,) metres."""
        return self._data.xpos[self._ids.object_body[index]]

    def rotation(self, index: int) -> np.ndarray:
        """Orientation of an object, (3, 3)."""
        return self._data.xmat[self._ids.object_body[index]].reshape(3, 3)

    def speed_m_s(self, index: int) -> float:
        """Speed of an object's centre."""
        dof = self._ids.object_dof[index]
        v = self._data.qvel[dof : dof + 3]
        return float(np.sqrt(v @ v))

    def ee(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and position (3,) of ee_gripper_link."""
        site = self._ids.ee_site
        return self._data.site_xmat[site].reshape(3, 3), self._data.site_xpos[site]

    def yaw(self, index: int) -> float:
        """Heading of the object's long axis; of the most horizontal face for a cube; of x for round
        things."""
        spec, rotation = CATALOG[index], self.rotation(index)
        if spec.category == "cube":
            axis = rotation[:, int(np.argmin(np.abs(rotation[2])))]
        elif lies_down(spec, rotation):
            axis = rotation[:, 2]
        else:
            axis = rotation[:, 0]
        return float(np.arctan2(axis[1], axis[0]))

    def touching_pairs(self) -> set[tuple[int, int]]:
        """Pairs of catalogue indices in contact; −1 stands for the table."""
        pairs = self._data.contact.geom
        if len(pairs) == 0:
            return set()
        a, b = self._ids.object_of_geom[pairs[:, 0]], self._ids.object_of_geom[pairs[:, 1]]
        table = self._ids.table_geom
        keep = ((a >= 0) | (pairs[:, 0] == table)) & ((b >= 0) | (pairs[:, 1] == table)) & (a != b)
        return {(min(x, y), max(x, y)) for x, y in zip(a[keep].tolist(), b[keep].tolist(), strict=True)}

    def finger_contacts(self) -> dict[int, set[int]]:
        """For each object that the robot touches: which parts (0 left finger, 1 right finger, 2 the rest)."""
        out: dict[int, set[int]] = {}
        pairs = self._data.contact.geom
        if len(pairs) == 0:
            return out
        part = self._ids.finger_of_geom[pairs]
        thing = self._ids.object_of_geom[pairs]
        for row in np.flatnonzero((part.max(axis=1) >= 0) & (thing.max(axis=1) >= 0)):
            out.setdefault(int(thing[row].max()), set()).add(int(part[row].max()))
        return out

    def held(self) -> int | None:
        """Catalogue index of the object between both fingers, or None."""
        for index, parts in self.finger_contacts().items():
            if {0, 1} <= parts and not CATALOG[index].is_receptacle:
                return index
        return None

    def gap_m(self, a: int, b: int, at_most_m: float = 0.2) -> float:
        """Least distance between the surfaces of two objects, capped at `at_most_m`."""
        best, buffer = at_most_m, np.zeros(6)
        for ga in self._collision_geoms[a]:
            for gb in self._collision_geoms[b]:
                best = min(best, mujoco.mj_geomDistance(self._model, self._data, int(ga), int(gb), best, buffer))
        return float(best)


def lies_down(spec: ObjectSpec, rotation: np.ndarray) -> bool:
    """Whether a standing thing (the can) has fallen over."""
    return spec.shape == "cylinder" and abs(rotation[2, 2]) < 0.7


def vertical_half_m(spec: ObjectSpec, rotation: np.ndarray) -> float:
    """Half the height of an object in its present attitude (bounding box; radius for round things)."""
    if spec.shape == "sphere":
        return spec.half_m[2]
    if spec.shape == "cylinder":
        return spec.half_m[0] if lies_down(spec, rotation) else spec.half_m[2]
    side = int(np.argmax(np.abs(rotation[2])))
    return spec.half_m[side]
