"""Small meshes made from profiles: bodies of revolution and walls, for things that no MuJoCo primitive looks
like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """Triangle mesh: vertices (V, 3) in metres, faces (F, 3) counter-clockwise from outside."""

    vertices: np.ndarray
    faces: np.ndarray


def lathe(profile: list[tuple[float, float]], slices: int = 28) -> Mesh:
    """Turn a profile [(radius, height)…] around z. From bottom to top gives outward faces; radius 0 closes
    an end."""
    radii = np.array([p[0] for p in profile])
    heights = np.array([p[1] for p in profile])
    angle = np.linspace(0.0, 2.0 * np.pi, slices, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices = np.concatenate(
        [np.column_stack([ring * max(r, 1e-5), np.full(slices, h)]) for r, h in zip(radii, heights, strict=True)]
    )
    faces = []
    here = np.arange(slices)
    there = (here + 1) % slices
    for level in range(len(profile) - 1):
        low, high = level * slices, (level + 1) * slices
        faces.append(np.column_stack([low + here, low + there, high + there]))
        faces.append(np.column_stack([low + here, high + there, high + here]))
    return Mesh(vertices, np.concatenate(faces).astype(np.int32))


def lying_lathe(profile: list[tuple[float, float]], slices: int = 24) -> Mesh:
    """A lathe laid along +x whose underside is straight: every cross-section touches the plane z = -max
    radius."""
    upright = lathe(profile, slices)
    radius = np.repeat([max(p[0], 1e-5) for p in profile], slices)
    x, y, z = upright.vertices[:, 2], upright.vertices[:, 0], upright.vertices[:, 1]
    sunk = z - (max(p[0] for p in profile) - radius)
    return Mesh(np.column_stack([x, y, sunk]), upright.faces)


def smooth(points: list[tuple[float, float]], steps: int = 4) -> list[tuple[float, float]]:
    """Refine a profile with a Catmull-Rom spline; radii stay >= 0."""
    p = np.array([points[0], *points, points[-1]], dtype=float)
    out = []
    for i in range(1, len(p) - 2):
        for t in np.linspace(0.0, 1.0, steps, endpoint=False):
            a, b, c, d = p[i - 1], p[i], p[i + 1], p[i + 2]
            q = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            out.append((max(float(q[0]), 0.0), float(q[1])))
    out.append((float(p[-2][0]), float(p[-2][1])))
    return out
