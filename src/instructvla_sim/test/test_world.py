"""Scenes, determinism, forks, cameras."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim import RenderSpec, Task, World, WorldConfig
from instructvla_sim.catalog import CATALOG, INDEX
from instructvla_sim.sampling import Placement


def _visible(world: World) -> list[str]:
    return [o.name for o in world.scene.objects if o.visible]


def test_reset_is_a_function_of_the_seed(world: World) -> None:
    first, image = world.reset(7), world.render("primary")
    world.reset(8)
    world.step(0.3)
    again = world.reset(7)
    assert first == again
    assert np.array_equal(image, world.render("primary"))
    assert world.reset(9) != first


def test_scene_lists_every_object_in_catalogue_order(world: World) -> None:
    assert [o.name for o in world.scene.objects] == [s.name for s in CATALOG]
    assert len(CATALOG) >= 14


@pytest.mark.parametrize("family", ["pick", "place", "near", "stack"])
def test_reset_keeps_to_the_families_and_solves_nothing_at_the_start(world: World, family: str) -> None:
    for seed in range(25):
        task = world.reset(seed, [family]).task
        assert task.family == family
        assert {task.target, task.place} - {None} <= set(_visible(world))
        assert not world.success()
        assert world.progress().first_approached is None


def test_objects_never_overlap_at_the_start(world: World) -> None:
    for seed in range(40):
        world.reset(seed)
        seen = [INDEX[n] for n in _visible(world)]
        pairs = {(a, b) for a, b in world.observer.touching_pairs() if a >= 0}
        assert not pairs, (seed, pairs)
        assert 2 <= len(seen) <= 6


def test_number_of_distractors_is_as_asked(world: World) -> None:
    world.reset(3, ["pick"], n_distractors=0)
    assert len(_visible(world)) == 1
    world.reset(3, ["pick"], n_distractors=2)
    assert len(_visible(world)) == 3


def test_unknown_family_camera_and_task_are_named_in_the_error(world: World) -> None:
    with pytest.raises(ValueError, match="juggle"):
        world.reset(0, ["juggle"])
    with pytest.raises(ValueError, match="ceiling"):
        world.render("ceiling")
    with pytest.raises(ValueError, match="needs a place"):
        Task("place", "apple")
    with pytest.raises(ValueError, match="step of"):
        world.step(-1.0)


def test_objects_stand_still_when_nothing_happens(world: World) -> None:
    for seed in (2, 5, 11):
        world.reset(seed)
        before = np.array([o.position_m for o in world.scene.objects if o.visible])
        world.step(1.0)
        after = np.array([o.position_m for o in world.scene.objects if o.visible])
        assert np.abs(after - before).max() < 2e-3


def test_snapshot_forks_exactly(world: World) -> None:
    world.reset(4)
    world.arm.set_operating_modes("group", "arm", "position", "time", 250, 100)
    world.arm.command_group("arm", np.array(world.arm.joint_state().positions[:6]) + 0.2)
    world.arm.command_single("gripper", -300)
    world.step(0.1)
    fork = world.snapshot()
    world.step(0.33)
    reference, image = world.data.qpos.copy(), world.render("primary")
    world.reset(12)
    world.step(0.2)
    world.restore(fork)
    assert world.scene.seed == 4
    world.step(0.33)
    assert np.array_equal(world.data.qpos, reference)
    assert np.array_equal(world.render("primary"), image)


def test_time_is_carried_over_when_it_does_not_divide(world: World) -> None:
    for _ in range(7):
        world.step(0.0031)
    assert world.time_s == pytest.approx(0.0217, abs=0.0025 + 1e-9)


def test_segmentation_shows_exactly_the_visible_objects_where_they_project(world: World) -> None:
    for seed in (1, 6):
        world.reset(seed)
        seen = world.segment("primary")
        assert seen.shape == (120, 160)
        info = world.camera_info("primary")
        camera = np.linalg.inv(info.T_base_optical)
        visible = [i for i, o in enumerate(world.scene.objects) if o.visible]
        assert set(np.unique(seen)) - {-1} == set(visible)
        for index in visible:
            p = camera @ np.append(world.observer.position(index), 1.0)
            u, v, w = info.k @ p[:3]
            rows, columns = np.nonzero(seen == index)
            assert abs(columns.mean() - u / w) < 6
            assert abs(rows.mean() - v / w) < 6


def test_workspace_fills_the_primary_image() -> None:
    from instructvla_sim.sampling import WORKSPACE_LOWER_M, WORKSPACE_UPPER_M

    world = World(config=WorldConfig(jitter=False))
    info = world.camera_info("primary")
    corners = [
        (x, y, 0.0, 1.0)
        for x in (WORKSPACE_LOWER_M[0], WORKSPACE_UPPER_M[0])
        for y in (WORKSPACE_LOWER_M[1], WORKSPACE_UPPER_M[1])
    ]
    pixels = []
    for corner in corners:
        u, v, w = info.k @ (np.linalg.inv(info.T_base_optical) @ np.array(corner))[:3]
        pixels.append((u / w, v / w))
    (x0, y0), (x1, y1) = np.min(pixels, axis=0), np.max(pixels, axis=0)
    assert x0 > 0
    assert y0 > 0
    assert x1 < 640
    assert y1 < 480
    near_width = abs(pixels[2][0] - pixels[3][0])
    assert near_width / 32.0 > 13.0, "pixels per centimetre at the near edge"
    assert abs(pixels[0][0] - pixels[1][0]) / 32.0 > 11.5, "and at the far edge"


def test_smaller_images_show_the_same_view() -> None:
    big = World(RenderSpec(320, 240, samples=0), WorldConfig())
    small = World(RenderSpec(160, 120, samples=0), WorldConfig())
    big.reset(3)
    small.reset(3)
    shrunk = big.render("primary").reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small.render("primary")).mean() < 4.0
    big.close()
    small.close()


def test_jitter_changes_camera_and_light_but_can_be_switched_off() -> None:
    still = World(RenderSpec(160, 120, samples=0), WorldConfig(jitter=False))
    poses = []
    for seed in (1, 2):
        still.reset(seed)
        poses.append(still.camera_info("primary").T_base_optical)
    assert np.array_equal(*poses)
    still.close()
    moved = World(RenderSpec(160, 120, samples=0))
    poses = []
    for seed in (1, 2):
        moved.reset(seed)
        poses.append(moved.camera_info("primary").T_base_optical)
    assert 1e-4 < np.abs(poses[0] - poses[1]).max() < 0.08
    moved.close()


def test_wrist_camera_sees_the_table_under_the_gripper(world: World) -> None:
    layout = [Placement("red cube", 0.27, 0.0, 0.0)]
    world.set_scene(layout, Task("pick", "red cube"), seed=1)
    assert (world.segment("wrist") == INDEX["red cube"]).sum() > 50


def test_set_scene_and_set_task_demand_that_the_objects_are_there(world: World) -> None:
    with pytest.raises(ValueError, match="apple"):
        world.set_scene([Placement("can", 0.3, 0.0, 0.0)], Task("pick", "apple"))
    world.set_scene([Placement("can", 0.3, 0.0, 0.0)], Task("pick", "can"))
    with pytest.raises(ValueError, match="lemon"):
        world.set_task(Task("pick", "lemon"))
