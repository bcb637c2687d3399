"""The lab bench: table, its surfaces, backdrop, lights and the third-person camera."""

from __future__ import annotations

import mujoco
import numpy as np

_G = mujoco.mjtGeom
PRIMARY_LOOK_AT_M = np.array([0.268, 0.0, 0.012])
PRIMARY_DISTANCE_M = 0.64
PRIMARY_ELEVATION_RAD = np.radians(56.0)
PRIMARY_AZIMUTH_RAD = np.radians(0.0)
PRIMARY_FOVY_DEG = 33.0
TABLE_MATERIALS = ("oak", "birch", "grey mat", "slate", "breadboard", "laminate")


def _noise(rng: np.random.Generator, size: int, scale: int) -> np.ndarray:
    """Smooth periodic noise in −1..1, `scale` cells across."""
    coarse = rng.uniform(-1, 1, (scale, scale))
    at = np.arange(size) * scale / size
    low = at.astype(int)
    f = at - low
    f = f * f * (3 - 2 * f)
    rows = coarse[low] * (1 - f)[:, None] + coarse[(low + 1) % scale] * f[:, None]
    return rows[:, low] * (1 - f) + rows[:, (low + 1) % scale] * f


def _surface(name: str, size: int = 256) -> np.ndarray:
    """One table surface as (size, size, 3) uint8."""
    rng = np.random.default_rng(TABLE_MATERIALS.index(name))
    y, x = np.mgrid[0:size, 0:size] / size
    fine = _noise(rng, size, 64)
    if name in ("oak", "birch"):
        base = np.array([0.66, 0.50, 0.34] if name == "oak" else [0.80, 0.70, 0.55])
        plank = (y * 4).astype(int)
        grain = np.sin(60 * (y + 0.02 * _noise(rng, size, 4) + 0.004 * _noise(rng, size, 16)) * 2 * np.pi / 4)
        shade = 1 + 0.035 * grain + 0.03 * fine + 0.05 * np.sin(plank * 12.9898)
        shade *= np.where((y * 4) % 1 < 0.02, 0.8, 1.0)
    elif name == "breadboard":
        base = np.array([0.55, 0.57, 0.60])
        hole = np.hypot((x * 16) % 1 - 0.5, (y * 16) % 1 - 0.5) < 0.14
        shade = np.where(hole, 0.45, 1 + 0.03 * fine)
    elif name == "laminate":
        base = np.array([0.78, 0.77, 0.73])
        shade = 1 + 0.05 * fine + 0.03 * _noise(rng, size, 128)
    else:
        base = np.array([0.50, 0.52, 0.52] if name == "grey mat" else [0.33, 0.37, 0.42])
        shade = 1 + 0.05 * fine
        if name == "grey mat":
            shade *= np.where((np.minimum((x * 8) % 1, (y * 8) % 1)) < 0.02, 1.12, 1.0)
    return np.clip(base * shade[..., None] * 255, 0, 255).astype(np.uint8)


def primary_pose(
    look_at_m: np.ndarray = PRIMARY_LOOK_AT_M,
    distance_m: float = PRIMARY_DISTANCE_M,
    elevation_rad: float = PRIMARY_ELEVATION_RAD,
    azimuth_rad: float = PRIMARY_AZIMUTH_RAD,
    roll_rad: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and quaternion wxyz (4,) of a camera that looks at the workspace from the front, towards
    the robot."""
    back = np.array(
        [
            np.cos(elevation_rad) * np.cos(azimuth_rad),
            np.cos(elevation_rad) * np.sin(azimuth_rad),
            np.sin(elevation_rad),
        ]
    )
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    right, up = (
        np.cos(roll_rad) * right + np.sin(roll_rad) * up,
        np.cos(roll_rad) * up - np.sin(roll_rad) * right,
    )
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([right, up, back]).ravel())
    return look_at_m + distance_m * back, quat


def add_bench(spec: mujoco.MjSpec) -> None:
    """Add table (top at z = 0), floor, backdrop, lights and the camera 'primary'."""
    for name in TABLE_MATERIALS:
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256, nchannel=3)
        texture.data = _surface(name).tobytes()
        material = spec.add_material(
            name=f"table/{name}", texrepeat=[3, 3], texuniform=False, specular=0.15, shininess=0.2
        )
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=_G.mjGEOM_BOX,
        size=[0.55, 0.65, 0.02],
        pos=[0.25, 0, -0.02],
        material=f"table/{TABLE_MATERIALS[0]}",
        group=2,
        contype=1,
        conaffinity=3,
        condim=4,
        friction=[0.9, 0.01, 0.0001],
        solref=[0.008, 1],
        solimp=[0.95, 0.99, 0.001, 0.5, 2],
    )
    world.add_geom(
        name="floor",
        type=_G.mjGEOM_PLANE,
        size=[3, 3, 0.1],
        pos=[0, 0, -0.8],
        rgba=[0.42, 0.43, 0.45, 1],
        group=2,
        contype=0,
        conaffinity=0,
    )
    world.add_geom(
        name="backdrop",
        type=_G.mjGEOM_BOX,
        size=[0.01, 1.5, 1.0],
        pos=[-0.9, 0, 0.2],
        rgba=[0.75, 0.77, 0.78, 1],
        group=2,
        contype=0,
        conaffinity=0,
    )
    world.add_light(
        name="lamp",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.6, 0.4, 1.4],
        dir=[-0.3, -0.3, -0.9],
        diffuse=[0.55, 0.55, 0.53],
        specular=[0.25, 0.25, 0.25],
        castshadow=True,
    )
    pos, quat = primary_pose()
    world.add_camera(name="primary", pos=pos, quat=quat, fovy=PRIMARY_FOVY_DEG)
    spec.visual.headlight.ambient = [0.42, 0.42, 0.42]
    spec.visual.headlight.diffuse = [0.18, 0.18, 0.18]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 30
