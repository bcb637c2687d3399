"""The model's kinematics and limits equal the manufacturer's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim import World
from instructvla_sim.arm_types import LOWER_RAD, UPPER_RAD

# Screw axes (w, v) in the base frame and the home pose, written out here on purpose.
SCREWS = np.array(
    [
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, -0.11065, 0, 0],
        [0, 1, 0, -0.36065, 0, 0.04975],
        [1, 0, 0, 0, 0.36065, 0],
        [0, 1, 0, -0.36065, 0, 0.29975],
        [1, 0, 0, 0, 0.36065, 0],
    ]
)
HOME = np.array([[1, 0, 0, 0.458325], [0, 1, 0, 0], [0, 0, 1, 0.36065], [0, 0, 0, 1.0]])


def _exponential(screw: np.ndarray, angle: float) -> np.ndarray:
    w, v = screw[:3], screw[3:]
    k = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    shift = (np.eye(3) * angle + (1 - np.cos(angle)) * k + (angle - np.sin(angle)) * k @ k) @ v
    return np.vstack([np.column_stack([rotation, shift]), [0, 0, 0, 1]])


def _forward(q: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    for screw, angle in zip(SCREWS, q, strict=True):
        pose = pose @ _exponential(screw, angle)
    return pose @ HOME


def test_gripper_site_equals_product_of_exponentials_at_random_joints(world: World) -> None:
    import mujoco

    rng = np.random.default_rng(0)
    for _ in range(50):
        q = rng.uniform(LOWER_RAD, UPPER_RAD)
        world.data.qpos[:6] = q
        mujoco.mj_kinematics(world.model, world.data)
        rotation, position = world.observer.ee()
        expected = _forward(q)
        assert np.abs(position - expected[:3, 3]).max() < 1e-6
        assert np.abs(rotation - expected[:3, :3]).max() < 1e-6


def test_joint_limits_equal_the_driver_description(world: World) -> None:
    degrees = np.degrees(world.model.jnt_range[:6])
    assert degrees[:, 0] == pytest.approx([-180, -108, -123, -180, -100, -180], abs=1e-6)
    assert degrees[:, 1] == pytest.approx([180, 114, 92, 180, 123, 180], abs=1e-6)
    assert world.model.jnt_range[6] == pytest.approx([0.015, 0.037])
    assert world.model.jnt_range[7] == pytest.approx([-0.037, -0.015])


def test_every_grasped_width_fits_between_the_open_fingers() -> None:
    from instructvla_sim.catalog import CATALOG

    open_gap_m = 2 * (0.037 - 0.009)
    closed_gap_m = 2 * (0.015 - 0.009)
    for item in CATALOG:
        if not item.is_receptacle:
            assert closed_gap_m < 2 * item.half_m[1] < open_gap_m - 0.01, item.name


def test_no_graspable_is_wider_than_its_receptacles() -> None:
    from instructvla_sim.catalog import CATALOG

    for dish in (item for item in CATALOG if item.is_receptacle):
        for item in (i for i in CATALOG if not i.is_receptacle):
            assert 2 * item.half_m[1] < dish.half_m[0] * 2 - 0.03, (item.name, dish.name)
