"""The simulated FR3 or Panda behind its trajectory controller and hand: modes, reflexes, recovery, external torques.

Not thread-safe: the thread that steps the world also gives the commands. Time is simulated time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import mujoco
import numpy as np

from instructvla_ros.control import ArmModel, Command
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.control.trajectory import stream_points
from instructvla_sim.arm_types import JointState, Vector
from instructvla_sim.franka_hand import FULL_WIDTH_M, FrankaHand
from instructvla_sim.joint_trajectory_controller import JointTrajectoryController, Knot
from instructvla_sim.types import Ids

_log = logging.getLogger(__name__)
GRASP_FORCE_N, HAND_SPEED_M_S = 20.0, 0.1
COLLISION_NM = np.array([35.0, 35.0, 32.0, 30.0, 28.0, 26.0, 24.0])
"""Upper torque thresholds after start; those of the vendor's examples."""


class RobotMode(IntEnum):
    """As in franka_msgs/FrankaRobotState."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    AUTOMATIC_ERROR_RECOVERY = 6


class FrankaArm:
    """One arm with its hand. In any mode but MOVE it holds where it is and its controllers are inactive."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, ids: Ids, arm: ArmModel) -> None:
        self._model, self._data, self._ids, self._arm = model, data, ids, arm
        # Velocity error is damped, as in the stock controller, not velocity: the gain kv/kp shifts the set-point.
        self._lead_s = -model.actuator_biasprm[ids.arm_actuator, 2] / model.actuator_gainprm[ids.arm_actuator, 0]
        self.trajectories = JointTrajectoryController(arm.joint_names)
        self.hand = FrankaHand()
        self._last_update_s = 0.0
        self.reset_settings()

    # Set-up.
    def reset_settings(self) -> None:
        """As after start-up: a controller drives the arm, no errors, the vendor's collision thresholds."""
        self.mode = RobotMode.MOVE
        self.errors: frozenset[str] = frozenset()
        self.last_motion_errors: frozenset[str] = frozenset()
        self.collision_nm = COLLISION_NM.copy()
        self.controller_active = True
        self._told_width_m: float | None = None

    def prepare_for_policy(self) -> None:
        """Nothing: the drives have no profile of their own."""

    def teleport(self, joints_rad: Vector, finger_m: float = FULL_WIDTH_M / 2) -> None:
        """Place the arm at rest at a posture, goal included (for scene resets only: no real arm can do this)."""
        q = np.clip(np.asarray(joints_rad, dtype=float), self._arm.lower_rad, self._arm.upper_rad)
        data, ids = self._data, self._ids
        data.qpos[ids.arm_qpos], data.qvel[ids.arm_dof] = q, 0.0
        data.qpos[ids.finger_qpos], data.qvel[ids.finger_dof] = finger_m, 0.0
        self.trajectories.reset(q)
        self.hand.reset(2.0 * finger_m)
        self._told_width_m = None
        self._last_update_s = data.time
        self.update()

    # Commands.
    def follow(
        self,
        names: Sequence[str],
        knots: Sequence[Knot],
        start_s: float | None = None,
        *,
        from_measured: bool = False,
    ) -> str:
        """A trajectory for the controller; returns "" or why it is refused. It leads on from the desired state, or from
        the measured one."""
        if not self.controller_active:
            return "the controller is not active"
        data, ids = self._data, self._ids
        measured = (data.qpos[ids.arm_qpos].copy(), data.qvel[ids.arm_dof].copy()) if from_measured else None
        problem = self.trajectories.accept(names, knots, data.time, start_s, measured)
        if problem:
            _log.warning("trajectory refused: %s", problem)
        return problem

    def apply(self, command: Command) -> None:
        """What the controller node sends for this command: a short trajectory, and a new width for the hand."""
        if command.joint_goal_rad is not None and command.joint_velocity_rad_s is not None:
            goal, velocity = command.joint_goal_rad, command.joint_velocity_rad_s
            points = stream_points(goal, velocity, TrackerConfig(), self._arm.acceleration_rad_s2)
            self.follow(self._arm.joint_names, [Knot(p.time_s, p.positions_rad, p.velocities_rad_s) for p in points])
        width_m = command.gripper_width_m
        if width_m is not None and width_m != self._told_width_m:
            self._told_width_m = width_m
            if width_m > 0.0:
                self.hand.move(width_m, HAND_SPEED_M_S)
            else:
                self.hand.grasp(0.0, HAND_SPEED_M_S, GRASP_FORCE_N, 0.0, FULL_WIDTH_M)

    def activate_controller(self) -> bool:
        """The controller holds the present posture from now on; False in a reflex or a user stop."""
        if self.mode in (RobotMode.REFLEX, RobotMode.USER_STOPPED, RobotMode.GUIDING):
            return False
        self.trajectories.reset(self._data.qpos[self._ids.arm_qpos])
        self.controller_active, self.mode = True, RobotMode.MOVE
        return True

    def deactivate_controller(self) -> None:
        """The arm holds by its brakes."""
        self._hold()
        if self.mode is RobotMode.MOVE:
            self.mode = RobotMode.IDLE

    def enter(self, mode: RobotMode, *errors: str) -> None:
        """For tests and demonstrations: another mode, with libfranka's names of the errors."""
        if mode is RobotMode.MOVE:
            self.activate_controller()
            return
        self._hold()
        self.mode, self.errors = mode, frozenset(errors)
        if errors:
            self.last_motion_errors = self.errors

    def recover(self) -> bool:
        """Clear errors after a reflex; the controllers stay inactive. False while the user stop is pressed."""
        if self.mode is RobotMode.USER_STOPPED:
            return False
        if self.mode is RobotMode.REFLEX:
            self.mode, self.errors = RobotMode.IDLE, frozenset()
        return True

    def _hold(self) -> None:
        self.trajectories.reset(self._data.qpos[self._ids.arm_qpos])
        self.controller_active = False

    # State.
    def joint_state(self) -> JointState:
        """Measured arm and finger joints now, in the names of the robot; effort in Nm and N."""
        ids, data, name = self._ids, self._data, self._arm.name
        names = (*self._arm.joint_names, f"{name}_finger_joint1", f"{name}_finger_joint2")
        finger = data.qpos[ids.finger_qpos[0]]
        speed = data.qvel[ids.finger_dof[0]]
        return JointState(
            names,
            np.concatenate([data.qpos[ids.arm_qpos], (finger, finger)]),
            np.concatenate([data.qvel[ids.arm_dof], (speed, speed)]),
            np.concatenate([data.actuator_force[ids.arm_actuator], data.actuator_force[ids.finger_actuator]]),
        )

    @property
    def external_torque_nm(self) -> np.ndarray:
        """Torque of contacts on each joint (7,)."""
        return self._data.qfrc_constraint[self._ids.arm_dof].copy()

    @property
    def desired(self) -> tuple[np.ndarray, np.ndarray]:
        """Desired positions and velocities (7,) now."""
        return self.trajectories.sample(self._data.time)

    @property
    def finger_m(self) -> float:
        """Position of a finger joint: half the width."""
        return float(self._data.qpos[self._ids.finger_qpos[0]])

    def update(self) -> None:
        """Write the drives' set-points of this moment into the physics (called by World.step)."""
        data, ids = self._data, self._ids
        position, velocity = self.trajectories.sample(data.time)
        if self.controller_active:
            error = self._reflex(position)
            if error:
                self.enter(RobotMode.REFLEX, error)
                position, velocity = self.trajectories.sample(data.time)
        data.ctrl[ids.arm_actuator] = position + self._lead_s * velocity
        elapsed_s, self._last_update_s = data.time - self._last_update_s, data.time
        width, speed = 2.0 * self.finger_m, 2.0 * float(data.qvel[ids.finger_dof[0]])
        data.ctrl[ids.finger_actuator] = self.hand.finger_force_n(width, speed, data.time, max(elapsed_s, 0.0))

    def _reflex(self, position: np.ndarray) -> str:
        """Why the arm stops by itself now, or ""."""
        if not np.isfinite(position).all():
            return "joint_motion_generator_position_limits_violation"
        if (np.abs(self._data.qvel[self._ids.arm_dof]) > self._arm.velocity_rad_s).any():
            return "joint_velocity_violation"
        if (np.abs(self.external_torque_nm) > self.collision_nm).any():
            return "joint_reflex"
        return ""

    # Fork.
    def settings(self) -> dict[str, Any]:
        """What a change of scene does not change: thresholds, mode, errors, whether a controller drives the arm."""
        return {
            "collision": self.collision_nm.copy(),
            "mode": (self.mode, self.errors, self.last_motion_errors, self.controller_active),
        }

    def state(self) -> dict[str, Any]:
        """Everything that is not in MjData (for World.snapshot)."""
        return self.settings() | {
            "trajectory": self.trajectories.copy_state(),
            "hand": self.hand.copy_state(),
            "width": self._told_width_m,
            "updated": self._last_update_s,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Inverse of state()."""
        self.collision_nm = state["collision"].copy()
        self.trajectories.restore_state(state["trajectory"])
        self.hand.restore_state(state["hand"])
        self.mode, self.errors, self.last_motion_errors, self.controller_active = state["mode"]
        self._told_width_m, self._last_update_s = state["width"], state["updated"]
