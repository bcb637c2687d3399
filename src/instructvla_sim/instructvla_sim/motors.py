"""Registers of the arm's motors and the driver's services on them: modes, profiles, torque,
errors, limits."""

from __future__ import annotations

import copy

import numpy as np

from instructvla_sim.arm_types import (
    ARM_JOINTS,
    FINGER_LOWER_M,
    FINGER_UPPER_M,
    GRIPPER,
    GROUPS,
    JOINT_IDS,
    JOINT_NAMES,
    LOWER_RAD,
    MODES,
    OPERATING_MODE_CODES,
    PROFILE_TYPES,
    SHADOWS,
    SLEEP_RAD,
    UPPER_RAD,
    MotorSettings,
    RobotInfo,
)


class MotorBank:
    """Settings of the nine motors. Subclasses act on changes through the hooks at the end.

    A shadow has its joint's first motor's id as its second one: it obeys what that is told, but is read and rebooted by
    its own name alone.
    """

    def __init__(self) -> None:
        self._motors: dict[str, MotorSettings] = {}
        self._hardware_error: dict[str, int] = {}
        self._reset_motors()

    def _reset_motors(self) -> None:
        """The driver's defaults: arm in position mode with time profile 2000/300 ms, gripper in PWM mode."""
        self._motors = {name: MotorSettings() for name in (*ARM_JOINTS, *SHADOWS)}
        self._motors[GRIPPER] = MotorSettings(mode="pwm")
        self._hardware_error = dict.fromkeys(self._motors, 0)

    def joints_of(self, cmd_type: str, name: str) -> tuple[str, ...]:
        """Joints that a service call addresses. ValueError names what is known."""
        if cmd_type == "group" and name in GROUPS:
            return GROUPS[name]
        if cmd_type == "single" and name in self._motors:
            return (name,)
        raise ValueError(
            f"cmd_type {cmd_type!r} with name {name!r}, expected 'group' with one of {sorted(GROUPS)} "
            f"or 'single' with one of {tuple(self._motors)}."
        )

    def _told(self, cmd_type: str, name: str) -> tuple[str, ...]:
        """Motors that hear what is written."""
        joints = self.joints_of(cmd_type, name)
        return (*joints, *(shadow for shadow, joint in SHADOWS.items() if joint in joints))

    def set_operating_modes(
        self,
        cmd_type: str,
        name: str,
        mode: str,
        profile_type: str = "time",
        profile_velocity: int = 0,
        profile_acceleration: int = 0,
    ) -> None:
        """Change mode and profile; under `time` the numbers are milliseconds."""
        if mode not in MODES:
            raise ValueError(f"operating mode is {mode!r}, expected one of {MODES}.")
        if profile_type not in PROFILE_TYPES:
            raise ValueError(f"profile type is {profile_type!r}, expected one of {PROFILE_TYPES}.")
        for joint in self._told(cmd_type, name):
            motor = self._motors[joint]
            motor.mode, motor.profile_type = mode, profile_type
            motor.profile_velocity, motor.profile_acceleration = (
                int(profile_velocity),
                int(profile_acceleration),
            )
        self._mode_changed(self.joints_of(cmd_type, name))

    def set_registers(self, cmd_type: str, name: str, reg: str, value: int) -> None:
        """Write one register of the addressed motors."""
        for joint in self._told(cmd_type, name):
            if reg == "Profile_Velocity":
                self._motors[joint].profile_velocity = int(value)
            elif reg == "Profile_Acceleration":
                self._motors[joint].profile_acceleration = int(value)
            elif reg == "Hardware_Error_Status":
                raise ValueError("register Hardware_Error_Status is read-only: use set_hardware_error() in tests.")
            else:
                self._motors[joint].registers[reg] = int(value)
        self._registers_changed()

    def get_registers(self, cmd_type: str, name: str, reg: str) -> tuple[int, ...]:
        """Read one register of the addressed motors; unknown registers give an empty answer, as the driver's
        simulator does."""
        motors = [(j, self._motors[j]) for j in self.joints_of(cmd_type, name)]
        if reg == "Profile_Velocity":
            return tuple(m.profile_velocity for _, m in motors)
        if reg == "Profile_Acceleration":
            return tuple(m.profile_acceleration for _, m in motors)
        if reg == "Hardware_Error_Status":
            return tuple(self._hardware_error[j] for j, _ in motors)
        if reg == "Torque_Enable":
            return tuple(int(m.torque) for _, m in motors)
        if reg == "Operating_Mode":
            return tuple(OPERATING_MODE_CODES[m.mode] for _, m in motors)
        if all(reg in m.registers for _, m in motors):
            return tuple(m.registers[reg] for _, m in motors)
        return ()

    def torque_enable(self, cmd_type: str, name: str, enable: bool) -> None:
        """Torque on holds where the joint is now; torque off lets it fall under gravity. A motor in error
        stays off."""
        for joint in self._told(cmd_type, name):
            self._motors[joint].torque = bool(enable) and self._hardware_error[joint] == 0
        self._torque_changed()

    def reboot(self, cmd_type: str, name: str, enable: bool = True, smart_reboot: bool = False) -> None:
        """Clear hardware errors (only of motors in error if `smart_reboot`), then torque on or off; a shadow is left
        without, as by the driver."""
        for joint in self.joints_of(cmd_type, name):
            if smart_reboot and self._hardware_error[joint] == 0:
                continue
            self._hardware_error[joint] = 0
            self._motors[joint].torque = bool(enable) and joint not in SHADOWS
        self._torque_changed()

    def set_hardware_error(self, joint: str, status: int) -> None:
        """For tests: put a motor in error (32 = overload). It loses torque until it is rebooted."""
        if joint not in self._hardware_error:
            raise ValueError(f"joint {joint!r}, expected one of {tuple(self._hardware_error)}.")
        self._hardware_error[joint] = int(status)
        if status:
            self._motors[joint].torque = False
        self._torque_changed()

    def robot_info(self, cmd_type: str, name: str) -> RobotInfo:
        """Answer of get_robot_info."""
        joints = self.joints_of(cmd_type, name)
        lower, upper = (
            dict(zip(ARM_JOINTS, LOWER_RAD, strict=True)),
            dict(zip(ARM_JOINTS, UPPER_RAD, strict=True)),
        )
        sleep = dict(zip(ARM_JOINTS, SLEEP_RAD, strict=True))
        order = (*ARM_JOINTS, GRIPPER)
        first = self._motors[joints[0]]
        return RobotInfo(
            mode=first.mode,
            profile_type=first.profile_type,
            joint_names=joints,
            joint_ids=tuple(JOINT_IDS[order.index(j)] for j in joints),
            joint_lower_limits=tuple(float(lower.get(j, FINGER_LOWER_M)) for j in joints),
            joint_upper_limits=tuple(float(upper.get(j, FINGER_UPPER_M)) for j in joints),
            joint_velocity_limits=tuple(float(np.pi) if j != GRIPPER else 1.0 for j in joints),
            joint_sleep_positions=tuple(float(sleep.get(j, 0.0)) for j in joints),
            joint_state_indices=tuple(JOINT_NAMES.index(j) for j in joints),
            num_joints=len(joints),
            name=(name,),
        )

    # Hooks.
    def _mode_changed(self, joints: tuple[str, ...]) -> None:
        """The operating mode of these joints was set."""

    def _registers_changed(self) -> None:
        """A profile register was written."""

    def _torque_changed(self) -> None:
        """A motor gained or lost torque."""

    def _motor_state(self) -> tuple[dict[str, MotorSettings], dict[str, int]]:
        return copy.deepcopy(self._motors), dict(self._hardware_error)
