"""Compile the one MuJoCo model: robot, bench and every object."""

from __future__ import annotations

import mujoco
import numpy as np

from instructvla_sim.bench import add_bench
from instructvla_sim.catalog import CATALOG
from instructvla_sim.objects import VISUAL_GROUP, add_objects
from instructvla_sim.robots import RobotSpec
from instructvla_sim.types import Ids, RenderSpec


def build_model(timestep_s: float, render: RenderSpec, robot: RobotSpec) -> tuple[mujoco.MjModel, Ids]:
    """Compile the model for the given physics step, image size and robot."""
    spec = robot.load()
    spec.option.timestep = timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.offsamples = render.samples
    # exactly the image: a larger buffer is cleared and resolved in full at every frame
    spec.visual.global_.offwidth, spec.visual.global_.offheight = render.width, render.height
    spec.visual.quality.shadowsize = 2048
    add_bench(spec)
    add_objects(spec)
    model = spec.compile()
    ids = _ids(model, robot)
    for body in ids.object_body:  # a little air drag on rotation, none on translation: rolling things come to rest
        dof = model.body_dofadr[body]
        model.dof_damping[dof + 3 : dof + 6] = 2e-5
    return model, ids


def _ids(model: mujoco.MjModel, robot_spec: RobotSpec) -> Ids:
    def joint(name: str) -> int:
        return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)

    def body(name: str) -> int:
        return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)

    arm, fingers = [joint(n) for n in robot_spec.joints], [joint(n) for n in robot_spec.fingers]
    objects = np.array([body(f"object/{item.name}") for item in CATALOG])
    free = [joint(f"object/{item.name}") for item in CATALOG]
    of_geom = np.full(model.ngeom, -1)
    for index, b in enumerate(objects):
        of_geom[model.geom_bodyid == b] = index
    finger = np.full(model.ngeom, -1)
    robot = [b for b in range(model.nbody) if model.body_rootid[b] == body("base_link")]
    finger[np.isin(model.geom_bodyid, robot)] = 2
    for side, name in enumerate(("left_finger_link", "right_finger_link")):
        finger[model.geom_bodyid == body(name)] = side
    visual = tuple(
        np.flatnonzero((of_geom == index) & (model.geom_group == VISUAL_GROUP)) for index in range(len(CATALOG))
    )

    def actuator(name: str) -> int:
        return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name)

    return Ids(
        arm_qpos=model.jnt_qposadr[arm].copy(),
        arm_dof=model.jnt_dofadr[arm].copy(),
        finger_qpos=model.jnt_qposadr[fingers].copy(),
        finger_dof=model.jnt_dofadr[fingers].copy(),
        arm_actuator=np.array([actuator(n) for n in robot_spec.joints]),
        finger_actuator=np.array([actuator(n) for n in robot_spec.fingers]),
        ee_site=mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "ee_gripper_link"),
        object_body=objects,
        object_qpos=model.jnt_qposadr[free].copy(),
        object_dof=model.jnt_dofadr[free].copy(),
        object_of_geom=of_geom,
        finger_of_geom=finger,
        visual_geoms=visual,
        table_geom=mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "table"),
    )
