"""A Franka behind one of three routes, its hand, its robot mode, and the way out of a reflex."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from controller_manager_msgs.srv import SetHardwareComponentState, SwitchController
from franka_msgs.action import ErrorRecovery
from franka_msgs.msg import FrankaRobotState
from lifecycle_msgs.msg import State
from moveit_msgs.srv import ServoCommandType
from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from instructvla_ros.control import ArmModel, Command
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.driver_checks import wait_for_joint_states
from instructvla_ros.nodes.franka_gripper import FrankaGripper
from instructvla_ros.nodes.franka_state import FAULT_ID, MOVE, STOPPING, RobotWatch
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.routes import (
    LATCHED,
    JointTrajectoryRoute,
    Offset,
    PoseRoute,
    Route,
    TwistConfig,
    TwistRoute,
    interpolation_notice,
)
from instructvla_ros.nodes.service_calls import ServiceCalls, service_calls
from instructvla_ros.nodes.settings_franka import FrankaSettings

_STATE_PERIOD_S = 0.02  # of reading the robot state, which comes up to a thousand times a second
_S, _C = math.sin(math.pi / 4), math.cos(math.pi / 4)
_TCP_M = 0.1034
OFFSETS: Mapping[str, Offset] = {
    "hand_tcp": Offset(np.eye(3), np.zeros(3)),
    "hand": Offset(np.eye(3), np.array([0.0, 0.0, -_TCP_M])),
    "link8": Offset(np.array([[_C, -_S, 0.0], [_S, _C, 0.0], [0.0, 0.0, 1.0]]), np.array([0.0, 0.0, -_TCP_M])),
}
"""Where the frame lies that the route's controller moves, seen from the TCP."""


