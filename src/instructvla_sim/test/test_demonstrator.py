"""The scripted expert, through the real controller."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim import Task, World
from instructvla_sim.catalog import GRASPABLE
from instructvla_sim.demonstrator import Demonstrator
from instructvla_sim.lockstep import Lockstep
from instructvla_sim.sampling import Placement


def _run(world: World, seed: int, max_steps: int = 50, **start):
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    lockstep.start(seed, **start)
    return lockstep.run(lambda _: expert.act().action, max_steps)


@pytest.mark.parametrize("family", ["pick", "place", "near", "stack"])
def test_expert_solves_unseen_scenes_of_every_family(world: World, family: str) -> None:
    results = [_run(world, seed, families=[family]) for seed in range(900, 905)]
    assert all(r.success for r in results), [(r.seed, r.task) for r in results if not r.success]
    assert all(r.progress.first_approached == r.task.target for r in results)
    assert np.mean([r.steps for r in results]) < 40


@pytest.mark.parametrize("name", GRASPABLE)
def test_expert_picks_every_object_and_progress_names_it(world: World, name: str) -> None:
    result = _run(world, 77, task=Task("pick", name))
    assert result.success
    progress = result.progress
    assert progress.first_grasped == progress.grasped == name
    assert progress.target_lifted


def test_a_pick_asked_for_again_while_the_object_is_held_counts_from_where_it_stood(world: World) -> None:
    assert _run(world, 77, task=Task("pick", "apple")).success
    fork = world.snapshot()
    world.set_task(Task("pick", "apple"))
    assert world.success()
    world.reset(78)
    world.restore(fork)
    world.set_task(Task("pick", "apple"))
    assert world.success(), "a fork knows where things stood"


def test_act_is_stateless(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    lockstep.start(5, ["place"])
    for _ in range(12):
        lockstep.step(expert.act().action)
    fork = world.snapshot()
    first = expert.act()
    for _ in range(5):
        lockstep.step(expert.act().action)
    world.restore(fork)
    again = Demonstrator(world).act()
    assert np.array_equal(first.action, again.action)
    assert first.phase == again.phase


def test_actions_keep_the_speed_limits(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    lockstep.start(6, ["stack"])
    for _ in range(25):
        action = expert.act().action
        assert action.shape == (7,)
        assert np.hypot(*action[:2]) <= 0.0351
        assert abs(action[2]) <= 0.0351
        assert np.abs(action[3:6]).max() <= 0.201
        assert action[6] in (0.0, 1.0)
        lockstep.step(action)


def test_expert_recovers_when_the_object_is_knocked_out_of_the_gripper(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    layout = [Placement("green cube", 0.28, 0.06, 0.0), Placement("plate", 0.30, -0.08, 0.0)]
    world.set_scene(layout, Task("place", "green cube", "plate"), seed=3)
    lockstep.anchor()
    dropped = False
    for _ in range(70):
        step = expert.act()
        if step.phase == "carry" and not dropped and world.observer.ee()[1][2] > 0.08:
            for _ in range(4):
                lockstep.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
            dropped = True
            continue
        if lockstep.step(step.action).success:
            break
    assert dropped
    assert world.success()


def test_expert_lets_go_of_the_wrong_object(world: World) -> None:
    lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
    layout = [Placement("red cube", 0.28, 0.07, 0.0), Placement("blue cube", 0.30, -0.07, 0.0)]
    world.set_scene(layout, Task("pick", "red cube"), seed=3)
    lockstep.anchor()
    for _ in range(30):
        if lockstep.step(expert.act().action).success:
            break
    assert world.progress().grasped == "red cube"
    world.set_task(Task("pick", "blue cube"))
    result = lockstep.run(lambda _: expert.act().action, 50)
    assert result.success
    assert result.progress.grasped == "blue cube"


def test_expert_rights_itself_after_random_actions(world: World) -> None:
    rng = np.random.default_rng(1)
    solved = 0
    for seed in range(6):
        lockstep, expert = Lockstep(world, cameras=()), Demonstrator(world)
        lockstep.start(seed, ["pick"])
        for _ in range(12):
            action = expert.act().action + np.append(rng.normal(0, [0.02] * 3 + [0.05] * 3), 0.0)
            lockstep.step(action)
        solved += lockstep.run(lambda _, e=expert: e.act().action, 60).success
    assert solved >= 5
