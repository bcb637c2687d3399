"""The robots that may stand on the bench: their model, where they stand, what drives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from instructvla_ros.control import (
    FR3,
    PANDA,
    WX250S,
    ArmController,
    ArmModel,
    FrankaController,
    WidowXController,
)
from instructvla_sim.demonstrator_config import DemonstratorConfig

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class RobotSpec:
    """One robot. `base_m` is its base in the bench frame, whose z = 0 is the table top."""

    arm: ArmModel
    model: Path
    joints: tuple[str, ...]
    """Names in the model, which know no prefix."""
    base_m: tuple[float, float, float]
    tinted: str
    """The material whose shade varies between episodes."""
    start_seed_rad: tuple[float, ...]
    """Posture from which start poses are solved."""
    finger_face_m: float
    """From a finger joint's position to the face that touches."""
    drive: Callable[..., Any]
    """Makes the simulated arm: drive(model, data, ids)."""
    controller: Callable[..., ArmController]
    """Makes the controller: controller(config or None)."""
    demonstrator: DemonstratorConfig = field(default_factory=DemonstratorConfig)
    fingers: tuple[str, str] = ("left_finger", "right_finger")

    def load(self) -> mujoco.MjSpec:
        """The model, with the base where it stands and the joint limits of this arm."""
        spec = mujoco.MjSpec.from_file(str(self.model))
        spec.body("base_link").pos = self.base_m
        if self.arm is not WX250S:
            for name, lower, upper in zip(self.joints, self.arm.lower_rad, self.arm.upper_rad, strict=True):
                spec.joint(name).range = (lower, upper)
        return spec


def _widowx(model: mujoco.MjModel, data: mujoco.MjData, ids: Any) -> Any:
    from instructvla_sim.arm import SimulatedArm

    return SimulatedArm(model, data, ids)


def _franka(arm: ArmModel) -> RobotSpec:
    def drive(model: mujoco.MjModel, data: mujoco.MjData, ids: Any) -> Any:
        from instructvla_sim.franka_arm import FrankaArm

        return FrankaArm(model, data, ids, arm)

    return RobotSpec(
        arm=arm,
        model=_ASSETS / "franka" / "franka.xml",
        joints=tuple(f"joint{number}" for number in range(1, 8)),
        base_m=(-0.22, 0.0, 0.0),
        tinted="franka_grey",
        start_seed_rad=tuple(arm.home_rad.tolist()),
        finger_face_m=0.0,
        drive=drive,
        controller=lambda config=None: FrankaController(config, arm),
        demonstrator=DemonstratorConfig(finger_room_m=0.036, lowest_ee_m=0.012),
    )


ROBOTS: dict[str, RobotSpec] = {
    "wx250s": RobotSpec(
        arm=WX250S,
        model=_ASSETS / "wx250s" / "wx250s.xml",
        joints=WX250S.joint_names,
        base_m=(0.0, 0.0, 0.0),
        tinted="wx_black",
        start_seed_rad=(0.0, -0.6, 0.6, 0.0, 1.5, 0.0),
        finger_face_m=-0.009,
        drive=_widowx,
        controller=WidowXController,
    ),
    "fr3": _franka(FR3),
    "panda": _franka(PANDA),
}


def robot_spec(name: str) -> RobotSpec:
    """The named robot. ValueError names the known ones."""
    if name not in ROBOTS:
        raise ValueError(f"robot is {name!r}, expected one of {', '.join(ROBOTS)}.")
    return ROBOTS[name]


def base_frame_m(robot: RobotSpec, bench_m: np.ndarray) -> np.ndarray:
    """A point of the bench frame in the robot's base frame; the axes are parallel."""
    return np.asarray(bench_m, dtype=float) - robot.base_m
