"""The simulated bench: reset to a random scene and task, step, look, fork, judge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from instructvla_sim import sampling, start_pose
from instructvla_sim.appearance import Appearance
from instructvla_sim.catalog import CATALOG, INDEX, NAMES
from instructvla_sim.model import build_model
from instructvla_sim.objects import PARKED_Z_M
from instructvla_sim.observe import Observer
from instructvla_sim.progress import ProgressTracker
from instructvla_sim.renderer import CameraRenderer
from instructvla_sim.robots import robot_spec
from instructvla_sim.success import succeeded
from instructvla_sim.types import CameraInfo, ObjectState, Progress, RenderSpec, Scene, Task, WorldConfig

_log = logging.getLogger(__name__)
_SERVO_STEPS = 2
"""Physics steps per update of the servos' set-points."""
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class Snapshot:
    """A fork of a world, made by World.snapshot()."""

    physics: np.ndarray
    arm: dict[str, Any]
    look: dict[str, np.ndarray]
    scene: Scene
    progress: Progress
    visible: np.ndarray
    start_height_m: float
    rest_height_m: np.ndarray
    debt_s: float


class World:
    """One MuJoCo model with the robot, the bench and all objects. Not thread-safe; time is simulated.

    Rendering opens an OpenGL context in the thread that first calls render(): keep rendering in that thread.
    """

    def __init__(self, render: RenderSpec | None = None, config: WorldConfig | None = None) -> None:
        self.render_spec, self.config = render or RenderSpec(), config or WorldConfig()
        self.robot = robot_spec(self.config.robot)
        self.model, self._ids = build_model(self.config.timestep_s, self.render_spec, self.robot)
        self.data = mujoco.MjData(self.model)
        self.observer = Observer(self.model, self.data, self._ids)
        self._look = Appearance(self.model, self._ids, self.robot)
        self._renderer = CameraRenderer(self.model, self.data, self._ids, self.render_spec)
        self._tracker = ProgressTracker(self.observer)
        self._arm = self.robot.drive(self.model, self.data, self._ids)
        self._visible = np.zeros(len(CATALOG), dtype=bool)
        self._debt_s = 0.0
        self._start_height_m = 0.0
        self._scene: Scene | None = None
        self.reset(0)

    # Scene.
    def reset(
        self,
        seed: int,
        families: Sequence[str] | None = None,
        n_distractors: int | None = None,
        *,
        task: Task | None = None,
    ) -> Scene:
        """A random scene and task, a function of the arguments alone. `task` fixes the task instead of
        drawing it.

        The arm is placed, gripper down and open, at a random start pose beside or above the workspace.
        """
        rng = np.random.default_rng([int(seed) & 0xFFFFFFFF, 0x1A7E])
        task = task or sampling.sample_task(rng, families)
        names = sampling.sample_names(rng, task, self.config, n_distractors)
        layout = sampling.sample_layout(rng, names, task)
        return self.set_scene(layout, task, seed=seed, rng=rng)

    def set_scene(
        self,
        layout: Sequence[sampling.Placement],
        task: Task,
        *,
        seed: int = 0,
        rng: np.random.Generator | None = None,
    ) -> Scene:
        """Place exactly the given things (for tests and for scenes made by hand)."""
        rng = rng or np.random.default_rng([int(seed) & 0xFFFFFFFF, 0x5CE7])
        missing = {task.target, task.place} - {p.name for p in layout} - {None}
        if missing:
            raise ValueError(
                f"the task needs {sorted(map(str, missing))} too, the layout has {[p.name for p in layout]}."
            )
        mujoco.mj_resetData(self.model, self.data)
        self._arm.reset_settings()
        self._debt_s = 0.0
        self._visible[:] = False
        self._park()
        for spot in layout:
            self._stand(spot)
        self._look.apply(rng, self.config)
        self._look.show(self._visible)
        self._arm.teleport(start_pose.sample(rng, self.robot))
        self._settle()
        self._tracker.rest_height_m[:] = [self.observer.position(index)[2] for index in range(len(CATALOG))]
        self._start_height_m = float(self._tracker.rest_height_m[INDEX[task.target]])
        self._scene = Scene(self._object_states(), task, int(seed))
        self._tracker.reset(self._start_height_m)
        return self.scene

    def _park(self) -> None:
        for index, address in enumerate(self._ids.object_qpos):
            self.data.qpos[address : address + 7] = (0.3 * index - 2.0, 4.0, PARKED_Z_M, 1, 0, 0, 0)
            self.model.body_gravcomp[self._ids.object_body[index]] = 1.0

    def _stand(self, spot: sampling.Placement) -> None:
        index = INDEX[spot.name]
        address = self._ids.object_qpos[index]
        half = 0.5 * spot.yaw_rad
        height = CATALOG[index].half_m[2] + 0.0005
        self.data.qpos[address : address + 7] = (spot.x_m, spot.y_m, height, np.cos(half), 0, 0, np.sin(half))
        self.model.body_gravcomp[self._ids.object_body[index]] = 0.0
        self._visible[index] = True

    def _settle(self) -> None:
        """Let things come to rest (0.15 s), then set the clock to zero."""
        self._advance(round(0.15 / self.config.timestep_s))
        self.data.qvel[:] = 0.0
        self.data.time = 0.0
        self._arm.teleport(self.data.qpos[self._ids.arm_qpos])
        mujoco.mj_fwdPosition(self.model, self.data)

    def _object_states(self) -> tuple[ObjectState, ...]:
        return tuple(
            ObjectState(
                s.name,
                s.category,
                s.color,
                s.shape,
                s.is_receptacle,
                _triple(self.observer.position(i)),
                self.observer.yaw(i),
                bool(self._visible[i]),
            )
            for i, s in enumerate(CATALOG)
        )

    @property
    def scene(self) -> Scene:
        """The objects as they are now, and the task."""
        assert self._scene is not None
        return replace(self._scene, objects=self._object_states())

    @property
    def task(self) -> Task:
        """The task of this episode."""
        assert self._scene is not None
        return self._scene.task

    def set_task(self, task: Task) -> None:
        """Ask for something else in the same scene; progress starts anew. What is lifted already counts from where it
        stood."""
        gone = [n for n in (task.target, task.place) if n is not None and not self._visible[INDEX[n]]]
        if gone:
            raise ValueError(
                f"the task needs {gone}, on the table are {[n for n in NAMES if self._visible[INDEX[n]]]}."
            )
        assert self._scene is not None
        self._scene = replace(self._scene, task=task)
        self._start_height_m = float(self._tracker.rest_height_m[INDEX[task.target]])
        self._tracker.reset(self._start_height_m)

    # Time.
    @property
    def arm(self) -> Any:
        """The arm behind its driver's commands: `SimulatedArm` of a WidowX, `FrankaArm` of an FR3 or Panda."""
        return self._arm

    @property
    def time_s(self) -> float:
        """Simulated seconds since reset."""
        return float(self.data.time)

    @property
    def gripper_opening(self) -> float:
        """Measured opening, 0 closed to 1 open."""
        return self.robot.arm.fingers.opening(self._arm.finger_m)

    def step(self, duration_s: float) -> None:
        """Advance the physics. What does not divide by the physics step is carried over to the next call."""
        if not 0.0 <= duration_s <= 60.0:
            raise ValueError(f"step of {duration_s} s, expected 0..60 s.")
        self._debt_s += duration_s
        count = int(self._debt_s / self.config.timestep_s + 1e-6)
        if count == 0:
            return
        self._debt_s -= count * self.config.timestep_s
        self._advance(count)
        mujoco.mj_fwdPosition(self.model, self.data)
        if self._scene is not None:
            self._tracker.update(self._scene)

    def _advance(self, count: int) -> None:
        while count > 0:
            batch = min(_SERVO_STEPS, count)
            self._arm.update()
            mujoco.mj_step(self.model, self.data, batch)
            count -= batch

    # Eyes.
    def render(self, camera: str) -> np.ndarray:
        """Image of 'primary' or 'wrist', (H, W, 3) uint8 RGB."""
        return self._renderer.rgb(camera)

    def segment(self, camera: str) -> np.ndarray:
        """Catalogue index of the object seen in each pixel, (H, W) int32; −1 for table, robot and
        backdrop."""
        return self._renderer.segment(camera)

    def camera_info(self, camera: str) -> CameraInfo:
        """Intrinsics and pose of a camera as rendered now."""
        return self._renderer.info(camera)

    def close(self) -> None:
        """Free the OpenGL context (also done on garbage collection)."""
        self._renderer.close()

    # Judgement and forks.
    def success(self) -> bool:
        """Whether the task's goal holds now."""
        return succeeded(self.observer, self.task, self._start_height_m, self.gripper_opening)

    def progress(self) -> Progress:
        """The record since reset; `success_ever` is updated by asking."""
        if not self._tracker.value.success_ever and self.success():
            self._tracker.value = replace(self._tracker.value, success_ever=True)
        return self._tracker.value

    def snapshot(self) -> Snapshot:
        """Copy of everything that determines the future and the images."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        assert self._scene is not None
        return Snapshot(
            physics,
            self._arm.state(),
            self._look.state(),
            self._scene,
            self._tracker.value,
            self._visible.copy(),
            self._start_height_m,
            self._tracker.rest_height_m.copy(),
            self._debt_s,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this or of an equally configured world: same future, same images."""
        self._visible[:] = snapshot.visible
        for index, body in enumerate(self._ids.object_body):
            self.model.body_gravcomp[body] = 0.0 if self._visible[index] else 1.0
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _STATE)
        self._look.set_state(snapshot.look)
        self._arm.set_state(snapshot.arm)
        self._scene, self._start_height_m, self._debt_s = (
            snapshot.scene,
            snapshot.start_height_m,
            snapshot.debt_s,
        )
        self._tracker.reset(self._start_height_m)
        self._tracker.value = snapshot.progress
        self._tracker.rest_height_m[:] = snapshot.rest_height_m
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _STATE)
        mujoco.mj_fwdPosition(self.model, self.data)


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
