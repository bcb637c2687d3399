"""What the controller nodes of all arms share: action chunks in, commands of the arm's driver out.

Topics (relative unless they begin with /): in `action_chunk`, `reasoning` (for the newest instruction id),
`camera/image_raw` (stamps only), `estop` and the driver's joint states; out `ee_delta`, `gripper_command`,
`safety_state` and what the driver listens to; services `~/stop`, `~/reset`, `~/home`, `~/sleep`.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float32
from std_srvs.srv import Trigger

from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, Reasoning, SafetyState
from instructvla_ros.control import ArmController, Command, Mode
from instructvla_ros.control.safety import Verdict
from instructvla_ros.control.watch import WatchConfig
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.codecs import message_to_chunk, safety_mode, step_to_message, time_to_s
from instructvla_ros.nodes.controller_watch import ControllerWatch
from instructvla_ros.nodes.managed import ManagedNode, OwnerThread, Report, SetupError
from instructvla_ros.nodes.parameters import Parameter
from instructvla_ros.nodes.stats import RateMeter
from instructvla_ros.policy.ingest import raw_stamp_s

_INBOX_LIMIT = 1000
_ANSWER_S = 1.0
_PIXELS_AT = 12  # behind encapsulation and stamp: what else there is of the header does not change


class Driver(Protocol):
    """The arm's own driver as a controller node sees it. Only a driver makes publishers to the robot.

    Unless said otherwise, methods are called by the control thread.
    """

    joint_states_topic: str
    base_frame: str
    problem: str
    """A fault of the robot itself, in words: the arm is stopped for it. "" while there is none."""
    problem_id: str
    notice: str
    """What does not work, though the arm may move; for /diagnostics."""

    def check(self) -> None:
        """In the configure transition: is the robot there, and the right one? Raises SetupError."""

    def prepare(self) -> None:
        """In the activate transition: modes, profiles, torque. Raises SetupError."""

    def recover(self, anew: bool) -> None:
        """In the reset service, before the target is anchored anew. `anew`: the robot had fallen silent, so all must be
        there again and is set up as at the start. Raises SetupError when the robot stays in fault, or away."""

    def send(self, command: Command) -> None:
        """Publish what the command says."""

    def stopped(self) -> None:
        """A stop has latched: cancel what would go on by itself."""

    def rest(self) -> None:
        """Nobody will watch any more: leave the robot so that this does no harm."""

    def other_publishers(self) -> int:
        """How many publishers besides this one command the arm; two commanders fight. Executor's thread."""

    def close(self) -> None:
        """Destroy publishers, clients and subscriptions. Executor's thread."""


@dataclass(frozen=True)
class ControllerParts:
    """What a robot's node brings: its controller, its driver and its rates."""

    controller: ArmController
    driver: Driver
    control_rate_hz: float
    state_rate_hz: float
    watch: WatchConfig


