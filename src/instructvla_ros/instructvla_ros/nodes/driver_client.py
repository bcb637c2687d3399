"""The Interbotix driver as the controller sees it: its services with time limits, its two command topics, the servos'
errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes, Reboot, RegisterValues, RobotInfo, TorqueEnable

from instructvla_ros.control import WX250S, Command, Mode
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.driver_checks import wait_for_joint_states
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.service_calls import ServiceCalls, service_calls
from instructvla_ros.nodes.settings import DriverSettings

_ERROR_BITS = {0: "input voltage", 2: "overheating", 3: "motor encoder", 4: "electrical shock", 5: "overload"}


def error_names(status: int) -> str:
    """The bits of a Dynamixel X servo's Hardware_Error_Status in words."""
    known = [name for bit, name in _ERROR_BITS.items() if status >> bit & 1]
    return ", ".join(known) or f"status {status}"


SHADOWS = ("shoulder_shadow", "elbow_shadow")
"""The second servos of two joints. They obey what the first are told, but no group has them: each is asked by name."""


@dataclass(frozen=True)
class _Servos:
    """What the driver is asked about at once, and how many servos that is."""

    cmd_type: str
    name: str
    count: int


class DriverClient:
    """Implements `Driver`. `resting_pwm` says with what the gripper may be left alone.

    The servos' faults are silent, so their error registers are read once a second, without waiting for the answer: it
    may never come. It is empty where the driver does not know the register (the vendor's simulator) or the servo, and
    ends at the first servo that cannot be read. Two such answers in a row are a fault: the driver does not repeat a
    reading, and a single packet may be lost.
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
        self._main = (
            _Servos("group", settings.arm_group, len(WX250S.joint_names)),
            _Servos("single", settings.gripper_joint, 1),
        )
        self._shadows = tuple(_Servos("single", name, 1) for name in SHADOWS)
        self._errors: dict[_Servos, tuple[int, ...]] = {}
        self._answered: set[_Servos] = set()  # in full, once
        self._short: set[_Servos] = set()  # not in full, the last time
        self._pending: dict[_Servos, Any] = {}
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

    # The servos' errors: executor's thread.

    def _poll(self) -> None:
        if not self._registers.service_is_ready():
            return
        for servos in (*self._main, *self._shadows):
            pending = self._pending.pop(servos, None)
            if pending is not None and not pending.done():
                self._registers.remove_pending_request(pending)
                self.notice = f"the driver does not answer for the error register of {servos.name} (F24)"
            about = {"cmd_type": servos.cmd_type, "name": servos.name}
            future = self._registers.call_async(RegisterValues.Request(**about, reg="Hardware_Error_Status"))
            future.add_done_callback(lambda answer, asked=servos: self._take_errors(asked, answer))
            self._pending[servos] = future

    def _take_errors(self, servos: _Servos, answer: Any) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        self.notice = ""
        values = tuple(answer.result().values)
        known = self._answered & {servos} if servos in self._shadows else self._answered
        if not values and not known:
            return  # the driver does not know the register, or not this servo
        first_short = len(values) < servos.count and servos not in self._short
        if len(values) == servos.count:
            self._answered.add(servos)
            self._short.discard(servos)
        else:
            self._short.add(servos)
        if first_short and not any(values):
            return
        self._errors[servos] = values
        faults = [fault for asked in self._errors for fault in self._faults(asked)]
        self._repaired = self._repaired or bool(faults)
        way_out = "Call reboot_motors, then reset" if any(map(any, self._errors.values())) else "Then call reset"
        self.problem = f"servo fault: {'; '.join(faults)}. {way_out}" if faults else ""

    def _faults(self, servos: _Servos) -> list[str]:
        values = self._errors.get(servos, (0,) * servos.count)
        faults = [error_names(value) for value in values if value]
        if len(values) < servos.count:
            faults.append(f"only {len(values)} of {servos.count} servo(s) of {servos.name} can be read; see to cables")
        return faults

    def reboot(self) -> None:
        """Reboot the servos in error (only those). They lose their torque meanwhile."""
        for servos in (*self._main, *self._shadows):
            if self._faults(servos):
                about = {"cmd_type": servos.cmd_type, "name": servos.name}
                self._rebooting.call_async(Reboot.Request(**about, enable=True, smart_reboot=True))

    def recover(self, anew: bool) -> None:
        """Modes and profiles anew after a servo's fault, which a reboot forgets, and after the driver was away, which
        forgets them too; raises SetupError while the fault lasts, or the driver is away."""
        if self.problem:
            raise SetupError(self.problem)
        if anew:
            self.check()
        if anew or self._repaired:
            self.prepare()
            self._repaired = False

    def check(self) -> None:
        """Ask the driver who it is, and hear where the arm is; raises SetupError when it is not there, not a wx250s, or
        cannot read its servos."""
        request = RobotInfo.Request(cmd_type="group", name=self._settings.arm_group)
        with self._services() as services:
            info = services.call(RobotInfo, self._name("get_robot_info"), request)
        found = tuple(info.joint_names)[: info.num_joints]
        if found != WX250S.joint_names:
            raise SetupError(
                f"group {self._settings.arm_group!r} of /{self._settings.robot_name} has the joints {found}; "
                f"this controller is for a wx250s with {WX250S.joint_names}"
            )
        wait_for_joint_states(self._node, WX250S, self.joint_states_topic, self._settings.service_timeout_s)

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
                # The driver switches no shadow on after its reboot; those it has answered for are known to it.
                for servos in (*self._main, *(shadow for shadow in self._shadows if shadow in self._answered)):
                    torque = TorqueEnable.Request(cmd_type=servos.cmd_type, name=servos.name, enable=True)
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
