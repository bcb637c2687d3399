"""Geometry of the catalogue: visual parts (group 2) over simple collision primitives (group 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mujoco
import numpy as np

from instructvla_sim.catalog import CATALOG, ObjectSpec
from instructvla_sim.shapes import Mesh, lathe, lying_lathe, smooth

_G = mujoco.mjtGeom
VISUAL_GROUP, COLLISION_GROUP, HIDDEN_GROUP = 2, 3, 5
PARKED_Z_M = -3.0
RING_PARTS = 14


class _Builder:
    """Adds parts to one object's body. Every part belongs to the body `object/<name>`."""

    def __init__(self, spec: mujoco.MjSpec, item: ObjectSpec, index: int) -> None:
        self.spec, self.item = spec, item
        self.body = spec.worldbody.add_body(name=f"object/{item.name}", pos=[index * 0.3, 0.0, PARKED_Z_M])
        self.body.add_freejoint(name=f"object/{item.name}")
        x, y, z = item.half_m
        inertia = np.maximum(item.mass_kg / 3.0 * np.array([y * y + z * z, x * x + z * z, x * x + y * y]), 4e-6)
        self.body.explicitinertial = True
        self.body.ipos, self.body.iquat = [0, 0, 0], [1, 0, 0, 0]
        self.body.mass = item.mass_kg
        self.body.inertia = inertia
        self._n = 0

    def _name(self, kind: str) -> str:
        self._n += 1
        return f"{self.item.name}/{kind}{self._n}"

    def solid(self, kind: mujoco.mjtGeom, size: Sequence[float], pos=(0, 0, 0), quat=(1, 0, 0, 0), **more) -> None:
        """A collision part."""
        rolling = more.pop("rolling", 0.0)
        self.body.add_geom(
            name=self._name("solid"),
            type=kind,
            size=_three(size),
            pos=pos,
            quat=quat,
            group=COLLISION_GROUP,
            contype=1,
            conaffinity=3,
            condim=6 if rolling else 4,
            friction=[0.9, 0.01, max(rolling, 1e-4)],
            solref=[0.008, 1],
            solimp=[0.95, 0.99, 0.001, 0.5, 2],
            rgba=[0.2, 0.8, 0.2, 0.4],
            mass=0,
            **more,
        )

    def part(self, kind: mujoco.mjtGeom, size: Sequence[float], rgb, pos=(0, 0, 0), quat=(1, 0, 0, 0)) -> None:
        """A drawn part."""
        self.body.add_geom(
            name=self._name("part"),
            type=kind,
            size=_three(size),
            pos=pos,
            quat=quat,
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
            rgba=[*rgb, 1.0],
            mass=0,
        )

    def mesh(self, mesh: Mesh, rgb, material: str = "") -> None:
        """A drawn mesh."""
        name = self._name("mesh")
        added = self.spec.add_mesh(name=name)
        added.uservert = mesh.vertices.astype(np.float32).ravel()
        added.userface = mesh.faces.ravel()
        added.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        self.body.add_geom(
            name=name,
            type=_G.mjGEOM_MESH,
            meshname=name,
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
            rgba=[*rgb, 1.0],
            mass=0,
            **({"material": material} if material else {}),
        )


def _three(size: Sequence[float]) -> list[float]:
    return [*size, 0.0, 0.0, 0.0][:3]


def _cube(b: _Builder) -> None:
    h = b.item.half_m[0]
    b.solid(_G.mjGEOM_BOX, [h, h, h])
    b.part(_G.mjGEOM_BOX, [h, h, h], b.item.rgb)


def _lying_capsules(b: _Builder, stations: list[tuple[float, float]], rolling: float) -> None:
    """Capsules between stations (x, radius), all resting on the same plane as the lying lathe does."""
    bottom = -max(r for _, r in stations)
    for x, r in stations:
        b.solid(_G.mjGEOM_SPHERE, [r], pos=(x, 0, bottom + r), rolling=rolling)
    for (xa, ra), (xb, rb) in pairwise(stations):
        r = min(ra, rb)
        b.solid(
            _G.mjGEOM_CAPSULE,
            [r],
            fromto=[xa, 0, bottom + r, xb, 0, bottom + r],
            rolling=rolling,
        )


def _carrot(b: _Builder) -> None:
    profile = smooth(
        [
            (0.0, -0.052),
            (0.0065, -0.049),
            (0.009, -0.030),
            (0.012, 0.0),
            (0.0148, 0.026),
            (0.0125, 0.035),
            (0.0, 0.037),
        ]
    )
    b.mesh(lying_lathe(profile), b.item.rgb)
    leaf = (0.16, 0.55, 0.10)
    for y, z, x in ((0.0, 0.002, 0.044), (0.006, 0.001, 0.042), (-0.006, 0.001, 0.042)):
        b.part(_G.mjGEOM_ELLIPSOID, [0.012, 0.0035, 0.0035], leaf, pos=(x, y, z))
    _lying_capsules(b, [(-0.043, 0.0075), (-0.004, 0.0115), (0.022, 0.0147)], rolling=0.002)


