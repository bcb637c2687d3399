"""The running graph's workers and schedules around one policy, without nodes, on a clock that the caller moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.types import JointSample
from instructvla_ros.control.wx250s import WX250S
from instructvla_ros.policy.expert_worker import ExpertConfig, ExpertWorker
from instructvla_ros.policy.instructions import Instruction
from instructvla_ros.policy.reasoning_worker import Frame, ReasoningConfig, ReasoningUpdate, ReasoningWorker

_MAX_WORK = 200


class OfflinePolicy:
    """What reasoning_node and action_expert_node do with the same inputs. One thread.

    Nothing takes time on `clock`: a text is complete, and a chunk made, at the instant of the image it looks at.
    """

    def __init__(
        self,
        runtime: Any,
        clock: Callable[[], float],
        reasoning: ReasoningConfig,
        expert: ExpertConfig,
        *,
        on_chunk: Callable[[Any], None],
        on_text: Callable[[ReasoningUpdate], None] = lambda _: None,
        on_latent: Callable[[Any], None] = lambda _: None,
        arm: ArmModel = WX250S,
    ) -> None:
        self._told_text, self._told_latent = on_text, on_latent
        self.reasoning = ReasoningWorker(runtime, reasoning, self._on_text, self._on_latent, clock)
        self.expert = ExpertWorker(runtime.act, expert, lambda chunk, _: on_chunk(chunk), clock, arm)
        self.text = ""
        """The last complete text."""

    def follow(self, instruction: Instruction) -> None:
        """Follow this instruction from now on."""
        self.reasoning.accept(instruction)
        self.expert.set_instruction(instruction.instruction_id)

    def cancel(self) -> None:
        """Follow no instruction; the latent action at hand goes with it."""
        last = self.reasoning.instruction
        self.reasoning.cancel()
        if last is not None:
            self.expert.set_instruction(last.instruction_id + 1)

    def offer_image(self, view: str, frame: Frame) -> None:
        """The newest image of a view."""
        self.expert.offer_image(view, frame)
        self.reasoning.offer_image(view, frame)

    def offer_joints(self, sample: JointSample) -> None:
        """A joint state."""
        self.expert.offer_joints(sample)

    def work(self) -> None:
        """Do all that is due now. Raises what the model raises."""
        for _ in range(_MAX_WORK):
            if self.reasoning.step() > 0.0:
                break
        for _ in range(_MAX_WORK):
            if self.expert.step() > 0.0:
                break

    def _on_text(self, update: ReasoningUpdate) -> None:
        if update.final:
            self.text = update.text
        self._told_text(update)

    def _on_latent(self, plan: Any, _: ReasoningUpdate | None, __: float) -> None:
        self._told_latent(plan)
        self.expert.offer_latent(plan)
