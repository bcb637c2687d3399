"""Cameras of the world, in software when there is no GPU."""

from __future__ import annotations

import mujoco
import numpy as np

from instructvla_sim.gl import render_error
from instructvla_sim.offscreen import OffscreenRenderer
from instructvla_sim.types import CAMERAS, CameraInfo, Ids, RenderSpec


class CameraRenderer:
    """Renders the cameras of one model. The OpenGL context opens at the first image and belongs to that
    thread."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, ids: Ids, spec: RenderSpec) -> None:
        self._model, self._data, self._ids, self._spec = model, data, ids, spec
        self._renderer: OffscreenRenderer | None = None

    def _open(self) -> OffscreenRenderer:
        if self._renderer is None:
            try:
                self._renderer = OffscreenRenderer(self._model, self._spec.height, self._spec.width)
            except Exception as error:  # each GL binding raises its own type
                raise render_error(error) from error
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(self._spec.shadows)
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
            flags[mujoco.mjtRndFlag.mjRND_HAZE] = 0
        return self._renderer

    def rgb(self, camera: str) -> np.ndarray:
        """(H, W, 3) uint8."""
        renderer = self._open()
        renderer.update_scene(self._data, _known(camera))
        return renderer.render()

    def segment(self, camera: str) -> np.ndarray:
        """(H, W) int32 catalogue index, −1 elsewhere."""
        renderer = self._open()
        renderer.enable_segmentation_rendering()
        try:
            renderer.update_scene(self._data, _known(camera))
            seen = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = seen[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
        geom = np.where(is_geom, seen[..., 0], 0)
        return np.where(is_geom, self._ids.object_of_geom[geom], -1).astype(np.int32)

    def info(self, camera: str) -> CameraInfo:
        """Pinhole parameters for the rendered size."""
        index = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, _known(camera))
        width, height = self._spec.width, self._spec.height
        focal = 0.5 * height / np.tan(0.5 * np.radians(self._model.cam_fovy[index]))
        k = np.array([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1.0]])
        mujoco.mj_camlight(self._model, self._data)
        pose = np.eye(4)
        pose[:3, :3] = self._data.cam_xmat[index].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
        pose[:3, 3] = self._data.cam_xpos[index]
        return CameraInfo(camera, width, height, k, pose)

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _known(camera: str) -> str:
    if camera not in CAMERAS:
        raise ValueError(f"camera {camera!r}, expected one of {CAMERAS}.")
    return camera
