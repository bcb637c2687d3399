"""Demonstrations: the scripted expert drives the simulated robot through the real controller.

In most episodes what is executed is disturbed at times, while the label stays what the expert would have
done: so the data shows how to come back from where a learner's own errors lead. The arm is pushed aside, and if the
recipe asks for it the hand closes on nothing or lets go of what it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from instructvla_model.config import PolicyConfig
from instructvla_model.image import recipe
from instructvla_sim import World, WorldConfig
from instructvla_sim.demonstrator import Demonstrator
from instructvla_sim.lockstep import Lockstep
from instructvla_training.language.motion import language_motion
from instructvla_training.recipes import DataRecipe

from .observe import RECORD_RENDER, image_columns
from .shards import EpisodeRecord

MAX_STEPS = 90
PHASE_WEIGHT = {"grasp": 2.0, "lower": 1.5, "release": 2.0, "approach": 1.0, "retry": 1.5, "retreat": 0.7}
"""How often a frame is drawn in training: the short phases that decide an episode, more."""
SLIP_STEPS = (2, 6)


def record_shard(seeds: range, config: PolicyConfig, data: DataRecipe) -> list[EpisodeRecord]:
    """The successful demonstrations among ``seeds``."""
    lockstep = Lockstep(World(RECORD_RENDER, WorldConfig(robot=data.robot)), cameras=())
    image_recipe = recipe(config.expert_recipe, config.film.image_size)
    side = config.film.image_size // config.film.patch_size
    families, weights = data.families, np.array(data.family_weights) / sum(data.family_weights)
    episodes = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 29])
        lockstep.start(seed, [str(rng.choice(families, p=weights))])
        rows = drive(lockstep, rng, data, lambda: image_columns(lockstep.world, image_recipe, side))
        if rows is not None:
            episodes.append(episode_of(lockstep, seed, rows, "demonstration"))
    lockstep.world.close()
    return episodes


def episode_of(lockstep: Lockstep, seed: int, rows: list[dict], source: str) -> EpisodeRecord:
    """The record of the frames ``rows`` of the episode under way."""
    frames = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    task = lockstep.world.task
    return EpisodeRecord(
        seed=seed, length=len(rows), family=task.family, target=task.target, place=task.place, success=True,
        source=source, motion=tuple(language_motion(frames["state"])), frames=frames,
    )  # fmt: skip


def drive(
    lockstep: Lockstep, rng: np.random.Generator, data: DataRecipe, look: Callable[[], dict]
) -> list[dict] | None:
    """Lets the demonstrator bring the episode to its end -> its frames, or None where it did not succeed."""
    demonstrator = Demonstrator(lockstep.world)
    disturbed = rng.random() < data.disturbed_fraction
    rows: list[dict] = []
    done = 0
    drift = np.zeros(4)
    slipping = 0
    for _ in range(MAX_STEPS):
        demo = demonstrator.act()
        rows.append(
            look()
            | {
                "state": lockstep.observe().state,
                "action": demo.action,
                "weight": np.float32(PHASE_WEIGHT.get(demo.phase, 1.0)),
            }
        )
        executed = demo.action.copy()
        if disturbed:
            drift = _drift(drift, rng, data)
            executed[:3] += drift[:3]
            executed[5] += drift[3]
            slipping = _slip(slipping, rng, data)
            if slipping:
                executed[6] = 1.0 - executed[6]
        done = done + 1 if lockstep.step(executed).success else 0
        if done >= 2:
            return rows
    return None


def _drift(drift: np.ndarray, rng: np.random.Generator, data: DataRecipe) -> np.ndarray:
    """A push that starts at random, lasts a few steps and is gone."""
    if rng.random() < data.noise_probability * 0.5:
        scale = np.array([data.noise_xyz_m, data.noise_xyz_m, 0.7 * data.noise_xyz_m, data.noise_yaw_rad])
        return rng.normal(0.0, scale)
    return drift * (0.7 if rng.random() < 0.6 else 0.0)


def _slip(left: int, rng: np.random.Generator, data: DataRecipe) -> int:
    """For how many more steps the hand does the opposite of what it should."""
    if left or not data.slip_probability:
        return max(left - 1, 0)
    return int(rng.integers(*SLIP_STEPS)) if rng.random() < data.slip_probability else 0
