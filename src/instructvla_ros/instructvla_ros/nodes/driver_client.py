"""The Interbotix driver as the controller sees it: its services with time limits, its two command topics, the servos'
errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes, Reboot, RegisterValues, RobotInfo, TorqueEnable

from instructvla_ros.control import WX250S, Command, Mode
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.service_calls import ServiceCalls, service_calls
from instructvla_ros.nodes.settings import DriverSettings

_ERROR_BITS = {0: "input voltage", 2: "overheating", 3: "motor encoder", 4: "electrical shock", 5: "overload"}


def error_names(status: int) -> str:
    """The bits of a Dynamixel X servo's Hardware_Error_Status in words."""
    known = [name for bit, name in _ERROR_BITS.items() if status >> bit & 1]
    return ", ".join(known) or f"status {status}"


class DriverClient:
    """Implements `Driver`. `resting_pwm` says with what the gripper may be left alone.

    The servos' faults are silent, so their error registers are read once a second, without waiting for the answer: an
    answer may be empty (the vendor's simulator knows only some registers) or never come.
    """

    def __init__(self, node: Any, settings: DriverSettings, resting_pwm: Callable[[], float]) -> None:
        self._node, self._settings, self._resting_pwm = node, settings, resting_pwm
        self.joint_states_topic = f"/{settings.robot_name}/joint_states"
        self.base_frame = f"{settings.robot_name}/base_link"
        self.problem, self.problem_id, self.notice = "", "F24", ""
        base = f"/{settings.robot_name}/commands"
        self._joints = node.create_publisher(JointGroupCommand, f"{base}/joint_group", qos.DRIVER_COMMANDS)
        self._single = node.create_publisher(JointSingleCommand, f"{base}/joint_single", qos.DRIVER_COMMANDS)
        self._trajectories = f"{base}/joint_trajectory"
        self._registers = node.create_client(RegisterValues, f"/{settings.robot_name}/get_motor_registers")
        self._rebooting = node.create_client(Reboot, f"/{settings.robot_name}/reboot_motors")
        self._errors: dict[str, tuple[int, ...]] = {}
        self._pending: dict[str, Any] = {}
        self._repaired = self._slack = False
        period_s = settings.error_poll_period_s
        self._timer = node.create_timer(period_s, self._poll) if period_s > 0.0 else None

    def close(self) -> None:
        """Destroy timer, clients and publishers."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._node.destroy_client(self._registers)
        self._node.destroy_client(self._rebooting)
        self._node.destroy_publisher(self._joints)
        self._node.destroy_publisher(self._single)

    def _services(self) -> AbstractContextManager[ServiceCalls]:
        return service_calls(self._node, self._settings.service_timeout_s)

    def _motors(self) -> tuple[tuple[str, str], ...]:
        return ("group", self._settings.arm_group), ("single", self._settings.gripper_joint)

    # The servos' errors: executor's thread.

    def _poll(self) -> None:
        if not self._registers.service_is_ready():
            return
        for cmd_type, name in self._motors():
            pending = self._pending.pop(name, None)
            if pending is not None and not pending.done():
                self._registers.remove_pending_request(pending)
                self.notice = f"the driver does not answer for the error register of {name} (F24)"
            request = RegisterValues.Request(cmd_type=cmd_type, name=name, reg="Hardware_Error_Status")
            future = self._registers.call_async(request)
            future.add_done_callback(lambda answer, n=name: self._take_errors(n, answer))
            self._pending[name] = future

    def _take_errors(self, name: str, answer: Any) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        self.notice = ""
        self._errors[name] = tuple(answer.result().values)  # empty where the driver does not know the register
        faults = [error_names(value) for values in self._errors.values() for value in values if value]
        self._repaired = self._repaired or bool(faults)
        self.problem = f"servo fault: {'; '.join(faults)}. Call reboot_motors, then reset" if faults else ""

    def reboot(self) -> None:
        """Reboot the servos in error (only those). They lose their torque meanwhile."""
        for cmd_type, name in self._motors():
            if any(self._errors.get(name, ())):
                request = Reboot.Request(cmd_type=cmd_type, name=name, enable=True, smart_reboot=True)
                self._rebooting.call_async(request)

    def recover(self) -> None:
        """Modes and profiles anew after a servo's fault, which a reboot forgets; raises SetupError while it lasts."""
        if self.problem:
            raise SetupError(self.problem)
        if self._repaired:
            self.prepare()
            self._repaired = False

    def check(self) -> None:
        """Ask the driver who it is; raises SetupError when it is not there or not a wx250s."""
        request = RobotInfo.Request(cmd_type="group", name=self._settings.arm_group)
        with self._services() as services:
            info = services.call(RobotInfo, self._name("get_robot_info"), request)
        found = tuple(info.joint_names)[: info.num_joints]
        if found != WX250S.joint_names:
            raise SetupError(
                f"group {self._settings.arm_group!r} of /{self._settings.robot_name} has the joints {found}; "
                f"this controller is for a wx250s with {WX250S.joint_names}"
            )

    def prepare(self) -> None:
        """Torque, operating modes and profile; raises SetupError when the driver does not answer.

        To change a mode the driver takes each joint's torque away for a moment and a raised arm sags (xs_driver.cpp
        set_joint_operating_mode), so a mode that is right already stays, and only the profile's registers are written.
        """
        settings = self._settings
        arm = OperatingModes.Request(cmd_type="group", name=settings.arm_group, mode="position")
        arm.profile_type = "time"
        arm.profile_velocity, arm.profile_acceleration = settings.profile_time_ms, settings.profile_acceleration_ms
        gripper = OperatingModes.Request(cmd_type="single", name=settings.gripper_joint, mode="pwm")
        gripper.profile_type = "time"
        with self._services() as services:
            if settings.torque_on:
                for cmd_type, name in self._motors():
                    torque = TorqueEnable.Request(cmd_type=cmd_type, name=name, enable=True)
                    services.call(TorqueEnable, self._name("torque_enable"), torque)
            for request in (arm, gripper):
                self._set_mode(services, request)

    def _set_mode(self, services: ServiceCalls, wanted: OperatingModes.Request) -> None:
        cmd_type, name = wanted.cmd_type, wanted.name
        asked = RobotInfo.Request(cmd_type=cmd_type, name=name)
        info = services.call(RobotInfo, self._name("get_robot_info"), asked)
        if (info.mode, info.profile_type) != (wanted.mode, wanted.profile_type):
            self._node.get_logger().warning(
                f"{name} is in mode {info.mode or 'unknown'!r}, profile {info.profile_type or 'unknown'!r}; setting "
                f"{wanted.mode!r}, {wanted.profile_type!r}: the driver takes its torque away for a moment"
            )
            services.call(OperatingModes, self._name("set_operating_modes"), wanted)
            return
        profile = {"Profile_Velocity": wanted.profile_velocity, "Profile_Acceleration": wanted.profile_acceleration}
        for register, value in profile.items():
            write = RegisterValues.Request(cmd_type=cmd_type, name=name, reg=register, value=value)
            services.call(RegisterValues, self._name("set_motor_registers"), write)

    def _name(self, service: str) -> str:
        return f"/{self._settings.robot_name}/{service}"

    def send(self, command: Command) -> None:
        """Publish the joint goal (6,) for the arm and the gripper's PWM.

        From a servo's fault to the reset no joint goal: a servo that gets its torque back would go there at once.
        """
        if self.problem:
            self._slack = True
        elif command.mode not in (Mode.STOPPED, Mode.FAULT):
            self._slack = False
        if command.joint_goal_rad is not None and not self._slack:
            goal = JointGroupCommand(name=self._settings.arm_group, cmd=command.joint_goal_rad.tolist())
            self._joints.publish(goal)
        if command.gripper_pwm is not None:
            self._send_pwm(command.gripper_pwm)

    def _send_pwm(self, pwm: float) -> None:
        self._single.publish(JointSingleCommand(name=self._settings.gripper_joint, cmd=float(pwm)))

    def stopped(self) -> None:
        """Nothing goes on by itself: the servos hold the last goal."""

    def rest(self) -> None:
        """The servo keeps the last PWM: full force on an object, unwatched, would overload it."""
        self._send_pwm(self._resting_pwm())

    def other_publishers(self) -> int:
        """How many publishers besides this node's command the arm; the driver obeys three topics alike."""
        own = {self._joints.topic_name: 1, self._single.topic_name: 1, self._trajectories: 0}
        return sum(max(0, self._node.count_publishers(topic) - count) for topic, count in own.items())
