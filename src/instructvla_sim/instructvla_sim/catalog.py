"""The objects on the bench: what they are called, how big they are, how they are grasped. Geometry:
objects.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Support = Literal["none", "on", "in"]


@dataclass(frozen=True)
class ObjectSpec:
    """One object. The body origin is its centre; `half_m` its bounding box; lengths in metres,
    masses in kg."""

    name: str
    category: str
    color: str
    shape: str
    rgb: tuple[float, float, float]
    half_m: tuple[float, float, float]
    mass_kg: float
    yaw_period_rad: float = 0.0
    """Symmetry of the grasp about the vertical: pi for long things, pi/2 for cubes, 0 for round ones."""
    yaw_range_rad: float = 0.0
    """Headings at reset are drawn from ±this."""
    grasp_dz_m: float = 0.0
    """Height of ee_gripper_link above the object's centre when grasping it as it stands at reset."""
    along_m: float = 0.012
    """How far off, along the fingers' width, a grasp still holds it."""
    support: Support = "none"
    """For receptacles: things are put `on` it or `in` it."""
    inner_radius_m: float = 0.0
    """How far from its centre a thing put there may rest."""
    floor_m: float = 0.0
    """Height of the supporting surface above the table."""
    rim_m: float = 0.0
    """Height of the highest edge above the table."""

    @property
    def is_receptacle(self) -> bool:
        """Whether things are put on or in it (it is then never grasped)."""
        return self.support != "none"

    @property
    def footprint_m(self) -> float:
        """Radius of the circle around its footprint."""
        x, y, _ = self.half_m
        if self.shape in ("sphere", "cylinder", "disc", "bowl"):
            return max(x, y)
        return (x * x + y * y) ** 0.5


_QUARTER, _HALF = 1.5707963267948966, 3.141592653589793


def _cube(color: str, rgb: tuple[float, float, float]) -> ObjectSpec:
    h = CUBE_HALF_M
    return ObjectSpec(f"{color} cube", "cube", color, "cube", rgb, (h, h, h), 0.032, _QUARTER, 0.6, 0.003)


CUBE_HALF_M = 0.0165

CATALOG: tuple[ObjectSpec, ...] = (
    _cube("red", (0.82, 0.08, 0.07)),
    _cube("green", (0.08, 0.55, 0.16)),
    _cube("blue", (0.08, 0.20, 0.75)),
    _cube("yellow", (0.96, 0.80, 0.06)),
    ObjectSpec(
        "carrot",
        "vegetable",
        "orange",
        "cone",
        (0.98, 0.45, 0.04),
        (0.052, 0.015, 0.015),
        0.035,
        _HALF,
        1.2,
        0.006,
        0.016,
    ),
    ObjectSpec("apple", "fruit", "red", "sphere", (0.75, 0.05, 0.07), (0.0198, 0.0198, 0.0198), 0.05, 0.0, 3.0, 0.001),
    ObjectSpec(
        "lemon",
        "fruit",
        "yellow",
        "ellipsoid",
        (0.98, 0.88, 0.15),
        (0.028, 0.0183, 0.0183),
        0.04,
        _HALF,
        1.2,
        0.002,
        0.013,
    ),
    ObjectSpec("can", "can", "blue", "cylinder", (0.10, 0.30, 0.70), (0.0175, 0.0175, 0.030), 0.06, 0.0, 3.0, 0.014),
    ObjectSpec(
        "sponge",
        "sponge",
        "pink",
        "box",
        (0.95, 0.45, 0.62),
        (0.034, 0.017, 0.0135),
        0.02,
        _HALF,
        1.2,
        0.0065,
        0.016,
    ),
    ObjectSpec(
        "eggplant",
        "vegetable",
        "purple",
        "ellipsoid",
        (0.27, 0.07, 0.33),
        (0.050, 0.0178, 0.0178),
        0.05,
        _HALF,
        1.2,
        0.002,
        0.016,
    ),
    ObjectSpec(
        "plate",
        "dish",
        "white",
        "disc",
        (0.93, 0.93, 0.92),
        (0.066, 0.066, 0.006),
        0.30,
        support="on",
        inner_radius_m=0.055,
        floor_m=0.006,
        rim_m=0.012,
    ),
    ObjectSpec(
        "bowl",
        "dish",
        "turquoise",
        "bowl",
        (0.10, 0.66, 0.66),
        (0.063, 0.063, 0.019),
        0.30,
        support="in",
        inner_radius_m=0.045,
        floor_m=0.005,
        rim_m=0.038,
    ),
    ObjectSpec(
        "basket",
        "basket",
        "brown",
        "box",
        (0.60, 0.38, 0.18),
        (0.062, 0.056, 0.021),
        0.30,
        _HALF,
        0.3,
        support="in",
        inner_radius_m=0.048,
        floor_m=0.005,
        rim_m=0.042,
    ),
    ObjectSpec(
        "cloth",
        "cloth",
        "violet",
        "square",
        (0.62, 0.50, 0.85),
        (0.060, 0.060, 0.0015),
        0.15,
        _QUARTER,
        0.5,
        support="on",
        inner_radius_m=0.055,
        floor_m=0.003,
        rim_m=0.003,
    ),
)

NAMES: tuple[str, ...] = tuple(spec.name for spec in CATALOG)
GRASPABLE: tuple[str, ...] = tuple(spec.name for spec in CATALOG if not spec.is_receptacle)
RECEPTACLES: tuple[str, ...] = tuple(spec.name for spec in CATALOG if spec.is_receptacle)
CUBES: tuple[str, ...] = tuple(spec.name for spec in CATALOG if spec.category == "cube")
INDEX: dict[str, int] = {spec.name: i for i, spec in enumerate(CATALOG)}


def spec_of(name: str) -> ObjectSpec:
    """The named object's specification. KeyError names the known ones."""
    if name not in INDEX:
        raise KeyError(f"no object {name!r} on the bench, expected one of {NAMES}.")
    return CATALOG[INDEX[name]]