def _apple(b: _Builder) -> None:
    r = b.item.half_m[0]
    profile = smooth(
        [
            (0.0, -0.90 * r),
            (0.45 * r, -0.98 * r),
            (0.88 * r, -0.5 * r),
            (1.0 * r, 0.15 * r),
            (0.80 * r, 0.75 * r),
            (0.35 * r, 0.93 * r),
            (0.0, 0.70 * r),
        ]
    )
    b.mesh(lathe(profile), b.item.rgb)
    b.part(_G.mjGEOM_CAPSULE, [0.0014, 0.005], (0.30, 0.18, 0.08), pos=(0, 0, 0.95 * r))
    b.part(_G.mjGEOM_ELLIPSOID, [0.008, 0.004, 0.0012], (0.18, 0.55, 0.12), pos=(0.008, 0, 1.1 * r))
    b.solid(_G.mjGEOM_SPHERE, [r], rolling=0.004)


def _lemon(b: _Builder) -> None:
    x, r, _ = b.item.half_m
    profile = smooth(
        [
            (0.0, -x),
            (0.20 * r, -0.96 * x),
            (0.42 * r, -0.82 * x),
            (0.85 * r, -0.45 * x),
            (r, 0.0),
            (0.85 * r, 0.45 * x),
            (0.42 * r, 0.82 * x),
            (0.20 * r, 0.96 * x),
            (0.0, x),
        ]
    )
    upright = lathe(profile, 24)
    b.mesh(Mesh(upright.vertices[:, [2, 0, 1]], upright.faces), b.item.rgb)
    b.solid(_G.mjGEOM_ELLIPSOID, [0.92 * x, r, r], rolling=0.003)


def _can(b: _Builder) -> None:
    r, _, h = b.item.half_m
    b.solid(_G.mjGEOM_CYLINDER, [r, h], rolling=0.001)
    b.part(_G.mjGEOM_CYLINDER, [r, 0.86 * h], b.item.rgb)
    b.part(_G.mjGEOM_CYLINDER, [1.015 * r, 0.30 * h], (0.94, 0.94, 0.95))
    for side in (-1, 1):
        b.part(_G.mjGEOM_CYLINDER, [0.90 * r, 0.07 * h], (0.78, 0.79, 0.80), pos=(0, 0, side * 0.93 * h))
    b.part(_G.mjGEOM_ELLIPSOID, [0.35 * r, 0.2 * r, 0.0008], (0.45, 0.46, 0.48), pos=(0.25 * r, 0, h))


def _sponge(b: _Builder) -> None:
    x, y, z = b.item.half_m
    b.solid(_G.mjGEOM_BOX, [x, y, z])
    b.part(_G.mjGEOM_BOX, [x, y, 0.72 * z], b.item.rgb, pos=(0, 0, 0.28 * z))
    b.part(_G.mjGEOM_BOX, [x, y, 0.28 * z], (0.55, 0.75, 0.10), pos=(0, 0, -0.72 * z))
    rng = np.random.default_rng(3)
    dark = tuple(0.86 * c for c in b.item.rgb)
    for u, v in rng.uniform(-0.85, 0.85, (9, 2)):
        b.part(_G.mjGEOM_ELLIPSOID, [0.0025, 0.002, 0.0006], dark, pos=(u * x, v * y, z))


def _eggplant(b: _Builder) -> None:
    r = b.item.half_m[1]
    profile = smooth(
        [
            (0.0, -0.050),
            (0.010, -0.047),
            (0.0160, -0.034),
            (r, -0.018),
            (0.0160, 0.004),
            (0.0125, 0.022),
            (0.0105, 0.032),
            (0.0, 0.035),
        ]
    )
    b.mesh(lying_lathe(profile), b.item.rgb)
    cap = (0.20, 0.50, 0.13)
    b.part(_G.mjGEOM_ELLIPSOID, [0.009, 0.0112, 0.0112], cap, pos=(0.032, 0, -0.0075))
    b.part(_G.mjGEOM_CAPSULE, [0.0030, 0.008], cap, pos=(0.043, 0, -0.007), quat=(0.7071, 0, 0.7071, 0))
    _lying_capsules(b, [(-0.0345, 0.0152), (-0.017, r), (0.003, 0.0160), (0.023, 0.0125)], rolling=0.002)


