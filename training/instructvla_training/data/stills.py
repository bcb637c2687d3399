"""Stills for the backbones' pre-training: random benches with the arm anywhere, one frame each."""

from __future__ import annotations

import numpy as np

from instructvla_model.config import PolicyConfig
from instructvla_model.image import recipe
from instructvla_sim import Scene, World, WorldConfig
from instructvla_sim.start_pose import solve
from instructvla_training.recipes import DataRecipe

from .observe import RECORD_RENDER, image_columns
from .shards import EpisodeRecord

ARM_IN_VIEW = 0.6
"""Share of the stills in which the gripper is somewhere over the workspace rather than at its start."""
LOWER_M, UPPER_M = np.array([0.19, -0.17, 0.03]), np.array([0.38, 0.17, 0.18])


def record_shard(seeds: range, config: PolicyConfig, data: DataRecipe) -> list[EpisodeRecord]:
    """One still for each seed. Opens its own world; call it in the process that is to render."""
    world = World(RECORD_RENDER, WorldConfig(robot=data.robot))
    image_recipe = recipe(config.expert_recipe, config.film.image_size)
    side = config.film.image_size // config.film.patch_size
    stills = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 17])
        scene = _crowded(world, seed, int(rng.integers(1, 5)))
        if rng.random() < ARM_IN_VIEW:
            _move_arm(world, rng)
        frames = image_columns(world, image_recipe, side)
        frames |= {"state": np.zeros(8), "action": np.zeros(7), "weight": np.ones(())}
        task = scene.task
        stills.append(
            EpisodeRecord(
                seed=seed,
                length=1,
                family=task.family,
                target=task.target,
                place=task.place,
                success=True,
                source="still",
                frames={k: np.asarray(v)[None] for k, v in frames.items()},
            )
        )
    world.close()
    return stills


def _crowded(world: World, seed: int, n_distractors: int) -> Scene:
    """A scene with that many distractors, or with fewer where the drawn receptacles leave no room."""
    while True:
        try:
            return world.reset(seed, n_distractors=n_distractors)
        except RuntimeError:
            if n_distractors == 0:
                raise
            n_distractors -= 1


def _move_arm(world: World, rng: np.random.Generator) -> None:
    for _ in range(5):  # some corners are out of reach with the gripper down
        try:
            joints = solve(rng.uniform(LOWER_M, UPPER_M), rng.uniform(-0.8, 0.8), world.robot)
        except ValueError:
            continue
        world.arm.teleport(joints, finger_m=world.robot.arm.fingers.position_m(rng.uniform()))
        world.step(0.005)
        return
