"""widowx_controller_node: action chunks in, joint goals and gripper PWM for the Interbotix driver out.

Topics (relative unless they begin with /): in `action_chunk`, `reasoning` (for the newest instruction id),
`camera/image_raw` (stamps only), `estop`, `/<robot_name>/joint_states`; out `ee_delta`, `gripper_command`,
`safety_state`, `/<robot_name>/commands/joint_group` and `joint_single`; services `~/stop`, `~/reset`.
"""

from __future__ import annotations

import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float32
from std_srvs.srv import Trigger

from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, Reasoning, SafetyState
from instructvla_ros.control import Command, Mode, WidowXController
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.codecs import (
    message_to_chunk,
    raw_stamp_s,
    safety_mode,
    step_to_message,
    time_to_s,
)
from instructvla_ros.nodes.controller_watch import ControllerWatch
from instructvla_ros.nodes.driver_client import DriverClient
from instructvla_ros.nodes.managed import ManagedNode, OwnerThread, main_of
from instructvla_ros.nodes.settings import CONTROLLER, controller_config, driver_settings, watch_config
from instructvla_ros.nodes.stats import RateMeter

_INBOX_LIMIT = 1000
_PIXELS_AT = 12  # behind encapsulation and stamp: what else there is of the header does not change


class WidowXControllerNode(ManagedNode):
    """Thread rule: callbacks put closures into the inbox; the control thread empties it, ticks and publishes.

    Stop and e-stop also only go through the inbox, which is emptied in every tick: 20 ms at 50 Hz.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("widowx_controller_node", CONTROLLER, **options)
        self._inbox: deque[Callable[[WidowXController, float], None]] = deque(maxlen=_INBOX_LIMIT)
        self._controller: WidowXController | None = None
        self._driver: DriverClient | None = None
        self._watch: ControllerWatch | None = None
        self._thread: OwnerThread | None = None
        self._subscriptions_made: list[Any] = []
        self._command: Command | None = None
        self._counters = SafetyState()
        self._stop_wanted = ""
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._safety_publisher = self.create_publisher(SafetyState, "safety_state", qos.SAFETY_STATE)
        self._publish_inactive("not configured")

    def setup(self, values: Mapping[str, Any]) -> None:
        settings = driver_settings(values)
        config = controller_config(values)
        self._controller = WidowXController(config)
        self._warn_image_age_s = config.safety.warn_image_age_s
        self._period_s = 1.0 / settings.control_rate_hz
        self._state_period_s = 1.0 / settings.state_rate_hz
        self._frame_id = f"{settings.robot_name}/base_link"
        self._driver = DriverClient(self, settings)
        self._driver.check_robot()
        self._delta_publisher = self.create_publisher(EndEffectorDelta, "ee_delta", qos.EE_DELTA)
        self._gripper_publisher = self.create_publisher(Float32, "gripper_command", qos.GRIPPER_COMMAND)
        self._goal_rate = RateMeter(window=500)
        joint_topic = f"/{settings.robot_name}/joint_states"
        self._subscriptions_made = [
            self.create_subscription(JointState, joint_topic, self._on_joint_state, qos.JOINT_STATES),
            self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, qos.ACTION_CHUNK),
            self.create_subscription(Reasoning, "reasoning", self._on_reasoning, qos.REASONING),
            self.create_subscription(Bool, "estop", self._on_estop, qos.EMERGENCY_STOP),
            # Only the stamp of an image matters here, so it is not deserialized.
            self.create_subscription(Image, "camera/image_raw", self._on_raw_image, qos.IMAGE, raw=True),
        ]
        chunk_topic = self._subscriptions_made[1].topic_name
        others = self._driver.other_publishers
        self._watch = ControllerWatch(self, watch_config(values), self._post, others, chunk_topic)
        self._publish_inactive("configured, not active")

    def start(self) -> None:
        assert self._driver is not None and self._controller is not None
        self._driver.prepare()
        self._inbox.clear()
        self._controller.reset(self._now_s())
        if self._stop_wanted:
            self._controller.stop(self._stop_wanted)
        self._next_tick_s = time.monotonic()
        self._next_state_s = 0.0
        self._thread = OwnerThread("control", self._step, self.fail)

    def halt(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
            if self.context.ok():
                # The servo keeps the last PWM: full force on an object, unwatched, would overload it.
                if self._driver is not None and self._controller is not None:
                    self._driver.send_gripper(self._controller.resting_pwm)
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
            self._counters.chunks_rejected += 1
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        self._inbox.append(lambda c, now_s: self._take_chunk(c, chunk, now_s))

    def _on_reasoning(self, message: Reasoning) -> None:
        instruction_id, ended = message.instruction_id, not message.instruction
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
        self._stop_wanted = ""
        if self._thread is None:
            response.success, response.message = (
                False,
                f"controller is {self.state_label}. {self.problem}".strip(),
            )
            return response
        self._inbox.append(lambda c, now_s: c.reset(now_s))
        response.success = True
        response.message = "reset; the target is anchored at the measured pose, give an instruction to go on"
        return response

    def _latch(self, reason: str) -> None:
        # Kept beside the inbox: a stop must also hold for an activation that comes later.
        self._stop_wanted = reason
        self._inbox.append(lambda c, now_s: c.stop(reason))
        self.get_logger().warning(f"stop: {reason}")

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(lambda c, now_s: action())

    # Control thread.

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _take_chunk(self, controller: WidowXController, chunk: Any, now_s: float) -> None:
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
        if self._watch is not None:
            self._watch.apply(controller, now_s)
        command = controller.tick(now_s)
        if command.joint_goal_rad is not None:
            driver.send_joints(command.joint_goal_rad)
            self._counters.commands_sent += 1
            self._goal_rate.note(time.monotonic())
        if command.gripper_pwm is not None:
            driver.send_gripper(command.gripper_pwm)
        if command.step is not None:
            self._counters.steps_executed += 1
            self._counters.steps_clamped += int(command.step.clamped)
            self._delta_publisher.publish(step_to_message(command.step, self._frame_id))
            self._gripper_publisher.publish(Float32(data=float(command.step.gripper)))
        self._publish_state(command, controller.instruction_id, controller.following)
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

    def report(self) -> tuple[str, Mapping[str, str]]:
        controller, command, driver = self._controller, self._command, self._driver
        if controller is None or driver is None or self._thread is None or command is None:
            return "", {}
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
            return f"camera image is {image_age_s:.2f} s old (F01)", values
        return (f"{command.fault_id} {command.reason}" if command.fault_id else ""), values


def main() -> None:
    """Entry point."""
    main_of(WidowXControllerNode)


if __name__ == "__main__":
    main()
