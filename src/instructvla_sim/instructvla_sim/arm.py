"""The simulated arm behind the Interbotix driver's commands (xs_sdk): groups, modes, profiles, torque,
registers.

Not thread-safe: the thread that steps the world also gives the commands. Time is simulated time.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from instructvla_ros.control import Command
from instructvla_sim import profile, trajectory
from instructvla_sim.arm_types import (
    ARM_JOINTS,
    FINGER_LOWER_M,
    FINGER_SPEED_PER_PWM,
    FINGER_UPPER_M,
    FORCE_PER_PWM_N,
    GRIPPER,
    GROUPS,
    JOINT_NAMES,
    LOWER_RAD,
    MOTORS_PER_JOINT,
    PWM_LIMIT,
    SHADOWS,
    SLEEP_RAD,
    TORQUE_PER_AMPERE_NM,
    UPPER_RAD,
    VELOCITY_RAD_S,
    JointState,
    Vector,
    finger_to_horn_rad,
)
from instructvla_sim.motors import MotorBank
from instructvla_sim.types import Ids

_log = logging.getLogger(__name__)
POLICY_PROFILE_MS = (250, 100)
"""Time profile of the arm while a policy drives it: duration and acceleration time."""
_FINGER_DAMPING = FORCE_PER_PWM_N / FINGER_SPEED_PER_PWM


class SimulatedArm(MotorBank):
    """Servo bus of one wx250s. Commands are taken as the driver takes them: no limit, NaN or staleness
    checks but the servos'."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, ids: Ids) -> None:
        self._model, self._data, self._ids = model, data, ids
        model.dof_damping[ids.finger_dof] = _FINGER_DAMPING
        self._pwm = 0.0
        self._finger_goal_m: float | None = None
        self._free = np.zeros(6, dtype=bool)
        self._any_free = False
        self._profile = profile.hold(SLEEP_RAD, 0.0)
        self.refused_goals = 0
        """Goals that a servo refused because they lay outside its position limits."""
        self._trajectory = trajectory.IDLE
        super().__init__()
        self.reset_settings()

    # Set-up.
    def reset_settings(self) -> None:
        """Back to the driver's defaults: arm in position mode with time profile 2000/300 ms, gripper in PWM
        mode."""
        self._reset_motors()
        self._pwm, self._finger_goal_m, self.refused_goals = 0.0, None, 0
        self._trajectory = trajectory.IDLE
        self._registers_changed()
        self._torque_changed()

    def teleport(self, joints_rad: Vector, finger_m: float = FINGER_UPPER_M) -> None:
        """Place the arm at rest at a pose, goal included (for scene resets only: no real arm can do this)."""
        q = np.clip(np.asarray(joints_rad, dtype=float), LOWER_RAD, UPPER_RAD)
        self._data.qpos[self._ids.arm_qpos] = q
        self._data.qvel[self._ids.arm_dof] = 0.0
        self._data.qpos[self._ids.finger_qpos] = (finger_m, -finger_m)
        self._data.qvel[self._ids.finger_dof] = 0.0
        self._profile = profile.hold(q, self._data.time)
        self._pwm = 0.0
        self.update()

    def prepare_for_policy(self) -> None:
        """The time profile with which a policy drives the arm."""
        self.set_operating_modes("group", "arm", "position", "time", *POLICY_PROFILE_MS)

    def apply(self, command: Command) -> None:
        """What the controller node sends for this command."""
        if command.joint_goal_rad is not None:
            self.command_group("arm", command.joint_goal_rad)
        if command.gripper_pwm is not None:
            self.command_single(GRIPPER, command.gripper_pwm)

    # Commands (driver topics).
    def command_group(self, name: str, cmd: Vector) -> bool:
        """`commands/joint_group`. Returns False (and warns, as the driver does) on an unknown group or a
        wrong length."""
        if name not in GROUPS:
            _log.warning("group %r unknown, expected one of %s: command ignored.", name, sorted(GROUPS))
            return False
        joints = GROUPS[name]
        if len(cmd) != len(joints):
            _log.warning("group %r has %d joints, command has %d: command ignored.", name, len(joints), len(cmd))
            return False
        if name == "all":
            self.command_single(GRIPPER, cmd[6])
        self._arm_goal(np.asarray(cmd[:6], dtype=float), np.ones(6, dtype=bool))
        return True

    def command_single(self, name: str, cmd: float) -> bool:
        """`commands/joint_single`: one joint; for the gripper in PWM mode the PWM, positive opens."""
        if name == GRIPPER:
            return self._gripper(float(cmd))
        if name not in ARM_JOINTS:
            _log.warning("joint %r unknown, expected one of %s: command ignored.", name, (*ARM_JOINTS, GRIPPER))
            return False
        index = ARM_JOINTS.index(name)
        goal = self._profile.goal_rad.copy()
        goal[index] = cmd
        self._arm_goal(goal, np.arange(6) == index)
        return True

    def command_trajectory(self, cmd_type: str, name: str, times_s: Sequence[float], points: Sequence[Vector]) -> bool:
        """`commands/joint_trajectory`: sends point k at times_s[k] from now.

        Refused (False, with a warning) as the driver refuses: under two points, or while another one runs.
        """
        joints = GROUPS.get(name, (name,)) if cmd_type == "group" else (name,)
        if self._trajectory.busy(self._data.time):
            _log.warning("trajectory refused: another one is running.")
            return False
        made, problem = trajectory.make(name, cmd_type, joints, times_s, points, self._data.time)
        if problem:
            _log.warning("trajectory refused: %s", problem)
            return False
        self._trajectory = made
        return True

    def _follow_trajectory(self) -> None:
        self._trajectory, due = self._trajectory.advance(self._data.time)
        for point in due:
            if self._trajectory.cmd_type == "group":
                self.command_group(self._trajectory.name, point)
            else:
                self.command_single(self._trajectory.name, point[0])

    def _arm_goal(self, goal: np.ndarray, which: np.ndarray) -> None:
        """New goals for the chosen joints. A servo silently refuses one outside its limits, or not a
        number."""
        turning = np.array([self._motors[j].mode == "velocity" for j in ARM_JOINTS])
        with np.errstate(invalid="ignore"):
            inside = (goal >= LOWER_RAD - 1e-9) & (goal <= UPPER_RAD + 1e-9)
        accepted = which & np.where(turning, np.isfinite(goal), inside) & ~self._free
        self.refused_goals += int(np.count_nonzero(which & ~inside & ~turning))
        if not accepted.any():
            return
        now = self._data.time
        position, velocity = self._profile.at(now)
        target = np.where(accepted & ~turning, goal, self._profile.goal_rad)
        made = self._make_profile(position, velocity, target, now)
        if turning.any():
            speed = np.where(accepted & turning, np.clip(goal, -VELOCITY_RAD_S, VELOCITY_RAD_S), 0.0)
            made = profile.mix(made, profile.turn(position, speed, LOWER_RAD, UPPER_RAD, now), turning)
        self._profile = made if accepted.all() else profile.mix(self._profile, made, accepted)

    def _make_profile(
        self, position: np.ndarray, velocity: np.ndarray, goal: np.ndarray, now: float
    ) -> profile.ProfileState:
        if self._all_time:
            return profile.time_profile(position, velocity, goal, now, self._profile_v, self._profile_a)
        timed = profile.time_profile(position, velocity, goal, now, self._profile_v, self._profile_a)
        fast = profile.velocity_profile(position, velocity, goal, now, self._profile_v, self._profile_a)
        return profile.mix(fast, timed, self._is_time)

    def _gripper(self, value: float) -> bool:
        settings = self._motors[GRIPPER]
        if not np.isfinite(value):
            _log.warning("gripper command %s is not finite: the servo ignores it.", value)
            return False
        if not settings.torque:
            return True
        if settings.mode in ("pwm", "current"):
            self._pwm = float(np.clip(value, -PWM_LIMIT, PWM_LIMIT))
            self._finger_goal_m = None
        elif settings.mode == "linear_position":
            self._finger_goal_m = float(np.clip(value, FINGER_LOWER_M, FINGER_UPPER_M))
        else:
            grid = np.linspace(FINGER_LOWER_M, FINGER_UPPER_M, 64)
            angles = [finger_to_horn_rad(g) for g in grid]
            self._finger_goal_m = float(np.interp(value, angles, grid))
        return True

    # State.
    def joint_state(self) -> JointState:
        """Measured joints now, in the driver's order; effort in mA (motor current)."""
        ids, data = self._ids, self._data
        # As from the driver, which has one motor to read: the right finger mirrors the left exactly.
        finger, finger_v = data.qpos[ids.finger_qpos[0]], data.qvel[ids.finger_dof[0]]
        horn = finger_to_horn_rad(finger)
        slope = (finger_to_horn_rad(finger + 1e-5) - horn) / 1e-5
        torque = data.actuator_force[ids.arm_actuator] + np.where(self._free, 0.0, data.qfrc_gravcomp[ids.arm_dof])
        current = torque / (TORQUE_PER_AMPERE_NM * 1e-3 * MOTORS_PER_JOINT)
        grip = data.actuator_force[ids.finger_actuator[0]] * 2 * HORN_TO_MA
        return JointState(
            JOINT_NAMES,
            np.concatenate([data.qpos[ids.arm_qpos], (horn, finger, -finger)]),
            np.concatenate([data.qvel[ids.arm_dof], (slope * finger_v, finger_v, -finger_v)]),
            np.concatenate([current, (grip, 0.0, 0.0)]),
        )

    @property
    def goal_rad(self) -> np.ndarray:
        """Goal of the six joints as last accepted."""
        return self._profile.goal_rad.copy()

    @property
    def finger_m(self) -> float:
        """Position of the left finger, 0.015 closed to 0.037 open."""
        return float(self._data.qpos[self._ids.finger_qpos[0]])

    @property
    def pwm(self) -> float:
        """PWM on the gripper's motor."""
        return self._pwm

    def update(self) -> None:
        """Write the motors' set-points of this moment into the physics (called by World.step)."""
        data, ids = self._data, self._ids
        if self._trajectory.left:
            self._follow_trajectory()
        position, _ = self._profile.at(data.time)
        data.ctrl[ids.arm_actuator] = position
        if self._any_free:
            dof = ids.arm_dof
            data.ctrl[ids.arm_actuator] = np.where(self._free, data.qpos[ids.arm_qpos], position)
            data.qfrc_applied[dof] = np.where(self._free, -data.qfrc_gravcomp[dof], 0.0)
        pwm = self._pwm
        if self._finger_goal_m is not None:
            pwm = float(np.clip((self._finger_goal_m - self.finger_m) * 1.2e5, -350, 350))
        data.ctrl[ids.finger_actuator] = pwm * FORCE_PER_PWM_N

    # Fork.
    def settings(self) -> dict[str, Any]:
        """What a change of scene does not change: modes, profiles, registers, errors."""
        return {"motors": self._motor_state()}

    def state(self) -> dict[str, Any]:
        """Everything that is not in MjData (for World.snapshot)."""
        return self.settings() | {
            "pwm": self._pwm,
            "trajectory": self._trajectory,
            "finger_goal": self._finger_goal_m,
            "profile": self._profile,
            "refused": self.refused_goals,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Inverse of state()."""
        motors, errors = copy.deepcopy(state["motors"])
        self._motors, self._hardware_error = motors, errors
        self._trajectory = state["trajectory"]
        self._pwm, self._finger_goal_m = state["pwm"], state["finger_goal"]
        self.refused_goals = state["refused"]
        self._registers_changed()
        self._torque_changed()
        self._profile = state["profile"]

    def _mode_changed(self, joints: tuple[str, ...]) -> None:
        if GRIPPER in joints:
            self._pwm, self._finger_goal_m = 0.0, None
        now = self._data.time
        stay = profile.hold(self._profile.at(now)[0], now)
        self._profile = profile.mix(self._profile, stay, np.isin(ARM_JOINTS, joints))
        self._registers_changed()

    def _registers_changed(self) -> None:
        motors = [self._motors[j] for j in ARM_JOINTS]
        self._profile_v = np.array([m.profile_velocity for m in motors], dtype=float)
        self._profile_a = np.array([m.profile_acceleration for m in motors], dtype=float)
        self._is_time = np.array([m.profile_type == "time" for m in motors])
        self._all_time = bool(self._is_time.all())

    def _torque_changed(self) -> None:
        free = np.array([not self._motors[j].torque for j in ARM_JOINTS])
        ids, model, data = self._ids, self._model, self._data
        regained = self._free & ~free
        if regained.any():
            self._profile = profile.mix(self._profile, profile.hold(data.qpos[ids.arm_qpos], data.time), regained)
        self._free, self._any_free = free, bool(free.any())
        model.actuator_forcelimited[ids.arm_actuator] = 1
        weak = {joint for shadow, joint in SHADOWS.items() if not self._motors[shadow].torque}
        for index, actuator in enumerate(ids.arm_actuator):
            effort = EFFORT_NM[index] * (0.5 if ARM_JOINTS[index] in weak else 1.0)
            limit = 0.0 if free[index] else effort
            model.actuator_forcerange[actuator] = (-limit, limit)
        data.qfrc_applied[ids.arm_dof] = 0.0
        if not self._motors[GRIPPER].torque:
            self._pwm, self._finger_goal_m = 0.0, None


EFFORT_NM: tuple[float, ...] = (10.0, 20.0, 15.0, 2.0, 5.0, 1.0)
HORN_TO_MA = 0.014 / (1.4 * 1e-3)
"""Current of the gripper's motor per newton of grip: horn length over torque per milliampere."""
