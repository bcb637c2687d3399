"""What the gripper did so far: which object it went for first, touched, grasped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instructvla_sim.catalog import CATALOG, INDEX
from instructvla_sim.observe import Observer
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
        held = next((i for i, p in contacts.items() if {0, 1} <= p and not CATALOG[i].is_receptacle), None)
        name = None if held is None else CATALOG[held].name
        changes: dict[str, object] = {}
        if name != value.grasped:
            changes["grasped"] = name
        if name is not None and value.first_grasped is None:
            changes["first_grasped"] = name
        if value.first_contacted is None and contacts:
            touched = [i for i in contacts if not CATALOG[i].is_receptacle]
            if touched:
                changes["first_contacted"] = CATALOG[touched[0]].name
        if value.first_approached is None:
            near = self._approached(scene)
            near = changes.get("first_contacted") if near is None else near
            if near is not None:
                changes["first_approached"] = near
        if name == scene.task.target and not value.target_lifted:
            rise_m = observer.position(INDEX[name])[2] - self._start_height_m
            changes |= {"target_lifted": True} if rise_m > LIFTED_M else {}
        if changes:
            self.value = replace(value, **changes)

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
