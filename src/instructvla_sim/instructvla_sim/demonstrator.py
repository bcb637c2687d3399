"""A scripted expert for every task. Stateless: the action depends on the world's present state alone, so it
can label
any state that a learner visits (DAgger), and recovers from drops, misses and wrong grasps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructvla_sim import goals
from instructvla_sim.catalog import CATALOG, INDEX, ObjectSpec
from instructvla_sim.demonstrator_config import DemonstratorConfig
from instructvla_sim.observe import lies_down
from instructvla_sim.start_pose import R_DOWN
from instructvla_sim.world import World


@dataclass(frozen=True)
class DemoStep:
    """One action (7,) `[dx dy dz droll dpitch dyaw gripper]` (metres, radians in base axes, opening) and its
    phase."""

    action: np.ndarray
    phase: str


class Demonstrator:
    """Scripted expert on one world. `act()` may be called in any state, in any order."""

    def __init__(self, world: World, config: DemonstratorConfig | None = None) -> None:
        self._world = world
        self._observer = world.observer
        self._config = config or world.robot.demonstrator

    def act(self) -> DemoStep:
        """The action for the present state."""
        world, observer, config = self._world, self._observer, self._config
        task = world.task
        target = INDEX[task.target]
        rotation, ee = observer.ee()
        held = observer.held()
        if held is not None and held != target:
            return self._let_go(rotation, ee)
        if held == target:
            if task.family == "pick":
                return self._move(rotation, np.array([0.0, 0.0, config.carry_m - ee[2]]), 0.0, 0.0, "lift")
            return self._bring(rotation, ee, target)
        if task.family != "pick" and goals.reached(observer, task):
            return self._move(rotation, np.array([0.0, 0.0, config.carry_m + 0.01 - ee[2]]), 0.0, 1.0, "retreat")
        return self._fetch(rotation, ee, target)

    # Phases.
    def _fetch(self, rotation: np.ndarray, ee: np.ndarray, target: int) -> DemoStep:
        """Come down over the target along a funnel, then close."""
        config, spec = self._config, CATALOG[target]
        centre = self._observer.position(target)
        down = lies_down(spec, self._observer.rotation(target))
        grasp_z = max(float(centre[2]) + (0.002 if down else spec.grasp_dz_m), config.lowest_ee_m)
        offset = centre[:2] - ee[:2]
        miss = self._miss(rotation, offset, spec)
        period = np.pi if down else spec.yaw_period_rad
        turn = _turn(_yaw(rotation), self._observer.yaw(target), period)
        opening = self._world.gripper_opening
        aligned = miss < 1.0 and abs(turn) < config.align_yaw_rad
        if aligned and abs(ee[2] - grasp_z) < config.align_z_m:
            if opening > self._contact_opening(spec) - 0.15:
                delta = np.array([*offset, grasp_z - ee[2]])
                return self._move(rotation, delta, turn, 0.0, "grasp")
            return self._move(rotation, np.array([0.0, 0.0, 0.05]), 0.0, 1.0, "retry")
        # Down to the object's top only when its sides will pass between the fingers.
        excess = 0.09 * max(miss - 0.65, 0.0) + 0.30 * max(abs(turn) - 0.12, 0.0)
        need = grasp_z + min(excess, config.hover_m - grasp_z)
        if opening < 0.8:  # never come down on the object with fingers that are not open
            need = max(need, grasp_z + 0.045)
        slow = _clearance(need, float(ee[2]))
        delta = np.array([*(offset * slow), need - ee[2]])
        return self._move(rotation, delta, turn, 1.0, "approach")

    def _miss(self, rotation: np.ndarray, offset_m: np.ndarray, spec: ObjectSpec) -> float:
        """How badly the object sits between the fingers: 0 centred, 1 at the limit of what can be grasped."""
        across, along = rotation[:2, 1] @ offset_m, rotation[:2, 2] @ offset_m
        room = max(self._config.finger_room_m - spec.half_m[1], 0.004)
        return float(np.hypot(across / room, along / spec.along_m))

    def _bring(self, rotation: np.ndarray, ee: np.ndarray, target: int) -> DemoStep:
        """Carry the held target over its goal, lower it, open."""
        config = self._config
        goal = goals.goal_of(self._observer, self._world.task)
        centre = self._observer.position(target)
        offset = goal.centre_m[:2] - centre[:2]
        error = float(np.hypot(*offset))
        release_z = float(goal.centre_m[2] - centre[2] + ee[2])
        turn = 0.0
        if goal.yaw_rad is not None:
            turn = _wrap(goal.yaw_rad - self._observer.yaw(target), CATALOG[target].yaw_period_rad)
        low = ee[2] - release_z < (0.018 if self._stands(target) else config.release_z_m)
        if error < config.release_m * goal.tolerance and low and abs(turn) < 0.2:
            return self._move(rotation, np.array([0.0, 0.0, 0.0]), 0.0, 1.0, "release")
        need = release_z + min(2.5 * max(error - 0.008 * goal.tolerance, 0.0), max(config.carry_m - release_z, 0.0))
        slow = _clearance(need, float(ee[2]))
        delta = np.array([*(offset * slow), need - ee[2]])
        return self._move(rotation, delta, turn, 0.0, "carry" if need > release_z + 0.02 else "lower")

    def _contact_opening(self, spec: ObjectSpec) -> float:
        """Gripper opening at which the fingers meet the object."""
        robot = self._world.robot
        return robot.arm.fingers.opening(spec.half_m[1] - robot.finger_face_m)

    def _stands(self, target: int) -> bool:
        """Whether something already bears the held target."""
        return any(target in pair for pair in self._observer.touching_pairs())

    def _let_go(self, rotation: np.ndarray, ee: np.ndarray) -> DemoStep:
        """The wrong thing is in the gripper: open, near the table if it is high up."""
        if ee[2] > 0.07:
            return self._move(rotation, np.array([0.0, 0.0, 0.055 - ee[2]]), 0.0, 0.0, "put_back")
        return self._move(rotation, np.zeros(3), 0.0, 1.0, "let_go")

    # The action.
    def _move(self, rotation: np.ndarray, delta_m: np.ndarray, turn_rad: float, gripper: float, phase: str) -> DemoStep:
        """Speed-limited proportional step towards a displacement, keeping the gripper upright."""
        config = self._config
        xy = config.gain * delta_m[:2]
        length = float(np.hypot(*xy))
        if length > config.max_step_m:
            xy = xy * (config.max_step_m / length)
        z = float(np.clip(config.z_gain * delta_m[2], -config.max_step_m, config.max_step_m))
        yaw = float(np.clip(config.gain * turn_rad, -config.max_yaw_step_rad, config.max_yaw_step_rad))
        axis = rotation[:, 0]  # of the fingers; straight down is (0, 0, -1)
        lean = np.cross(axis, [0.0, 0.0, -1.0])
        action = np.array([xy[0], xy[1], z, 0.5 * lean[0], 0.5 * lean[1], yaw, gripper])
        return DemoStep(action, phase)


def _yaw(rotation: np.ndarray) -> float:
    """Yaw of the gripper about the vertical."""
    turned = rotation @ R_DOWN.T
    return float(np.arctan2(turned[1, 0], turned[0, 0]))


def _wrap(angle: float, period: float) -> float:
    """The equivalent angle nearest zero."""
    return float((angle + period / 2) % period - period / 2) if period > 0 else 0.0


def _turn(yaw: float, heading: float, period: float) -> float:
    """How to turn so that the fingers close across the object; round things are taken with zero yaw."""
    if period <= 0.0:
        return -yaw
    turn = _wrap(heading - yaw, period)
    if abs(yaw + turn) > 1.65:  # out of the wrist's comfortable range: take the other side
        turn -= np.sign(yaw + turn) * period
    return turn


def _clearance(need_m: float, height_m: float) -> float:
    """1 when high enough to move sideways, 0 when 5 cm too low."""
    return float(np.clip(1.0 - (need_m - height_m - 0.015) / 0.035, 0.0, 1.0))
