"""Typed values that cross the boundary of the simulation. Metres, radians, seconds.

Positions are in the bench frame: the base frame of a WidowX, z = 0 is the table top. The base frame of any other robot
has its axes parallel to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Family = Literal["pick", "place", "near", "stack"]
FAMILIES: tuple[Family, ...] = ("pick", "place", "near", "stack")
CAMERAS: tuple[str, ...] = ("primary", "wrist")


@dataclass(frozen=True)
class RenderSpec:
    """Size and quality of rendered images. The view (framing) is the same for every size of the
    same aspect."""

    width: int = 640
    height: int = 480
    shadows: bool = False
    samples: int = 4
    """Multisampling; 0 is the fastest and shows jagged edges."""

    def __post_init__(self) -> None:
        if not (8 <= self.width <= 1920 and 8 <= self.height <= 1080):
            raise ValueError(f"RenderSpec is {self.width}x{self.height}, expected width 8..1920 and height 8..1080.")


@dataclass(frozen=True)
class WorldConfig:
    """What may vary between episodes, and by how much."""

    robot: str = "wx250s"
    """Which robot stands on the bench: wx250s, fr3 or panda."""
    timestep_s: float = 0.0025
    jitter: bool = True
    """Jitter camera poses, light, table and shades per episode."""
    camera_jitter_m: float = 0.010
    shade_jitter: float = 0.07
    max_distractors: int = 4
    min_distractors: int = 1

    def __post_init__(self) -> None:
        if not 0.0005 <= self.timestep_s <= 0.005:
            raise ValueError(f"timestep_s is {self.timestep_s}, expected 0.0005..0.005 s: grasps are unstable above.")
        if not 0 <= self.min_distractors <= self.max_distractors <= 5:
            raise ValueError(
                f"distractors {self.min_distractors}..{self.max_distractors}, expected 0 <= min <= max <= 5."
            )


@dataclass(frozen=True)
class ObjectState:
    """One object of the catalogue as it is now. `yaw_rad` is the heading of its long axis (or of a cube's
    face)."""

    name: str
    category: str
    color: str
    shape: str
    is_receptacle: bool
    position_m: tuple[float, float, float]
    yaw_rad: float
    visible: bool


@dataclass(frozen=True)
class Task:
    """What to do: pick `target`; place `target` on or in `place`; move it near `place`; stack it
    on `place`."""

    family: Family
    target: str
    place: str | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"task family is {self.family!r}, expected one of {FAMILIES}.")
        if (self.place is None) != (self.family == "pick"):
            raise ValueError(f"task {self.family!r} with place {self.place!r}: every family but 'pick' needs a place.")
        if self.place == self.target:
            raise ValueError(f"task target and place are both {self.target!r}: choose two objects.")


@dataclass(frozen=True)
class Scene:
    """All objects in the order of the catalogue (absent ones have visible=False), and the task."""

    objects: tuple[ObjectState, ...]
    task: Task
    seed: int

    def object(self, name: str) -> ObjectState:
        """The named object. KeyError names the known ones."""
        for item in self.objects:
            if item.name == name:
                return item
        raise KeyError(f"no object {name!r}, expected one of {[o.name for o in self.objects]}.")


@dataclass(frozen=True)
class Progress:
    """What has happened since reset(): the binding of words to objects shows in `first_approached`."""

    first_approached: str | None = None
    """First graspable object that the gripper came down to (see progress.py)."""
    first_contacted: str | None = None
    first_grasped: str | None = None
    grasped: str | None = None
    """The object held between both fingers now."""
    target_lifted: bool = False
    """The target was held 3 cm or more above where it stood, at least once."""
    success_ever: bool = False


@dataclass(frozen=True)
class CameraInfo:
    """Pinhole model without distortion. `T_base_optical`: z forward, x right, y down (4, 4)."""

    name: str
    width: int
    height: int
    k: np.ndarray
    T_base_optical: np.ndarray


@dataclass(frozen=True)
class Ids:
    """Indices into the compiled model. Object arrays are in catalogue order."""

    arm_qpos: np.ndarray
    arm_dof: np.ndarray
    finger_qpos: np.ndarray
    finger_dof: np.ndarray
    arm_actuator: np.ndarray
    finger_actuator: np.ndarray
    ee_site: int
    object_body: np.ndarray
    object_qpos: np.ndarray
    object_dof: np.ndarray
    object_of_geom: np.ndarray
    """(ngeom,) catalogue index of each geom's object, −1 for robot and bench."""
    finger_of_geom: np.ndarray
    """(ngeom,) 0 left, 1 right, 2 the rest of the robot, −1 others."""
    visual_geoms: tuple[np.ndarray, ...]
    table_geom: int
