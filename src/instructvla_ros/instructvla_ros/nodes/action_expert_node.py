"""action_expert_node: newest latent, images and joint states in, action chunks out.

Topics (relative unless they begin with /): in `camera/image_raw`, `wrist/image_raw`, `latent_action`, `reasoning` (for
the newest instruction id), the joint states, whose topic is a parameter, and `gripper_command` where no gripper is
measured; out `action_chunk`. Callbacks only store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float32

from instructvla_msgs.msg import ActionChunk, LatentAction, Reasoning
from instructvla_ros.control.arm import without_gripper
from instructvla_ros.control.state import STATE_DIM, JointStateReader
from instructvla_ros.control.watch import Bond
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.checkpoints import check_robot, load_runtime
from instructvla_ros.nodes.codecs import chunk_to_message
from instructvla_ros.nodes.managed import ManagedNode, OwnerThread, Report, SetupError, main_of
from instructvla_ros.nodes.parameters import build_config
from instructvla_ros.nodes.settings import EXPERT, RobotSettings, expert_config, model_settings
from instructvla_ros.nodes.stats import LatencyStats, RateMeter
from instructvla_ros.policy.expert_worker import ExpertWorker, Inputs
from instructvla_ros.policy.ingest import frame_of, sample_of
from instructvla_ros.policy.state_range import StateRange
from instructvla_ros.policy.views import IMAGE_TOPICS, check_views
from instructvla_ros.robots import arm_named

_MAX_MODEL_FAILURES = 3
_CONTROLLER = "controller_node"  # how the names of all controllers end
_LOOK_AGAIN_S = 0.05


class ActionExpertNode(ManagedNode):
    """Thread rule: the executor's thread stores, the owner thread runs the expert and publishes."""

    def __init__(self, load: Callable[..., Any] = load_runtime, **options: Any) -> None:
        super().__init__("action_expert_node", EXPERT, **options)
        self._load = load
        self._runtime: Any = None
        self._worker: ExpertWorker | None = None
        self._thread: OwnerThread | None = None
        self._subscriptions_made: list[Any] = []
        self._reader = JointStateReader(of_data_set=True)
        self._input_problems: dict[str, str] = {}
        """By input; each is there until that input is good again."""
        self._model_failures = 0
        self._controller = Bond()
        self._states: StateRange | None = None

    def setup(self, values: Mapping[str, Any]) -> None:
        robot = build_config(RobotSettings(), values)
        arm = arm_named(robot.arm)
        if robot.gripper == "none":
            arm = without_gripper(arm)
        self._reader = JointStateReader(arm, of_data_set=True)
        self._runtime = self._load(model_settings(values), ("expert",))
        manifest = self._runtime.manifest
        check_robot(manifest, arm)
        check_views(manifest.views)
        if manifest.state_dim not in (0, STATE_DIM):
            raise SetupError(
                f"checkpoint wants a state of {manifest.state_dim} numbers; this robot has {STATE_DIM}"
            )
        config = expert_config(values, tuple(manifest.views), manifest.state_dim > 0)
        self._checkpoint_id = str(manifest.checkpoint_id)
        self._frame_id = robot.base_frame
        self._silence_s = float(values["controller_silence_s"])
        statistics = getattr(manifest, "statistics", None)
        state = None if statistics is None else statistics.state
        self._states = None if state is None else StateRange(state.q01, state.q99)
        self._latency, self._rate = LatencyStats(), RateMeter()
        self._publisher = self.create_publisher(ActionChunk, "action_chunk", qos.ACTION_CHUNK)
        self._worker = ExpertWorker(self._act, config, self._publish, time.monotonic, arm)
        keep = self._subscriptions_made.append  # one by one: where a name is bad, `teardown` finds those before it
        keep(self.create_subscription(LatentAction, "latent_action", self._on_latent, qos.LATENT_ACTION))
        keep(self.create_subscription(Reasoning, "reasoning", self._on_reasoning, qos.REASONING))
        keep(self.create_subscription(DiagnosticStatus, "heartbeat", self._on_heartbeat, qos.HEARTBEAT))
        keep(self.create_subscription(JointState, robot.joint_states_topic, self._on_joint_state, qos.JOINT_STATES))
        if not arm.fingers.joint:
            keep(self.create_subscription(Float32, "gripper_command", self._on_gripper, qos.GRIPPER_COMMAND))
        for view in config.views:
            keep(self.create_subscription(Image, IMAGE_TOPICS[view], partial(self._on_image, view), qos.IMAGE))
        self.get_logger().info(
            f"checkpoint {self._checkpoint_id}: views {', '.join(config.views)}, horizon {manifest.horizon}"
        )

    def start(self) -> None:
        self._model_failures = 0
        self._thread = OwnerThread("expert", self._step, self.fail)

    def halt(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def teardown(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        if self._worker is not None:
            self.destroy_publisher(self._publisher)
        self._subscriptions_made, self._worker, self._runtime = [], None, None
        self._input_problems.clear()

    # Callbacks: store only.

    def _on_image(self, view: str, message: Image) -> None:
        worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            return
        try:
            frame = frame_of(message, time.monotonic())
        except ValueError as error:
            self._complain(view, f"{view}: {error}")
            return
        self._input_problems.pop(view, None)
        worker.offer_image(view, frame)
        thread.wake()

    def _on_joint_state(self, message: JointState) -> None:
        worker = self._worker
        if worker is None:
            return
        try:
            sample = sample_of(self._reader, message, time.monotonic())
        except ValueError as error:
            self._complain("joint states", str(error))
            return
        self._input_problems.pop("joint states", None)
        worker.offer_joints(sample)

    def _on_gripper(self, message: Float32) -> None:
        self._reader.told_opening = float(message.data)

    def _on_latent(self, message: LatentAction) -> None:
        from instructvla_ros.nodes.latent_codec import message_to_plan

        worker = self._worker
        if worker is None:
            return
        if message.checkpoint_id != self._checkpoint_id:
            self._complain(
                "latent actions",
                f"latent action comes from checkpoint {message.checkpoint_id}, "
                f"this expert is {self._checkpoint_id}; "
                "start both nodes with the same checkpoint",
            )
            return
        try:
            plan = message_to_plan(message)
        except ValueError as error:
            self._complain("latent actions", str(error))
            return
        self._input_problems.pop("latent actions", None)
        reason = worker.offer_latent(plan)
        if reason:
            self.get_logger().debug(reason)

    def _on_reasoning(self, message: Reasoning) -> None:
        if self._worker is not None:
            self._worker.set_instruction(message.instruction_id)

    def _on_heartbeat(self, message: DiagnosticStatus) -> None:
        if message.name.endswith(_CONTROLLER):
            self._controller.heard(message.hardware_id, time.monotonic())

    def _complain(self, source: str, problem: str) -> None:
        self._input_problems[source] = problem
        self.get_logger().warning(problem, throttle_duration_sec=5.0)

    # Owner thread.

    def _step(self) -> float:
        assert self._worker is not None
        if self._controller_is_silent():
            return _LOOK_AGAIN_S
        try:
            wait_s = self._worker.step()
        except (RuntimeError, ValueError) as error:
            self._model_failures += 1
            if self._model_failures >= _MAX_MODEL_FAILURES:
                raise
            self.get_logger().error(
                f"expert failed ({self._model_failures} of {_MAX_MODEL_FAILURES}): {error}"
            )
            return 0.5
        if wait_s == 0.0:
            self._model_failures = 0
        return wait_s

    def _controller_is_silent(self) -> bool:
        return self._controller.silent_s(time.monotonic()) > self._silence_s

    def _act(self, inputs: Inputs, plan: Any, *, seed: int | None, seq: int) -> Any:
        from instructvla_model.types import Observation

        if self._states is not None and inputs.state is not None:
            self._states.note(inputs.state)
        observation = Observation(images=inputs.images, state=inputs.state, stamp_s=inputs.stamp_s)
        return self._runtime.act(observation, plan, seed=seed, seq=seq)

    def _publish(self, chunk: Any, latency_s: float) -> None:
        self._publisher.publish(chunk_to_message(chunk, self._frame_id, latency_s))
        self._latency.note(latency_s)
        self._rate.note(time.monotonic())

    def report(self) -> Report:
        worker = self._worker
        if worker is None:
            return Report("", {})
        values = {
            "checkpoint": self._checkpoint_id,
            "chunk_rate_hz": f"{self._rate.rate_hz(time.monotonic()):.2f}",
            "chunk_latency": self._latency.summary(),
            "latent_age_s": f"{worker.latent_age_s():.2f}",
            "chunks": str(self._rate.count),
            "bad_chunks": str(worker.bad_chunks),
        }
        if self._controller_is_silent():
            silent = f"no heartbeat of the controller for {self._silence_s:g} s; no chunks are made (F13)"
            return Report(silent, values, fault=True)
        unlike = "" if self._states is None else self._states.problem
        first = next(iter(self._input_problems.values()), "")
        return Report(first or worker.stale or worker.aging or unlike, values | {"waiting_for": worker.problem})


def main() -> None:
    """Entry point."""
    main_of(ActionExpertNode)


if __name__ == "__main__":
    main()
