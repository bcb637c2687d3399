"""World, controller and policy in simulated time."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_ros.control.types import ActionChunk
from instructvla_sim import World
from instructvla_sim.demonstrator import Demonstrator
from instructvla_sim.lockstep import DT_S, Lockstep


def test_start_anchors_the_controller_and_sets_the_policy_profile(world: World) -> None:
    lockstep = Lockstep(world, cameras=())
    lockstep.start(1)
    assert world.arm.get_registers("group", "arm", "Profile_Velocity") == (250,) * 6
    assert world.arm.get_registers("group", "arm", "Profile_Acceleration") == (100,) * 6
    state = lockstep.observe().state
    _, ee = world.observer.ee()
    assert state.shape == (8,)
    assert state[:3] == pytest.approx(ee, abs=1e-5)
    assert state[3:5] == pytest.approx([0, 0], abs=1e-3)
    assert state[7] == pytest.approx(1.0, abs=0.02)


def test_observation_has_the_cameras_asked_for(world: World) -> None:
    lockstep = Lockstep(world, cameras=("primary", "wrist"))
    lockstep.start(1)
    images = lockstep.observe().images
    assert set(images) == {"primary", "wrist"}
    assert images["wrist"].shape == (120, 160, 3)
    assert images["primary"].dtype == np.uint8


def test_one_step_lasts_200_ms_and_moves_the_arm_by_the_delta_in_the_end(world: World) -> None:
    lockstep = Lockstep(world, cameras=())
    lockstep.start(2)
    before = world.observer.ee()[1].copy()
    lockstep.step(np.array([0.02, 0.01, -0.01, 0, 0, 0, 1.0]))
    assert world.time_s == pytest.approx(DT_S, abs=1e-6)
    for _ in range(3):
        lockstep.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert world.observer.ee()[1] - before == pytest.approx([0.02, 0.01, -0.01], abs=2e-3)


def test_chunk_steps_continue_without_new_chunks(world: World) -> None:
    lockstep = Lockstep(world, cameras=("primary",))
    lockstep.start(2)
    before = world.observer.ee()[1].copy()
    chunk = np.tile(np.array([0.01, 0, 0, 0, 0, 0, 1.0]), (3, 1))
    lockstep.observe()
    lockstep.step(chunk)
    for _ in range(40):
        lockstep.controller.on_image(world.time_s, world.time_s)
        lockstep.tick()
    assert world.observer.ee()[1][0] - before[0] == pytest.approx(0.03, abs=2e-3)


def test_a_ready_made_chunk_is_accepted(world: World) -> None:
    lockstep = Lockstep(world, cameras=())
    lockstep.start(2)
    chunk = ActionChunk(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(2), DT_S, world.time_s, 1, 1, 0)
    result = lockstep.step(chunk)
    assert result.mode == "moving"
    assert not result.success


def test_badly_shaped_actions_are_named(world: World) -> None:
    lockstep = Lockstep(world, cameras=())
    lockstep.start(2)
    with pytest.raises(ValueError, match=r"\(F, 7\)"):
        lockstep.step(np.zeros(6))


def test_an_episode_is_reproducible(world: World) -> None:
    finals = []
    for _ in range(2):
        lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
        lockstep.start(31, ["place"])
        lockstep.run(lambda _, e=expert: e.act().action, 15)
        finals.append(world.data.qpos.copy())
    assert np.array_equal(*finals)


def test_run_stops_after_success_and_reports_the_record(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    lockstep.start(32, ["pick"])
    seen: list[bool] = []
    result = lockstep.run(
        lambda _: expert.act().action, 50, settle_steps=2, on_step=lambda o, a, r: seen.append(r.success)
    )
    assert result.success
    assert result.steps == len(seen) < 50
    assert seen[-3:] == [True] * 3
    assert result.progress.success_ever


def test_demonstrate_predicts_the_expert_and_leaves_no_trace(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    lockstep.start(33, ["place"])
    for _ in range(6):
        lockstep.step(expert.act().action)
    before = world.data.qpos.copy()
    ahead = lockstep.demonstrate(lambda: expert.act().action, 5)
    assert np.array_equal(world.data.qpos, before)
    taken = []
    for _ in range(5):
        taken.append(expert.act().action)
        lockstep.step(taken[-1])
    assert ahead == pytest.approx(np.array(taken), abs=1e-9)
