"""World, controller and policy in simulated time, without ROS: for data, DAgger and closed-loop evaluation.

The controller is the one that the ROS node runs; the arm behind it has the driver's semantics. One policy
step is
0.2 s: observe, chunk, then ten control ticks of 20 ms.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from instructvla_ros.control import Command, ControllerConfig
from instructvla_ros.control.types import ActionChunk
from instructvla_sim.lockstep_types import EpisodeResult, Fork, Observation, Policy, StepResult
from instructvla_sim.types import Scene, Task
from instructvla_sim.world import World

DT_S = 0.2
TICK_S = 0.02
TICKS_PER_STEP = 10


class Lockstep:
    """Drives one world. `cameras` are rendered for every observation; give () when only states are needed."""

    def __init__(
        self,
        world: World,
        cameras: Sequence[str] = ("primary",),
        controller_config: ControllerConfig | None = None,
    ) -> None:
        self.world = world
        self.cameras = tuple(cameras)
        self._config = controller_config
        self.controller = world.robot.controller(controller_config)
        self._seq = 0
        self.instruction_id = 1

    def start(
        self,
        seed: int,
        families: Sequence[str] | None = None,
        n_distractors: int | None = None,
        *,
        task: Task | None = None,
    ) -> Scene:
        """Reset the world, set the policy's time profile, and anchor a fresh controller at the measured
        pose."""
        scene = self.world.reset(seed, families, n_distractors, task=task)
        self.anchor()
        return scene

    def anchor(self) -> None:
        """Take over the world as it is now (after World.restore, World.set_scene): fresh controller, no
        motion."""
        self.world.arm.prepare_for_policy()
        self.controller = self.world.robot.controller(self._config)
        self._seq = 0
        now = self.world.time_s
        self.controller.on_instruction(self.instruction_id, now)
        self._feed(now)

    def observe(self) -> Observation:
        """Measured state and images now; tells the controller that the camera is alive."""
        now = self.world.time_s
        self._feed(now)
        self.controller.on_image(now, now)
        state = self.controller.measured_state()
        assert state is not None
        return Observation({c: self.world.render(c) for c in self.cameras}, state, now)

    def step(self, actions: ActionChunk | np.ndarray, stamp_s: float | None = None) -> StepResult:
        """One policy step of 0.2 s: hand the actions to the controller and let ten ticks pass."""
        now = self.world.time_s
        if not self.cameras:
            self.controller.on_image(now, now)
        chunk = (
            actions if isinstance(actions, ActionChunk) else self._chunk(actions, now if stamp_s is None else stamp_s)
        )
        self.controller.on_chunk(chunk, now)
        mode, reason, fault = "", "", ""
        for _ in range(TICKS_PER_STEP):
            command = self.tick()
            if command.fault_id and not fault:
                reason, fault = command.reason, command.fault_id
            mode = command.mode.value
        return StepResult(self.world.success(), mode, reason, fault)

    def tick(self) -> Command:
        """One control tick of 20 ms: joint state in, command out, physics."""
        world = self.world
        now = world.time_s
        self._feed(now)
        command = self.controller.tick(now)
        world.arm.apply(command)
        world.step(TICK_S)
        return command

    def run(
        self,
        policy: Policy,
        max_steps: int = 60,
        *,
        settle_steps: int = 1,
        on_step: Callable[[Observation, np.ndarray | ActionChunk, StepResult], None] | None = None,
    ) -> EpisodeResult:
        """Run an episode already started, until success has held for `settle_steps` more steps or time is
        up."""
        held = 0
        faults: dict[str, int] = {}
        taken = 0
        for taken in range(1, max_steps + 1):  # noqa: B007
            observation = self.observe()
            actions = policy(observation)
            result = self.step(actions, observation.stamp_s)
            if result.fault_id:
                faults[result.fault_id] = faults.get(result.fault_id, 0) + 1
            if on_step is not None:
                on_step(observation, actions, result)
            held = held + 1 if result.success else 0
            if held > settle_steps:
                break
        progress = self.world.progress()
        return EpisodeResult(self.world.scene.seed, self.world.task, held > 0, taken, progress, faults)

    def fork(self) -> Fork:
        """Everything that determines the future: world, controller, counters."""
        return Fork(self.world.snapshot(), copy.deepcopy(self.controller), self._seq)

    def resume(self, fork: Fork) -> None:
        """Go back to a fork; it may be resumed any number of times."""
        self.world.restore(fork.world)
        self.controller, self._seq = copy.deepcopy(fork.controller), fork.seq

    def demonstrate(self, act: Callable[[], np.ndarray], horizon: int) -> np.ndarray:
        """The next `horizon` actions (horizon, 7) that `act` would take from here, leaving everything as it was.

        For labelling states that a learner visited: `demonstrate(lambda: expert.act().action, 8)`.
        """
        start = self.fork()
        actions = np.empty((horizon, 7))
        for row in actions:
            row[:] = act()
            now = self.world.time_s
            self.controller.on_image(now, now)
            self.step(row)
        self.resume(start)
        return actions

    def _feed(self, now_s: float) -> None:
        state = self.world.arm.joint_state()
        self.controller.on_joint_state(state.names, state.positions.tolist(), state.velocities.tolist(), now_s, now_s)

    def _chunk(self, actions: np.ndarray, stamp_s: float) -> ActionChunk:
        array = np.atleast_2d(np.asarray(actions, dtype=float))
        if array.ndim != 2 or array.shape[1] != 7:
            raise ValueError(f"actions have shape {np.shape(actions)}, expected (7,) or (F, 7).")
        self._seq += 1
        return ActionChunk(
            delta_xyz_m=array[:, :3],
            delta_rpy_rad=array[:, 3:6],
            gripper=array[:, 6],
            dt_s=DT_S,
            stamp_s=stamp_s,
            instruction_id=self.instruction_id,
            seq=self._seq,
            latent_seq=0,
        )
