"""The running graph's workers and schedules around one policy, in simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

from instructvla_model import types as model_types
from instructvla_model.runtime import PolicyRuntime
from instructvla_ros.control import WX250S, ArmModel
from instructvla_ros.control.state import JointStateReader
from instructvla_ros.control.types import ActionChunk, JointSample
from instructvla_ros.policy import (
    ExpertConfig,
    ExpertWorker,
    Frame,
    Instruction,
    ReasoningConfig,
    ReasoningUpdate,
    ReasoningWorker,
)
from instructvla_sim import World

MAX_WORK = 200
SEEDS_APART = 1_000  # more than a trial has chunks


class GraphPolicy:
    """One episode's policy: what reasoning_node and action_expert_node do, step by step on a given clock.

    The text takes no simulated time; latents are refreshed at the graph's rate, so chunks in between are made
    from latents that are one step old, as on the robot.
    """

    def __init__(self, runtime: PolicyRuntime, clock: Callable[[], float], seed: int, arm: ArmModel = WX250S):
        self._clock = clock
        self._chunk: ActionChunk | None = None
        self.text = ""
        self.latents = 0
        self._reasoning = ReasoningWorker(runtime, ReasoningConfig(), self._on_text, self._on_latent, clock)
        # The noise of a chunk is that of the seed plus its number: no trial repeats what another's had.
        config = ExpertConfig(
            views=runtime.manifest.views, needs_state=runtime.manifest.state_dim > 0, seed=seed * SEEDS_APART
        )
        self._expert = ExpertWorker(runtime.act, config, self._on_chunk, clock, arm)

    def begin(self, text: str, think: bool, instruction_id: int = 1) -> None:
        """Follow this instruction from now on."""
        self._reasoning.accept(Instruction(text, instruction_id, think))
        self._expert.set_instruction(instruction_id)

    def step(self, images: dict, sample: JointSample, stamp_s: float) -> ActionChunk:
        """The chunk for what is seen now. Raises RuntimeError where the workers give none."""
        self._chunk = None
        for view, image in images.items():
            frame = Frame(image, stamp_s, self._clock())
            self._expert.offer_image(view, frame)
            self._reasoning.offer_image(view, frame)
        self._expert.offer_joints(sample)
        for _ in range(MAX_WORK):
            if self._reasoning.step() > 0.0:
                break
        for _ in range(MAX_WORK):
            if self._chunk is not None or not math.isfinite(self._expert.step()):
                break
        if self._chunk is None:
            raise RuntimeError(
                f"no chunk: {self._reasoning.problem or 'reasoning ran'}; {self._expert.problem}"
            )
        return self._chunk

    def _on_text(self, update: ReasoningUpdate) -> None:
        if update.final:
            self.text = update.text

    def _on_latent(self, plan: model_types.LatentPlan, _: ReasoningUpdate | None, __: float) -> None:
        self.latents += 1
        self._expert.offer_latent(plan)

    def _on_chunk(self, chunk: model_types.ActionChunk, _: float) -> None:
        # the same fields travel in a message between the nodes
        self._chunk = ActionChunk(**{field.name: getattr(chunk, field.name) for field in fields(ActionChunk)})


def joint_sample(world: World, stamp_s: float) -> JointSample:
    """What the expert node would have heard from the driver now."""
    state = world.arm.joint_state()
    return JointStateReader(world.robot.arm).read(state.names, state.positions.tolist(), stamp_s, stamp_s)
