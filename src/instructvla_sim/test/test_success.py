"""Success checks on states made by hand."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from instructvla_sim import Task, World
from instructvla_sim.catalog import CUBE_HALF_M, INDEX
from instructvla_sim.sampling import Placement


def _put(world: World, name: str, xyz: tuple[float, float, float], settle_s: float = 0.6) -> None:
    address = world.model.jnt_qposadr[mujoco.mj_name2id(world.model, mujoco.mjtObj.mjOBJ_JOINT, f"object/{name}")]
    world.data.qpos[address : address + 7] = (*xyz, 1, 0, 0, 0)
    world.step(settle_s)


@pytest.mark.parametrize(("dish", "height"), [("plate", 0.03), ("bowl", 0.05), ("basket", 0.05), ("cloth", 0.03)])
@pytest.mark.parametrize("thing", ["apple", "green cube", "carrot", "eggplant", "sponge", "lemon", "can"])
def test_a_thing_dropped_on_a_receptacle_stays_and_counts(world: World, dish: str, height: float, thing: str) -> None:
    layout = [Placement(dish, 0.30, 0.08, 0.0), Placement(thing, 0.30, -0.12, 0.0)]
    world.set_scene(layout, Task("place", thing, dish))
    assert not world.success()
    _put(world, thing, (0.30, 0.08, height + 0.015))
    assert world.success()


def test_a_thing_beside_the_plate_does_not_count(world: World) -> None:
    layout = [Placement("plate", 0.30, 0.08, 0.0), Placement("apple", 0.30, -0.12, 0.0)]
    world.set_scene(layout, Task("place", "apple", "plate"))
    _put(world, "apple", (0.30, -0.02, 0.02))
    assert not world.success()


def test_a_thing_still_falling_does_not_count(world: World) -> None:
    layout = [Placement("bowl", 0.30, 0.08, 0.0), Placement("apple", 0.30, -0.12, 0.0)]
    world.set_scene(layout, Task("place", "apple", "bowl"))
    _put(world, "apple", (0.30, 0.08, 0.12), settle_s=0.03)
    assert not world.success()


def test_cubes_stack_only_when_on_top(world: World) -> None:
    layout = [Placement("red cube", 0.30, 0.0, 0.0), Placement("blue cube", 0.30, -0.12, 0.0)]
    world.set_scene(layout, Task("stack", "blue cube", "red cube"))
    _put(world, "blue cube", (0.30, 0.05, CUBE_HALF_M))
    assert not world.success()
    _put(world, "blue cube", (0.305, 0.004, 3 * CUBE_HALF_M + 0.001))
    assert world.success()


def test_near_means_within_six_centimetres_and_on_the_table(world: World) -> None:
    layout = [Placement("bowl", 0.30, 0.08, 0.0), Placement("lemon", 0.30, -0.14, 0.0)]
    world.set_scene(layout, Task("near", "lemon", "bowl"))
    assert not world.success()
    _put(world, "lemon", (0.30, -0.025, 0.019))
    assert world.success()
    _put(world, "lemon", (0.30, 0.08, 0.05))
    assert not world.success(), "inside is not beside"


def test_pick_needs_the_object_in_the_gripper_not_just_high(world: World) -> None:
    world.set_scene([Placement("apple", 0.30, 0.0, 0.0)], Task("pick", "apple"))
    _put(world, "apple", (0.30, 0.0, 0.30), settle_s=0.02)
    assert world.observer.position(INDEX["apple"])[2] > 0.2
    assert not world.success()


def test_a_new_task_counts_from_where_the_object_lies_now_and_not_from_where_it_is_in_the_air(world: World) -> None:
    layout = [Placement("bowl", 0.30, 0.08, 0.0), Placement("apple", 0.30, -0.12, 0.0)]
    world.set_scene(layout, Task("pick", "apple"))
    on_table_m = world.snapshot().start_height_m
    _put(world, "apple", (0.30, 0.08, 0.07))
    in_bowl_m = float(world.observer.position(INDEX["apple"])[2])
    _put(world, "apple", (0.30, -0.12, 0.30), settle_s=0.05)
    world.set_task(Task("pick", "apple"))
    assert world.snapshot().start_height_m == pytest.approx(in_bowl_m, abs=1e-3)
    assert in_bowl_m > on_table_m + 0.003


def test_yaw_of_a_cube_is_that_of_a_face_whatever_side_is_up(world: World) -> None:
    world.set_scene([Placement("red cube", 0.30, 0.0, 0.3)], Task("pick", "red cube"))
    assert world.observer.yaw(INDEX["red cube"]) % (np.pi / 2) == pytest.approx(0.3, abs=0.01)
