"""Corrections: a trained policy drives for a while, then the scripted expert takes over and is recorded.

So the data shows how to go on from where the policy's own errors lead, with chunks that are the expert's
throughout (Ross et al. 2011; hand-over as in Kelly et al. 2019).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from instructvla_model.config import PolicyConfig
from instructvla_model.image import recipe
from instructvla_model.runtime import PolicyRuntime
from instructvla_sim import World, WorldConfig
from instructvla_sim.lockstep import Lockstep
from instructvla_training.evaluation.graph_policy import GraphPolicy, joint_sample
from instructvla_training.recipes import DataRecipe
from instructvla_training.stages.text import generator

from .demonstrations import drive, episode_of
from .observe import RECORD_RENDER, image_columns, object_table, scene_view
from .shards import EpisodeRecord

HANDOVER_STEPS = (2, 50)


def record_shard(seeds: range, config: PolicyConfig, data: DataRecipe, checkpoint: Path) -> list[EpisodeRecord]:
    """One correction for each seed at which the expert then succeeds."""
    torch.set_num_threads(1)
    runtime = PolicyRuntime.load(checkpoint, device="cpu")
    lockstep = Lockstep(World(RECORD_RENDER, WorldConfig(robot=data.robot)), cameras=runtime.manifest.views)
    image_recipe = recipe(config.expert_recipe, config.film.image_size)
    side = config.film.image_size // config.film.patch_size
    weights = np.array(data.family_weights) / sum(data.family_weights)
    episodes = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 31])
        lockstep.start(seed, [str(rng.choice(data.families, p=weights))])
        if not _let_policy_drive(lockstep, runtime, seed, int(rng.integers(*HANDOVER_STEPS))):
            continue
        rows = drive(lockstep, rng, data, lambda: image_columns(lockstep.world, image_recipe, side))
        if rows is not None:
            episodes.append(episode_of(lockstep, seed, rows, "correction"))
    lockstep.world.close()
    return episodes


def recorder(checkpoint: Path) -> partial:
    """``record_shard`` for one checkpoint, as ``record`` calls it."""
    return partial(record_shard, checkpoint=checkpoint)


def _let_policy_drive(lockstep: Lockstep, runtime: PolicyRuntime, seed: int, steps: int) -> bool:
    """False where the policy was done before its time was up: nothing is left to correct."""
    world = lockstep.world
    task = world.task
    view = scene_view(object_table(world.scene), task.family, task.target, task.place)
    policy = GraphPolicy(runtime, lambda: world.time_s, seed, world.robot.arm)
    policy.begin(generator().atomic(view).instruction, think=False, instruction_id=lockstep.instruction_id)
    for _ in range(steps):
        observation = lockstep.observe()
        chunk = policy.step(dict(observation.images), joint_sample(world, observation.stamp_s), observation.stamp_s)
        if lockstep.step(chunk, observation.stamp_s).success:
            return False
    return True
