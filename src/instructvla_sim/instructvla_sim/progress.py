"""What the gripper did so far: which object it went for first, touched, grasped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instructvla_sim.catalog import CATALOG
from instructvla_sim.observe import Observer
from instructvla_sim.success import REST_SPEED_M_S
from instructvla_sim.types import Progress, Scene

APPROACH_RADIUS_M = 0.03
"""First approached = the nearest graspable object within this of the gripper sideways…"""
APPROACH_HEIGHT_M = 0.08
"""…while ee_gripper_link is lower than this above the table."""
LIFTED_M = 0.03


class ProgressTracker:
    """Updated once per World.step; `value` is the record since reset."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.value = Progress()
        self.rest_height_m = np.zeros(len(CATALOG))
        """Height of each object's centre where it last lay still, untouched by the robot."""
        self._start_height_m = 0.0
        self._graspable = np.array([i for i, s in enumerate(CATALOG) if not s.is_receptacle])

    def reset(self, start_height_m: float) -> None:
        """Start a new record; `start_height_m` is where the target stands."""
        self.value = Progress()
        self._start_height_m = start_height_m

    def update(self, scene: Scene) -> None:
        """Look at the present state."""
        value, observer = self.value, self._observer
        contacts = observer.finger_contacts()
        for index in self._graspable:
            untouched = scene.objects[index].visible and index not in contacts
            if untouched and observer.speed_m_s(index) < REST_SPEED_M_S:
                self.rest_height_m[index] = observer.position(index)[2]
        touched = [i for i in contacts if not CATALOG[i].is_receptacle]
        held = next((i for i in touched if {0, 1} <= contacts[i]), None)
        grasped = None if held is None else CATALOG[held].name
        first_contacted = value.first_contacted or (CATALOG[touched[0]].name if touched else None)
        first_approached = value.first_approached or self._approached(scene) or first_contacted
        lifted = value.target_lifted
        if held is not None and grasped == scene.task.target and not lifted:
            lifted = bool(observer.position(held)[2] - self._start_height_m > LIFTED_M)
        updated = replace(
            value,
            first_approached=first_approached,
            first_contacted=first_contacted,
            first_grasped=value.first_grasped or grasped,
            grasped=grasped,
            target_lifted=lifted,
        )
        if updated != value:
            self.value = updated

    def _approached(self, scene: Scene) -> str | None:
        _, ee = self._observer.ee()
        if ee[2] > APPROACH_HEIGHT_M:
            return None
        best, best_m = None, APPROACH_RADIUS_M
        for index in self._graspable:
            if scene.objects[index].visible:
                p = self._observer.position(index)
                distance = float(np.hypot(p[0] - ee[0], p[1] - ee[1]))
                if distance < best_m:
                    best, best_m = CATALOG[index].name, distance
        return best