class ControllerNode(ManagedNode):
    """Subclasses implement `make`. Thread rule: callbacks put closures into the inbox; the control thread empties it,
    ticks and publishes.

    Stop and e-stop also only go through the inbox, which is emptied in every tick: 20 ms at 50 Hz.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter], **options: Any) -> None:
        super().__init__(name, parameters, **options)
        self._inbox: deque[Callable[[ArmController, float], None]] = deque(maxlen=_INBOX_LIMIT)
        self._controller: ArmController | None = None
        self._driver: Driver | None = None
        self._watch: ControllerWatch | None = None
        self._thread: OwnerThread | None = None
        self._subscriptions_made: list[Any] = []
        self._command: Command | None = None
        self._counters = SafetyState()
        self._stop_wanted = ""
        self._was_stopped = self._recovering = False
        self._newest_id = 0
        # From the first moment on, and from best-effort buttons too: two subscriptions, since a reliable one does not
        # hear those, and a best-effort one may lose what a reliable button sends.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        for profile in (qos.EMERGENCY_STOP, qos.EMERGENCY_STOP_BEST_EFFORT):
            self.create_subscription(Bool, "estop", self._on_estop, profile, event_callbacks=quiet)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/home", self._on_home)
        self.create_service(Trigger, "~/sleep", self._on_sleep)
        self._safety_publisher = self.create_publisher(SafetyState, "safety_state", qos.SAFETY_STATE)
        self._publish_inactive("not configured")

    def make(self, values: Mapping[str, Any]) -> ControllerParts:
        """Controller and driver from the parameters; raises ValueError for values that cannot be."""
        raise NotImplementedError

    def setup(self, values: Mapping[str, Any]) -> None:
        parts = self.make(values)
        self._controller, self._driver = parts.controller, parts.driver
        self._warn_image_age_s = parts.controller.config.safety.warn_image_age_s
        self._period_s = 1.0 / parts.control_rate_hz
        self._state_period_s = 1.0 / parts.state_rate_hz
        self._frame_id = parts.driver.base_frame
        self._driver.check()
        self._delta_publisher = self.create_publisher(EndEffectorDelta, "ee_delta", qos.EE_DELTA)
        self._gripper_publisher = self.create_publisher(Float32, "gripper_command", qos.GRIPPER_COMMAND)
        self._goal_rate = RateMeter(window=500)
        joint_topic = parts.driver.joint_states_topic
        self._subscriptions_made = [
            self.create_subscription(JointState, joint_topic, self._on_joint_state, qos.JOINT_STATES),
            self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, qos.ACTION_CHUNK),
            self.create_subscription(Reasoning, "reasoning", self._on_reasoning, qos.REASONING),
            # Only the stamp of an image matters here, so it is not deserialized.
            self.create_subscription(Image, "camera/image_raw", self._on_raw_image, qos.IMAGE, raw=True),
        ]
        chunk_topic = self._subscriptions_made[1].topic_name
        self._watch = ControllerWatch(self, parts.watch, self._post, self._driver.other_publishers, chunk_topic)
        self._publish_inactive("configured, not active")

    def start(self) -> None:
        assert self._driver is not None and self._controller is not None
        self._driver.prepare()
        self._inbox.clear()
        self._controller.reset(self._now_s())
        self._controller.end_instructions(self._newest_id)  # what was asked for before starts no motion now
        self._next_tick_s = time.monotonic()
        self._next_state_s = 0.0
        self._thread = OwnerThread("control", self._step, self.fail)

    def halt(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
            if self.context.ok():
                if self._driver is not None:
                    self._driver.rest()
                self._publish_inactive("not active")

    def teardown(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._subscriptions_made:
            self.destroy_publisher(self._delta_publisher)
            self.destroy_publisher(self._gripper_publisher)
        if self._driver is not None:
            self._driver.close()
        self._subscriptions_made, self._driver, self._controller = [], None, None

    # Callbacks: store only.

    def _on_joint_state(self, message: JointState) -> None:
        names, positions, stamp_s = message.name, message.position, time_to_s(message.header.stamp)
        self._inbox.append(lambda c, now_s: c.on_joint_state(names, positions, None, stamp_s, now_s))

    def _on_chunk(self, message: ActionChunk) -> None:
        try:
            chunk = message_to_chunk(message)
        except ValueError as error:
            bad = Verdict(False, "F19", str(error))
            self._counters.chunks_rejected += 1
            self.get_logger().warning(bad.reason, throttle_duration_sec=5.0)
            self._inbox.append(lambda c, now_s: c.on_bad_chunk(bad))
            return
        self._inbox.append(lambda c, now_s: self._take_chunk(c, chunk, now_s))

    def _on_reasoning(self, message: Reasoning) -> None:
        instruction_id, ended = message.instruction_id, not message.instruction
        self._newest_id = max(self._newest_id, instruction_id)
        self._inbox.append(lambda c, now_s: c.on_instruction(instruction_id, now_s, ended=ended))

    def _on_raw_image(self, serialized: bytes) -> None:
        try:
            stamp_s = raw_stamp_s(serialized)
        except ValueError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        digest = zlib.crc32(memoryview(serialized)[_PIXELS_AT:])
        self._inbox.append(lambda c, now_s: c.on_image(stamp_s, now_s, digest))

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self._latch("emergency stop on the estop topic")

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._latch("stop service")
        response.success, response.message = True, "stopped; the arm holds until the reset service is called"
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._thread is None or self._driver is None or self._controller is None:
            self._stop_wanted = ""
            return self._refuse(response, f"controller is {self.state_label}. {self.problem}".strip())
        self._recovering = True  # by the thread that hears joint states: that none come now says nothing
        try:
            self._driver.recover(self._controller.ceased)  # the arm holds by the latch meanwhile
        except SetupError as error:
            return self._refuse(response, f"still stopped: {error}")
        finally:
            self._recovering = False
        self._stop_wanted = ""
        self._inbox.append(lambda c, now_s: c.reset(now_s))
        response.success = True
        response.message = "reset; the target is anchored at the measured pose, give an instruction to go on"
        return response

    def _refuse(self, response: Trigger.Response, why: str) -> Trigger.Response:
        response.success, response.message = False, why
        return response

    def _on_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._go(response, lambda c: c.arm.home_rad, "home")

    def _on_sleep(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._go(response, lambda c: c.arm.sleep_rad, "sleep")

    def _go(
        self, response: Trigger.Response, posture_of: Callable[[ArmController], Any], name: str
    ) -> Trigger.Response:
        if self._thread is None or self._controller is None:
            return self._refuse(response, f"controller is {self.state_label}. {self.problem}".strip())
        answer: list[str] = []
        done = threading.Event()

        def go(controller: ArmController, now_s: float) -> None:
            answer.append(controller.go_to(posture_of(controller), now_s))
            done.set()

        self._inbox.append(go)
        if not done.wait(_ANSWER_S) or answer[0]:
            return self._refuse(response, answer[0] if answer else "the control thread did not answer")
        response.success, response.message = True, f"on the way to the {name} posture"
        return response

    def _latch(self, reason: str) -> None:
        # Kept beside the inbox, which may overflow: a stop must not be lost, and hold for a later activation too.
        self._stop_wanted = reason
        self._inbox.append(lambda c, now_s: c.stop(reason))
        self.get_logger().warning(f"stop: {reason}")

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(lambda c, now_s: action())

    # Control thread.

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _take_chunk(self, controller: ArmController, chunk: Any, now_s: float) -> None:
        if self._watch is not None:
            self._watch.on_chunk()
        if controller.on_chunk(chunk, now_s):
            self._counters.chunks_rejected += 1
        else:
            self._counters.chunks_accepted += 1

    def _step(self) -> float:
        controller, driver = self._controller, self._driver
        assert controller is not None and driver is not None
        wait_s = self._next_tick_s - time.monotonic()
        if wait_s > 0.0:
            return wait_s
        now_s = self._now_s()
        while self._inbox:
            self._inbox.popleft()(controller, now_s)
        if self._stop_wanted and not controller.stopped:
            controller.stop(self._stop_wanted)
        if self._watch is not None:
            self._watch.apply(controller, now_s)
        if driver.problem and not controller.stopped:
            controller.stop(driver.problem, driver.problem_id)
        if self._recovering:
            controller.excuse_silence()
        command = controller.tick(now_s)
        if controller.stopped and not self._was_stopped:
            driver.stopped()
        self._was_stopped = controller.stopped
        if command.joint_goal_rad is not None:
            self._counters.commands_sent += 1
            self._goal_rate.note(time.monotonic())
        if command.step is not None:
            self._counters.steps_executed += 1
            self._counters.steps_clamped += int(command.step.clamped)
        # Before the goal: whoever looks on knows that a stop is over before the first goal after it.
        self._publish_state(command, controller.instruction_id, controller.following)
        driver.send(command)
        if command.step is not None:
            self._delta_publisher.publish(step_to_message(command.step, self._frame_id))
            self._gripper_publisher.publish(Float32(data=float(command.step.gripper)))
        # Late ticks are skipped, not made up for.
        self._next_tick_s = max(self._next_tick_s + self._period_s, time.monotonic() - self._period_s)
        return max(0.0, self._next_tick_s - time.monotonic())

    def _publish_state(self, command: Command, instruction_id: int, following: bool) -> None:
        last, self._command = self._command, command
        key = (command.mode, command.fault_id)
        changed = last is None or (last.mode, last.fault_id) != key
        if changed and command.mode is Mode.HOLD and last is not None and last.mode is Mode.MOVING:
            self._counters.holds += 1
        now_s = time.monotonic()
        if not changed and now_s < self._next_state_s:
            return
        self._next_state_s = now_s + self._state_period_s
        if changed:
            self._log_change(command)
        message = self._counters
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), self._frame_id
        message.mode = safety_mode(command, instruction_id if following else 0)
        message.reason, message.fault_id, message.instruction_id = (
            command.reason,
            command.fault_id,
            instruction_id,
        )
        self._safety_publisher.publish(message)

    def _log_change(self, command: Command) -> None:
        text = f"{command.mode.value}: {command.fault_id} {command.reason}".rstrip(": ")
        if command.mode in (Mode.STOPPED, Mode.FAULT):
            self.get_logger().error(text)
        elif command.fault_id:
            self.get_logger().warning(text, throttle_duration_sec=2.0)
        else:
            self.get_logger().debug(text)

    def _publish_inactive(self, reason: str) -> None:
        self._command = None
        message = self._counters
        message.header.stamp = self.get_clock().now().to_msg()
        message.mode, message.reason, message.fault_id = SafetyState.MODE_INACTIVE, reason, ""
        self._safety_publisher.publish(message)

    def report(self) -> Report:
        controller, command, driver = self._controller, self._command, self._driver
        if controller is None or driver is None or self._thread is None or command is None:
            return Report("", {})
        values = {
            "mode": command.mode.value,
            "reason": command.reason,
            "instruction_id": str(controller.instruction_id),
            "goal_rate_hz": f"{self._goal_rate.rate_hz(time.monotonic()):.2f}",
            "longest_goal_gap_ms": f"{self._goal_rate.longest_gap_s() * 1e3:.1f}",
            "image_age_s": f"{controller.image_age_s(self._now_s()):.2f}",
            "faults": ", ".join(f"{key} {count}" for key, count in sorted(controller.counts.items())),
        }
        image_age_s = controller.image_age_s(self._now_s())
        if not command.fault_id and self._warn_image_age_s < image_age_s < math.inf:
            return Report(f"camera image is {image_age_s:.2f} s old (F01)", values)
        if command.fault_id:  # an arm that moves nevertheless follows what was clamped
            return Report(f"{command.fault_id} {command.reason}", values, fault=command.mode is not Mode.MOVING)
        return Report(driver.notice, values)