class FrankaDriver:
    """Implements `Driver`. `measured` gives joint positions that are recent enough to move by, or None; `robot`, which
    the controller asks too, whether the robot may be told where to go."""

    def __init__(
        self,
        node: Any,
        arm: ArmModel,
        settings: FrankaSettings,
        timing: TrackerConfig,
        measured: Callable[[], np.ndarray | None],
        robot: RobotWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._arm, self._settings = node, arm, settings
        self.joint_states_topic, self.base_frame = settings.joint_states_topic, settings.base_frame
        self.problem_id = FAULT_ID
        self._route = make_route(node, arm, settings, timing, measured)
        self._hand = FrankaGripper(node, settings.hand)
        self._robot, self._clock, self._set_back = robot, clock, ""
        self._read_s = -math.inf
        self._state = node.create_subscription(
            FrankaRobotState, settings.robot_state_topic, self._on_state, qos.ROBOT_STATE, raw=True
        )

    def close(self) -> None:
        """Destroy publisher, clients and subscription."""
        self._node.destroy_subscription(self._state)
        self._hand.close()
        self._route.close()

    @property
    def problem(self) -> str:
        """Why the robot itself has stopped the arm, in words, or ""."""
        return self._robot.problem

    @property
    def notice(self) -> str:
        """What does not work, though the arm may move."""
        if self._hand.notice:
            return self._hand.notice
        if self._robot.mode is None:
            topic = self._settings.robot_state_topic
            return f"nothing heard on {topic}: a reflex or the user stop will not be noticed"
        return self._set_back

    # Robot mode: executor's thread.

    def _on_state(self, serialized: bytes) -> None:
        if self._clock() - self._read_s >= _STATE_PERIOD_S:
            self._note(deserialize_message(serialized, FrankaRobotState))

    def _note(self, state: FrankaRobotState) -> None:
        self._read_s = self._clock()
        errors = ", ".join(error_names(state.current_errors) or error_names(state.last_motion_errors))
        self._robot.note(state.robot_mode, errors, self._read_s)

    # Transitions and the reset service.

    def _services(self) -> Any:
        return service_calls(self._node, self._settings.service_timeout_s)

    def check(self) -> None:
        """Joint states of this arm are heard and somebody listens to the route; raises SetupError."""
        wait_for_joint_states(self._node, self._arm, self.joint_states_topic, self._settings.service_timeout_s)
        if self._node.count_subscribers(self._route.topic) == 0:
            raise SetupError(
                f"nobody listens on {self._route.topic}; start the controller of route {self._settings.route!r}, "
                "or set another route"
            )
        if self._settings.route == "joint_trajectory":
            self._set_back = interpolation_notice(self._node, self._route.topic)

    def prepare(self) -> None:
        """Tell MoveIt Servo what it will hear; the other routes need nothing. Raises SetupError."""
        servo, route = self._settings.servo, self._settings.route
        if not route.startswith("servo"):
            return
        with self._services() as services:
            if servo.api == "humble":
                started = services.call(Trigger, f"{servo.node}/start_servo", Trigger.Request()).success
            else:
                kind = ServoCommandType.Request.TWIST if route == "servo_twist" else ServoCommandType.Request.POSE
                request = ServoCommandType.Request(command_type=kind)
                started = services.call(ServoCommandType, f"{servo.node}/switch_command_type", request).success
        if not started:
            raise SetupError(f"MoveIt Servo at {servo.node} refused the route {route}; see its log")

    def recover(self, anew: bool) -> None:
        """Out of a reflex in the vendor's order, and with the start's checks and preparations where the robot was away;
        nothing else needs recovering. Raises SetupError."""
        if anew:
            self.check()
            self._hear_again()
        mode = self._robot.mode
        if mode == FrankaRobotState.ROBOT_MODE_USER_STOPPED:
            raise SetupError("the user stop is pressed; release it first")
        if mode == FrankaRobotState.ROBOT_MODE_GUIDING:
            raise SetupError("the robot is being guided by hand; leave the guiding mode first")
        if mode is not None and mode != MOVE:
            self._leave_reflex()
        if anew:
            self.prepare()

    def _hear_again(self) -> None:
        """A robot that once said its mode does so again: what it said before it fell silent is of no use."""
        if not self._robot.outdated(self._clock()):
            return
        topic = self._settings.robot_state_topic
        with self._services() as services:
            state = services.hear(FrankaRobotState, topic, qos.ROBOT_STATE, lambda _: True)
        if state is None:
            raise SetupError(f"no robot state on {topic}; start the robot's driver, and its broadcaster with it")
        self._note(state)

    def _leave_reflex(self) -> None:
        recovery = self._settings.recovery
        controllers = list(recovery.motion_controllers)
        with self._services() as services:
            self._switch(services, [], controllers)
            services.act(ErrorRecovery, recovery.action, ErrorRecovery.Goal())
            request = SetHardwareComponentState.Request(name=recovery.hardware)
            request.target_state.id, request.target_state.label = State.PRIMARY_STATE_ACTIVE, "active"
            name = f"{recovery.controller_manager}/set_hardware_component_state"
            if not services.call(SetHardwareComponentState, name, request).ok:
                raise SetupError(f"{recovery.hardware} did not become active; see the controller manager's log")
            self._switch(services, controllers, [])
            # Heard before the target is anchored: a state from before the recovery would stop the arm again.
            topic = self._settings.robot_state_topic
            state = services.hear(FrankaRobotState, topic, qos.ROBOT_STATE, lambda s: s.robot_mode not in STOPPING)
            if state is None:
                why = self.problem or f"no robot state on {topic} says that the robot is ready"
                raise SetupError(f"{why} still, after the recovery; see the robot's own log")
            self._note(state)

    def _switch(self, services: ServiceCalls, activate: list[str], deactivate: list[str]) -> None:
        if not activate and not deactivate:
            return
        request = SwitchController.Request(activate_controllers=activate, deactivate_controllers=deactivate)
        # Deactivating what is inactive already must not fail; activating must be complete.
        kinds = SwitchController.Request
        request.strictness = kinds.STRICT if activate else kinds.BEST_EFFORT
        name = f"{self._settings.recovery.controller_manager}/switch_controller"
        answer = services.call(SwitchController, name, request)
        if activate and not answer.ok:
            raise SetupError(f"{', '.join(activate)} could not be activated: {answer.message or 'see its log'}")

    # Control thread.

    def send(self, command: Command) -> None:
        """The arm's goal by the route, the width to the hand; neither while the robot takes none."""
        if not self._robot.streams(self._clock()):
            self._route.rest()
            return
        self._route.send(command)
        if command.gripper_width_m is not None and command.mode not in LATCHED:
            self._hand.want(command.gripper_width_m)

    def stopped(self) -> None:
        """Cancel the hand's motion; what it holds stays held."""
        self._hand.cancel()

    def rest(self) -> None:
        """The arm comes to rest, and the hand with it; what it holds stays held. When the control thread has ended."""
        self._route.rest()
        self._hand.cancel_now()

    def other_publishers(self) -> int:
        """How many publishers besides this one command the arm."""
        return max(0, self._node.count_publishers(self._route.topic) - 1)


def make_route(
    node: Any,
    arm: ArmModel,
    settings: FrankaSettings,
    timing: TrackerConfig,
    measured: Callable[[], np.ndarray | None],
) -> Route:
    """The publisher of the route that the settings name."""
    servo, frame, offset = settings.servo, settings.base_frame, OFFSETS[settings.command_frame]
    if settings.route == "joint_trajectory":
        return JointTrajectoryRoute(node, settings.trajectory_topic, arm, timing)
    if settings.route == "target_pose":
        return PoseRoute(node, settings.pose_topic, arm, frame, offset)
    if settings.route == "servo_pose":
        return PoseRoute(node, f"{servo.node}/pose_target_cmds", arm, frame, offset)
    config = TwistConfig(gain_per_s=servo.gain_per_s, unitless=servo.unitless)
    return TwistRoute(node, f"{servo.node}/delta_twist_cmds", arm, frame, measured, config, offset)


def error_names(errors: Any) -> list[str]:
    """The errors of a franka_msgs/Errors that are set."""
    return [name for name in errors.get_fields_and_field_types() if getattr(errors, name)]
