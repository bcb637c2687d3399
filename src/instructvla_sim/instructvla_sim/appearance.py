"""What changes to the eye from episode to episode: camera pose, lamp, table surface, shades."""

from __future__ import annotations

import mujoco
import numpy as np

from instructvla_sim import bench
from instructvla_sim.catalog import CATALOG
from instructvla_sim.objects import HIDDEN_GROUP, VISUAL_GROUP
from instructvla_sim.robots import RobotSpec
from instructvla_sim.types import Ids, WorldConfig

_FIELDS = (
    "geom_rgba",
    "geom_group",
    "geom_matid",
    "mat_rgba",
    "cam_pos",
    "cam_quat",
    "cam_fovy",
    "light_dir",
    "light_diffuse",
)


class Appearance:
    """Applies jitter to a model, always starting from the compiled values, so that it depends on the draw
    alone."""

    def __init__(self, model: mujoco.MjModel, ids: Ids, robot: RobotSpec) -> None:
        self._model, self._ids = model, ids
        self._original = self.state()
        self._surfaces = [
            mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_MATERIAL, f"table/{name}") for name in bench.TABLE_MATERIALS
        ]
        self._cam = {n: mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, n) for n in ("primary", "wrist")}
        self._lamp = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_LIGHT, "lamp")
        self._tinted = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_MATERIAL, robot.tinted)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of every field that apply() may change."""
        return {name: getattr(self._model, name).copy() for name in _FIELDS} | {
            "headlight": self._model.vis.headlight.ambient.copy()
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Inverse of state()."""
        for name in _FIELDS:
            getattr(self._model, name)[:] = state[name]
        self._model.vis.headlight.ambient[:] = state["headlight"]

    def show(self, visible: np.ndarray) -> None:
        """Draw only the visible objects ((n_objects,) bool, catalogue order)."""
        for index, geoms in enumerate(self._ids.visual_geoms):
            self._model.geom_group[geoms] = VISUAL_GROUP if visible[index] else HIDDEN_GROUP

    def apply(self, rng: np.random.Generator, config: WorldConfig) -> None:
        """Draw a new look. With config.jitter off, the compiled look is restored."""
        self.set_state(self._original)
        model, ids = self._model, self._ids
        draws = rng.random(8)
        normal = rng.normal(size=16)
        shades = rng.uniform(-1, 1, (len(CATALOG), 4))
        if not config.jitter:
            return
        self._camera(np.clip(normal, -2, 2), config.camera_jitter_m)
        surface = self._surfaces[int(draws[0] * len(self._surfaces))]
        model.geom_matid[ids.table_geom] = surface
        model.mat_rgba[surface, :3] = np.clip(0.90 + 0.20 * draws[1] + 0.04 * (draws[2:5] - 0.5), 0, 1.1)
        model.mat_rgba[self._tinted, :3] *= 0.9 + 0.5 * draws[5]
        for index in range(len(CATALOG)):
            geoms = ids.visual_geoms[index]
            scale = 1 + config.shade_jitter * (shades[index, 3] + 0.4 * shades[index, :3])
            model.geom_rgba[geoms, :3] = np.clip(model.geom_rgba[geoms, :3] * scale, 0, 1)
        light = model.light_dir[self._lamp] + 0.22 * np.clip(normal[8:11], -1.5, 1.5)
        model.light_dir[self._lamp] = light / np.linalg.norm(light)
        model.light_diffuse[self._lamp] *= 0.85 + 0.35 * draws[6] + 0.04 * np.clip(normal[11:14], -1, 1)
        model.vis.headlight.ambient[:] = self._original["headlight"] * (0.85 + 0.3 * draws[7])

    def _camera(self, normal: np.ndarray, spread_m: float) -> None:
        model, angle = self._model, spread_m / bench.PRIMARY_DISTANCE_M
        pos, quat = bench.primary_pose(
            look_at_m=bench.PRIMARY_LOOK_AT_M + 0.5 * spread_m * np.array([normal[0], normal[1], 0.0]),
            distance_m=bench.PRIMARY_DISTANCE_M + 0.8 * spread_m * normal[2],
            elevation_rad=bench.PRIMARY_ELEVATION_RAD + 1.2 * angle * normal[3],
            azimuth_rad=bench.PRIMARY_AZIMUTH_RAD + 1.5 * angle * normal[4],
            roll_rad=0.6 * angle * normal[5],
        )
        primary, wrist = self._cam["primary"], self._cam["wrist"]
        model.cam_pos[primary], model.cam_quat[primary] = pos, quat
        model.cam_fovy[primary] += 0.25 * normal[6]
        model.cam_pos[wrist] += 0.15 * spread_m * normal[[7, 14, 15]]
