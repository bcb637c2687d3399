"""Runs trials in the simulation, in several processes, and counts."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from instructvla_model.manifest import Manifest
from instructvla_model.runtime import PolicyRuntime, choose_device
from instructvla_sim import RenderSpec, World, WorldConfig
from instructvla_sim.lockstep import Lockstep, Observation
from instructvla_sim.robots import ROBOTS
from instructvla_training.data.record import prepare_worker
from instructvla_training.evaluation import MAX_STEPS
from instructvla_training.language import TaskView, parse_answer
from instructvla_training.refusals import RunError
from instructvla_training.workspace import robot_of

from .graph_policy import GraphPolicy, joint_sample
from .trials import Trial

logger = logging.getLogger(__name__)

RENDER = RenderSpec()
"""The live cameras' 640x480 picture."""


def world_config(manifest: Manifest) -> WorldConfig:
    """The bench with the checkpoint's robot. Raises RunError for one that the simulation does not have."""
    robot = robot_of(manifest)
    if robot not in ROBOTS:
        raise RunError(
            f"checkpoint {manifest.checkpoint_id}: found a policy of the robot {robot!r}, expected one that is "
            f"simulated: {', '.join(ROBOTS)}; compare it with recorded episodes: instructvla-train replay"
        )
    return WorldConfig(robot=robot)


@dataclass(frozen=True)
class Outcome:
    """What came of one trial. ``text_right``: None where no text was asked for."""

    trial: Trial
    success: bool
    first_approached: str | None
    first_grasped: str | None
    steps: int
    text: str
    text_right: bool | None
    faults: tuple[str, ...]

    @property
    def named_first(self) -> bool:
        """The first object that the gripper came down to is the one that is meant."""
        return self.first_approached == self.trial.task.target


class Runner:
    """One process's world and policy; ``run`` plays one trial."""

    def __init__(self, checkpoint: Path, think: bool, max_steps: int = MAX_STEPS, device: str = "cpu"):
        torch.set_num_threads(1)
        self.runtime = PolicyRuntime.load(checkpoint, device=device)
        self.think, self.max_steps = think, max_steps
        world = World(RENDER, world_config(self.runtime.manifest))
        self.lockstep = Lockstep(world, cameras=self.runtime.manifest.views)

    def run(self, trial: Trial) -> Outcome:
        """Plays the trial from its seed; the flow's noise is seeded by it too."""
        lockstep, world = self.lockstep, self.lockstep.world
        lockstep.start(trial.seed, [trial.task.family])
        if world.task != trial.task:
            raise ValueError(
                f"seed {trial.seed} gives {world.task}, the trial says {trial.task}; make the trials again"
            )
        policy = GraphPolicy(self.runtime, lambda: world.time_s, trial.seed, world.robot.arm)
        policy.begin(trial.instruction, self.think, lockstep.instruction_id)

        def act(observation: Observation):
            sample = joint_sample(world, observation.stamp_s)
            return policy.step(dict(observation.images), sample, observation.stamp_s)

        result = lockstep.run(act, self.max_steps)
        return Outcome(
            trial=trial, success=result.success, first_approached=result.progress.first_approached,
            first_grasped=result.progress.first_grasped, steps=result.steps, text=policy.text,
            text_right=_right(policy.text, trial) if self.think else None, faults=tuple(result.faults),
        )  # fmt: skip


def _right(text: str, trial: Trial) -> bool:
    task = trial.task
    return parse_answer(text) == TaskView(task.family, task.target, task.place)


_runner: Runner | None = None


def _start(checkpoint: Path, think: bool, max_steps: int, device: str) -> None:
    global _runner
    prepare_worker()
    _runner = Runner(checkpoint, think, max_steps, device)


def _run(trial: Trial) -> Outcome:
    assert _runner is not None
    return _runner.run(trial)


def run_trials(
    checkpoint: Path, trials: Sequence[Trial], think: bool, workers: int, max_steps: int = MAX_STEPS,
    device: str = "cpu",
) -> list[Outcome]:  # fmt: skip
    """Plays all trials -> outcomes in the trials' order. Each worker has the policy on ``device``.

    Raises RuntimeInputError for a device that there is not.
    """
    choose_device(device)  # refused here, not in a process of its own
    context = multiprocessing.get_context("spawn")
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(workers, context, _start, (Path(checkpoint), think, max_steps, device)) as pool:
        for outcome in pool.map(_run, trials):
            outcomes.append(outcome)
            if len(outcomes) % 10 == 0:
                won = sum(o.success for o in outcomes)
                logger.info("%d/%d trials, %d successes", len(outcomes), len(trials), won)
    return outcomes