def _ring(b: _Builder, radius: float, height: float, z: float, thick: float, tilt: float) -> None:
    """A wall of boxes around z whose tops lean outwards by `tilt`; radius is measured at the
    wall's middle."""
    half_chord = radius * np.tan(np.pi / RING_PARTS) * 1.12
    for a in 2 * np.pi * np.arange(RING_PARTS) / RING_PARTS:
        yaw, pitch = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(yaw, np.array([0.0, 0, 1]), a)
        mujoco.mju_axisAngle2Quat(pitch, np.array([0.0, 1, 0]), tilt)
        quat = np.zeros(4)
        mujoco.mju_mulQuat(quat, yaw, pitch)
        b.solid(
            _G.mjGEOM_BOX,
            [thick, half_chord, height],
            pos=(radius * np.cos(a), radius * np.sin(a), z),
            quat=quat,
        )


def _plate(b: _Builder) -> None:
    r, z = b.item.half_m[0], b.item.half_m[2]
    b.mesh(
        lathe(
            [
                (0, -z),
                (0.60 * r, -z),
                (0.70 * r, -z),
                (r, 0.75 * z),
                (r, z),
                (0.97 * r, z),
                (0.72 * r, 0.0),
                (0.66 * r, -0.05 * z),
                (0, -0.05 * z),
            ],
            40,
        ),
        b.item.rgb,
    )
    b.mesh(
        lathe(
            [
                (0.955 * r, 0.98 * z),
                (1.004 * r, 0.9 * z),
                (1.0 * r, 1.06 * z),
                (0.955 * r, 1.06 * z),
                (0.955 * r, 0.9 * z),
            ],
            40,
        ),
        (0.25, 0.38, 0.62),
    )
    b.solid(_G.mjGEOM_CYLINDER, [0.80 * r, z / 2], pos=(0, 0, -z / 2))
    _ring(b, 0.89 * r, 0.0075, 0.0, 0.0015, 1.10)


def _bowl(b: _Builder) -> None:
    r, z = b.item.half_m[0], b.item.half_m[2]
    outside = smooth([(0.55 * r, -z), (0.72 * r, -0.55 * z), (0.90 * r, 0.2 * z), (r, z)])
    inside = smooth([(0.955 * r, z), (0.85 * r, 0.2 * z), (0.68 * r, -0.45 * z), (0.5 * r, -0.74 * z)])
    b.mesh(lathe([(0, -z), *outside, *inside, (0, -0.74 * z)], 40), b.item.rgb)
    b.solid(_G.mjGEOM_CYLINDER, [0.70 * r, 0.13 * z], pos=(0, 0, -0.87 * z))
    _ring(b, 0.83 * r, 0.96 * z, 0.03 * z, 0.002, 0.44)


def _basket(b: _Builder) -> None:
    x, y, z = b.item.half_m
    t = 0.003
    light, dark = b.item.rgb, tuple(0.72 * c for c in b.item.rgb)
    b.solid(_G.mjGEOM_BOX, [x, y, 0.0025], pos=(0, 0, -z + 0.0025))
    b.part(_G.mjGEOM_BOX, [x, y, 0.0025], dark, pos=(0, 0, -z + 0.0025))
    for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        size = [t, y, z] if sx else [x, t, z]
        pos = (sx * (x - t), sy * (y - t), 0)
        b.solid(_G.mjGEOM_BOX, size, pos=pos)
        for k in range(4):
            shade = light if k % 2 else dark
            bulge = 0.0012 if k % 2 else 0.0
            strip = [t + bulge if sx else x + bulge, y + bulge if sx else t + bulge, z / 4]
            b.part(_G.mjGEOM_BOX, strip, shade, pos=(pos[0], pos[1], -z + (2 * k + 1) * z / 4))


def _cloth(b: _Builder) -> None:
    x, y, z = b.item.half_m
    b.solid(_G.mjGEOM_BOX, [x, y, z])
    b.part(_G.mjGEOM_BOX, [x, y, z], b.item.rgb)
    pale = tuple(0.45 * c + 0.55 for c in b.item.rgb)
    for u in (-0.72, -0.24, 0.24, 0.72):
        b.part(_G.mjGEOM_BOX, [0.11 * x, y, 0.0002], pale, pos=(u * x, 0, z))
        b.part(_G.mjGEOM_BOX, [x, 0.11 * y, 0.0003], pale, pos=(0, u * y, z))


_MAKERS = {
    "cube": _cube,
    "carrot": _carrot,
    "apple": _apple,
    "lemon": _lemon,
    "can": _can,
    "sponge": _sponge,
    "eggplant": _eggplant,
    "plate": _plate,
    "bowl": _bowl,
    "basket": _basket,
    "cloth": _cloth,
}


def add_objects(spec: mujoco.MjSpec) -> None:
    """Add every object of the catalogue to the model, parked below the table."""
    for index, item in enumerate(CATALOG):
        builder = _Builder(spec, item, index)
        _MAKERS["cube" if item.category == "cube" else item.name](builder)
