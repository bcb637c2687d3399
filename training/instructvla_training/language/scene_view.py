"""What the language side knows about a scene: plain frozen records, free of any simulator type.

The simulator's ground truth is copied into these records once per frame; every sentence, answer and
check is then a pure function of them. All positions are metres in the robot's base frame:
x forward (away from the robot), y to the robot's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from instructvla_sim.catalog import CUBES, GRASPABLE, spec_of
from instructvla_sim.catalog import NAMES as OBJECT_NAMES
from instructvla_sim.catalog import RECEPTACLES as RECEPTACLES

CUBE_COLORS = tuple(name.removesuffix(" cube") for name in CUBES)
FAMILIES = ("pick", "place", "near", "stack")


@dataclass(frozen=True)
class ObjectView:
    """One object on the table.

    Args:
        name: one of `OBJECT_NAMES`; names are unique within a scene.
        category: the simulator's class word, for example "cube" or "fruit".
        color: colour words as an observer would say them; several are separated by "/", for example
            "blue/white".
        shape: the simulator's shape word, for example "box".
        is_receptacle: True for plate, bowl, basket and cloth.
        position_m: (x, y) in the base frame, metres.
        visible: False for an object that is not in this scene or is out of the camera's view.
    """

    name: str
    category: str
    color: str
    shape: str
    is_receptacle: bool
    position_m: tuple[float, float]
    visible: bool = True

    @cached_property
    def colors(self) -> frozenset[str]:
        """The single colour words of `color`."""
        return frozenset(word.strip() for word in self.color.replace(" and ", "/").split("/") if word.strip())


@dataclass(frozen=True)
class TaskView:
    """What is to be done: `family` of `FAMILIES`, the object `target`, and `place` (None for "pick")."""

    family: str
    target: str
    place: str | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown task family {self.family!r}: expected one of {FAMILIES}")
        if self.target not in GRASPABLE:
            raise ValueError(f"unknown target {self.target!r}: expected one of {GRASPABLE}")
        if (self.place is None) != (self.family == "pick"):
            raise ValueError(
                f"task {self.family!r} came with place {self.place!r}: every family but 'pick' needs one"
            )
        if self.place is not None and (self.place not in OBJECT_NAMES or self.place == self.target):
            raise ValueError(f"unusable place {self.place!r} for {self.target!r}: name another known object")


@dataclass(frozen=True)
class SceneView:
    """The objects of one frame, the task of its episode and the name of the object in the gripper."""

    objects: tuple[ObjectView, ...]
    task: TaskView
    held: str | None = None

    def __post_init__(self) -> None:
        names = [item.name for item in self.objects]
        if len(set(names)) != len(names):
            raise ValueError(f"object names repeat in a scene: {names}; each name may occur once")
        unknown = sorted(set(names) - set(OBJECT_NAMES))
        if unknown:
            raise ValueError(f"unknown objects {unknown}: expected names from {OBJECT_NAMES}")

    @cached_property
    def visible(self) -> tuple[ObjectView, ...]:
        """The visible objects in the fixed order of `OBJECT_NAMES`."""
        seen = [item for item in self.objects if item.visible]
        return tuple(sorted(seen, key=lambda item: OBJECT_NAMES.index(item.name)))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the visible objects."""
        return frozenset(item.name for item in self.visible)

    @cached_property
    def on_table(self) -> tuple[ObjectView, ...]:
        """The visible objects that are not in the gripper."""
        return tuple(item for item in self.visible if item.name != self.held)

    def find(self, name: str) -> ObjectView | None:
        """The visible object of that name, or None."""
        for item in self.visible:
            if item.name == name:
                return item
        return None


def is_cube(name: str) -> bool:
    """True for the four coloured cubes."""
    return name.endswith(" cube")


def preposition(place: str) -> str:
    """ "in" for containers (bowl, basket), else "on"."""
    return "in" if spec_of(place).support == "in" else "on"
