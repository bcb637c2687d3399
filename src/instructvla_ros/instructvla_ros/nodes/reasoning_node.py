"""reasoning_node: images and an instruction in, streamed text and latent actions out.

Topics (relative to the node's namespace): in `camera/image_raw`, `wrist/image_raw` where the VLM sees both side by
side, `safety_state`; out `reasoning`, `latent_action`; service `set_instruction`; action `execute_instruction`
(execute_server.py). Callbacks only store; the owner thread does all model work through ReasoningWorker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sensor_msgs.msg import Image

from instructvla_msgs.msg import LatentAction, Reasoning, SafetyState
from instructvla_msgs.srv import SetInstruction
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.checkpoints import load_runtime
from instructvla_ros.nodes.codecs import reasoning_to_message, s_to_time
from instructvla_ros.nodes.execute_server import ExecuteServer
from instructvla_ros.nodes.managed import ManagedNode, OwnerThread, Report, main_of
from instructvla_ros.nodes.prompt_check import is_about_the_prompt, prompt_check
from instructvla_ros.nodes.settings import REASONING, model_settings, reasoning_config
from instructvla_ros.nodes.stats import LatencyStats, RateMeter
from instructvla_ros.policy.ingest import frame_of
from instructvla_ros.policy.instructions import Instruction, InstructionError, check_instruction
from instructvla_ros.policy.reasoning_worker import ReasoningUpdate, ReasoningWorker
from instructvla_ros.policy.views import IMAGE_TOPICS, check_views, views_of_vlm

_DEAF_MODES = {
    SafetyState.MODE_STOPPED: "stopped; call the reset service (instructvla reset) first",
    SafetyState.MODE_FAULT: "in a fault; call the reset service (instructvla reset) first",
    SafetyState.MODE_INACTIVE: "not active; wait until it is (instructvla status)",
}
"""Modes of the controller in which no instruction is taken, and why: none may start a motion later on."""
_MAX_MODEL_FAILURES = 3


class ReasoningNode(ManagedNode):
    """Thread rule: the executor's thread stores, the owner thread works and publishes text and latents."""

    def __init__(self, load: Callable[..., Any] = load_runtime, **options: Any) -> None:
        super().__init__("reasoning_node", REASONING, **options)
        self._load = load
        self._worker: ReasoningWorker | None = None
        self._thread: OwnerThread | None = None
        self._last_id = 0
        self._deaf = ""
        self._heard_controller = False
        self._dropped = ""
        self._image_problems: dict[str, str] = {}
        """By view; each is there until that view is good again."""
        self._model_failures = 0
        self._subscriptions_made: list[Any] = []
        self.create_service(SetInstruction, "set_instruction", self._on_set_instruction)
        limit_s = float(self.get_parameter("time_limit_s").value)
        self._executing = ExecuteServer(self, self._accept, self._rest, limit_s)

    def destroy_node(self) -> None:
        """The action's server goes before its node."""
        self._executing.destroy()
        super().destroy_node()

    def setup(self, values: Mapping[str, Any]) -> None:
        runtime = self._load(model_settings(values), ("vlm",))
        manifest = runtime.manifest
        views = views_of_vlm(manifest)
        check_views(views)
        config = reasoning_config(values, manifest.stage)
        self._executing.time_limit_s = float(values["time_limit_s"])
        self._checkpoint_id = str(manifest.checkpoint_id)
        self._frame_id = ""
        self._text_latency, self._latent_latency = LatencyStats(), LatencyStats()
        self._latent_rate, self._tokens_per_second = RateMeter(), 0.0
        self._text_publisher = self.create_publisher(Reasoning, "reasoning", qos.REASONING)
        self._latent_publisher = self.create_publisher(LatentAction, "latent_action", qos.LATENT_ACTION)
        self._check_prompt = prompt_check(runtime, config.mode)
        self._worker = ReasoningWorker(
            runtime, config, self._publish_text, self._publish_latent, time.monotonic
        )
        self._subscriptions_made = [
            self.create_subscription(SafetyState, "safety_state", self._on_safety_state, qos.SAFETY_STATE),
            *[
                self.create_subscription(Image, IMAGE_TOPICS[view], partial(self._on_image, view), qos.IMAGE)
                for view in views
            ],
        ]
        self.get_logger().info(
            f"checkpoint {self._checkpoint_id} ({manifest.stage}): views {', '.join(views)}, text mode {config.mode}"
        )

    def start(self) -> None:
        self._model_failures = 0
        self._thread = OwnerThread("reasoning", self._step, self.fail)

    def halt(self) -> None:
        if self._thread is not None:
            if self._worker is not None:
                self._worker.cancel()
            if self._thread.stop() and self._worker is not None:
                self._worker.close()
            self._thread = None
            self._executing.on_inactive("reasoning_node was deactivated")

    def teardown(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        if self._worker is not None:
            self.destroy_publisher(self._text_publisher)
            self.destroy_publisher(self._latent_publisher)
        self._subscriptions_made, self._worker = [], None
        self._image_problems.clear()

    # Callbacks: store only.

    def _on_image(self, view: str, message: Image) -> None:
        worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            return
        try:
            frame = frame_of(message, time.monotonic())
        except ValueError as error:
            self._image_problems[view] = f"{view}: {error}"
            self.get_logger().warning(self._image_problems[view], throttle_duration_sec=5.0)
            return
        self._image_problems.pop(view, None)
        if view == "primary":  # as the stamp of what is made from both
            self._frame_id = message.header.frame_id
        worker.offer_image(view, frame)
        thread.wake()

    def _on_safety_state(self, message: SafetyState) -> None:
        # After a restart of this node, ids must go on above those that the controller already knows.
        self._last_id = max(self._last_id, message.instruction_id)
        self._heard_controller = True
        deaf = _DEAF_MODES.get(message.mode, "")
        if deaf and not self._deaf and self._worker is not None:
            self._worker.cancel()
            self.get_logger().info(f"an instruction is dropped: the controller is {deaf}")
        self._deaf = deaf
        self._executing.on_safety_state(message)

    def _on_set_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        try:
            instruction = self._accept(request.instruction, request.think)
        except InstructionError as error:
            response.accepted, response.message = False, str(error)
            return response
        response.accepted, response.instruction_id = True, instruction.instruction_id
        response.message = f"instruction {instruction.instruction_id} accepted: {instruction.text}"
        return response

    def _accept(self, given: str, think: bool) -> Instruction:
        """Follow an instruction from now on; raises InstructionError when it is refused."""
        try:
            text = check_instruction(given)
            if self._worker is None or self._thread is None:
                raise InstructionError(f"reasoning_node is {self.state_label}, not active. {self.problem}".strip())
            if not self._heard_controller and self.count_publishers("safety_state") > 0:
                # It may know ids from before a restart of this node, and would not follow one that is no greater.
                raise InstructionError("not heard of the controller yet; say it again in a second")
            if self._deaf:
                raise InstructionError(f"the controller is {self._deaf}")
            self._check_prompt(text)
        except InstructionError as error:
            self.get_logger().warning(f"instruction refused: {error}")
            raise
        return self._follow(text, think)

    def _follow(self, text: str, think: bool) -> Instruction:
        assert self._worker is not None and self._thread is not None
        self._last_id += 1
        self._dropped = ""
        instruction = Instruction(text, self._last_id, think)
        self._worker.accept(instruction)
        self._thread.wake()
        self._executing.on_instruction(instruction.instruction_id)
        self.get_logger().info(f"instruction {instruction.instruction_id} accepted: {text or 'nothing, the arm rests'}")
        return instruction

    def _rest(self) -> None:
        """End the instruction: the arm holds and is idle."""
        if self._worker is not None and self._thread is not None:
            self._follow("", think=False)

    # Owner thread.

    def _step(self) -> float:
        assert self._worker is not None
        try:
            wait_s = self._worker.step()
        except (RuntimeError, ValueError) as error:
            if is_about_the_prompt(error):
                return self._drop(str(error))
            self._model_failures += 1
            if self._model_failures >= _MAX_MODEL_FAILURES:
                raise
            self.get_logger().error(
                f"model failed ({self._model_failures} of {_MAX_MODEL_FAILURES}): {error}"
            )
            return 0.5
        if wait_s == 0.0:
            self._model_failures = 0
        return wait_s

    def _drop(self, reason: str) -> float:
        """Follow an instruction no more that the model cannot read; the arm holds, and the node takes the next one."""
        assert self._worker is not None
        dropped = self._worker.drop()
        if dropped is not None:
            self._dropped = f"instruction {dropped.instruction_id} was dropped: {reason}"
            self.get_logger().error(self._dropped)
            self._executing.on_dropped(dropped.instruction_id, reason)
        return 0.0

    def _publish_text(self, update: ReasoningUpdate) -> None:
        self._executing.on_text(update)
        known = math.isfinite(update.stamp_s)
        stamp = s_to_time(update.stamp_s) if known else self.get_clock().now().to_msg()
        self._text_publisher.publish(reasoning_to_message(update, stamp, self._frame_id))
        if update.final and update.n_tokens:
            self._text_latency.note(update.latency_s)
            self._tokens_per_second = update.tokens_per_second

    def _publish_latent(self, plan: Any, text: ReasoningUpdate | None, latency_s: float) -> None:
        # Imported here: only a process that holds a model needs torch.
        from instructvla_ros.nodes.latent_codec import plan_to_message

        seq = 0 if text is None else text.seq
        message = plan_to_message(plan, self._checkpoint_id, self._frame_id, seq, latency_s)
        self._latent_publisher.publish(message)
        self._latent_latency.note(latency_s)
        self._latent_rate.note(time.monotonic())

    def report(self) -> Report:
        worker = self._worker
        if worker is None:
            return Report("", {})
        instruction = worker.instruction
        values = {
            "checkpoint": self._checkpoint_id,
            "instruction": "" if instruction is None else f"{instruction.instruction_id}: {instruction.text}",
            "latent_rate_hz": f"{self._latent_rate.rate_hz(time.monotonic()):.2f}",
            "latent_latency": self._latent_latency.summary(),
            "text_latency": self._text_latency.summary(),
            "tokens_per_second": f"{self._tokens_per_second:.1f}",
        }
        waiting = worker.problem if instruction is not None else self._dropped
        first = next(iter(self._image_problems.values()), "")
        return Report(first or (waiting if self._thread is not None else ""), values)


def main() -> None:
    """Entry point."""
    main_of(ReasoningNode)


if __name__ == "__main__":
    main()
