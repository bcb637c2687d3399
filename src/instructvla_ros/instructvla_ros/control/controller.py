"""The controller of any arm: chunks and joint states in, joint goals and gripper commands at the control rate out.

Pure, with injected clock. Used by the controller nodes, by the simulator's data generation and by the evaluation, so
that all three move alike. One thread owns an object. Every time is in seconds on one clock of the caller's, the clock
of the stamps; nothing is sent by this class. When in doubt it holds, which means that the last joint goal is repeated:
an arm with its drives on stays where it is, whereas zero velocity or silence would not be defined. Only where nothing
is known of the arm any more, where it was moved although it is stopped, or where somebody else commands it, no goal is
sent at all: the drives then keep what they were told last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from instructvla_ros.control.anchorage import Anchorage
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.camera import CameraWatch
from instructvla_ros.control.chunk_buffer import ChunkBuffer, ChunkBufferConfig
from instructvla_ros.control.gate import KeepOut, MotionGate, Passage
from instructvla_ros.control.gripper import Gripper
from instructvla_ros.control.interpolator import InterpolatorConfig, make_interpolator
from instructvla_ros.control.joints import JointInput
from instructvla_ros.control.reach import joints_near
from instructvla_ros.control.rotations import apply_delta
from instructvla_ros.control.safety import (
    JointLimiter,
    SafetyConfig,
    Verdict,
    Workspace,
    check_chunk,
    limit_step,
)
from instructvla_ros.control.state import state_vector
from instructvla_ros.control.types import ActionChunk, ActionStep, Command, ExecutedStep, JointSample, Mode

_POINTS_ON_THE_WAY = 25


@dataclass(frozen=True)
class ControllerConfig:
    """What every arm's controller can be told; `tick_period_s` only bounds the first step of the velocity
    limit."""

    tick_period_s: float = 0.02
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    buffer: ChunkBufferConfig = field(default_factory=ChunkBufferConfig)
    interpolator: InterpolatorConfig = field(default_factory=InterpolatorConfig)


class ArmController:
    """See the module. `counts` holds how often each fault id was raised since construction."""

    def __init__(self, arm: ArmModel, config: ControllerConfig, gripper: Gripper) -> None:
        self.arm, self.config = arm, config
        self.counts: Counter[str] = Counter()
        self._safety = config.safety
        self._joints = JointInput(arm, self._safety)
        self._buffer = ChunkBuffer(config.buffer)
        self._limiter = JointLimiter(self._safety, arm)
        self._workspace = Workspace(self._safety)
        period_s = config.tick_period_s
        self._interpolator = make_interpolator(arm, config.interpolator, self._limiter.velocity_rad_s, period_s)
        self._longest_s = config.interpolator.longest_s(period_s)
        self._gate = MotionGate(arm, self._safety, period_s, self._longest_s)
        self._keep_out = KeepOut(self._safety.keep_out_m)
        self._gripper = gripper
        self._camera = CameraWatch(self._safety)
        self.ceased = False
        """Whether the robot has fallen silent since the last reset (F24): its driver is to be set up anew."""
        self._anchorage = Anchorage(arm, self._safety.max_joint_lead_rad)
        self._latch: tuple[Mode, str, str] | None = None
        self._holds: dict[str, str] = {}
        self._rival = ""
        self._refused_goals = 0
        self._bad_chunks = 0
        self._step_verdict = Verdict(True)
        self._chunk_problem = ""
        self._posture: np.ndarray | None = None
        self._goal: np.ndarray | None = None
        self._target: tuple[np.ndarray, np.ndarray] | None = None
        self._joint_target = np.zeros(arm.joints)
        self._last_tick_s: float | None = None
        self._waiting_since_s: float | None = None
        self._last_fault = ""
        self._halted, self._posture = True, None
        self._fingers_held = False  # since nothing may move
        self._parting_pwm: float | None = None  # yet to be sent, since the goal was dropped

    # Inputs: they only store and check.

    def on_joint_state(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float] | None,
        stamp_s: float,
        now_s: float,
    ) -> None:
        """Take a joint state by names. One that is incomplete, not finite or impossible is refused and makes the arm
        hold (F05); without any other for `max_joint_silence_s` a fault is latched (F24).

        One that was measured before the last, or before the arm's target was to be anchored, says nothing new.
        """
        try:
            sample = self._joints.take(names, positions, stamp_s, now_s, anchored=self._goal is not None)
        except ValueError:
            self.counts["F05"] += 1
            return
        if sample is not None:
            self._camera.on_joints(sample.arm_rad, stamp_s)

    def on_image(self, stamp_s: float, now_s: float, digest: int | None = None) -> None:
        """Note that the policy's camera delivered a frame; a repeated stamp counts as no frame (F03).

        `digest` is a fingerprint of its pixels, by which a frozen picture under new stamps is noticed.
        """
        if not self._camera.on_image(stamp_s, now_s, digest):
            self.counts["F03"] += 1

    def on_instruction(self, instruction_id: int, now_s: float, *, ended: bool = False) -> None:
        """A new instruction: chunks and the motion of older ones are dropped at once (F20). `ended`: it is to rest."""
        if self._buffer.set_instruction(instruction_id):
            self._chunk_problem = ""
            self._halt()
            if ended:
                self._buffer.end_instruction()

    def on_chunk(self, chunk: ActionChunk, now_s: float) -> str:
        """Take a chunk; returns "" or why it was dropped. Three bad ones in a row latch a fault (F06)."""
        verdict = check_chunk(chunk)
        if not verdict.ok:
            return self.on_bad_chunk(verdict)
        newer = chunk.instruction_id > self._buffer.instruction_id
        self._chunk_problem = self._buffer.add(chunk, now_s)
        if self._chunk_problem:
            self.counts["dropped_chunks"] += 1
            return self._chunk_problem
        self._bad_chunks = 0
        if newer:
            self._halt()
        return ""

    def on_bad_chunk(self, verdict: Verdict) -> str:
        """Count a chunk that cannot be used, or not even be read; returns why. See `on_chunk`."""
        self.counts[verdict.fault_id] += 1
        self._bad_chunks += 1
        self._chunk_problem = verdict.reason
        if self._bad_chunks >= self._safety.max_bad_chunks and self._latch is None:
            self._fail(f"{self._bad_chunks} bad chunks in a row ({verdict.reason}); reset to go on", verdict.fault_id)
        return verdict.reason

    def go_to(self, posture_rad: np.ndarray, now_s: float) -> str:
        """Leave what is being done and go to a posture (n,), slowly and straight in joint space; no camera is needed.

        Returns "" or why not: stopped, nothing measured yet, or the gripper would pass below the workspace's floor. A
        new instruction or a stop ends it. The instruction that was followed is over.
        """
        if self._latch is not None:
            return self._latch[1]
        why_not = self._joints.problem or next(iter(self._holds.values()), "")
        if why_not or self._goal is None:
            return why_not or "no joint state yet"
        way = np.linspace(self._goal, self._limiter.within(posture_rad), _POINTS_ON_THE_WAY)
        heights = [float(self.arm.forward(q)[1][2]) for q in way]
        floor_m = min(self._safety.workspace_lower_m[2], heights[0], heights[-1])
        if min(heights) < floor_m - 1e-6:
            low = f"{min(heights):.3f} m"
            return f"the way there leads down to {low}, the floor is {floor_m:.3f} m; lift the gripper first"
        self._buffer.end_instruction()
        self._halt()
        self._posture = way[-1]
        self._joint_target = way[-1].copy()
        self._target = self.arm.forward(way[-1])
        slowest_s = float(np.max(np.abs(way[-1] - way[0]))) / self._safety.homing_speed_rad_s
        self._interpolator.move_to(way[-1], now_s, slowest_s)
        return ""

    @property
    def stopped(self) -> bool:
        """Whether a stop or a fault is latched."""
        return self._latch is not None

    def stop(self, reason: str, fault_id: str = "F22") -> None:
        """Latch: the arm holds from the next tick until `reset`, whatever arrives (F22).

        The instruction ends with it: after the reset, chunks of a newer instruction are needed to move.
        """
        self._latch = (Mode.STOPPED, reason or "stopped", fault_id)
        self.counts[fault_id] += 1
        self._buffer.end_instruction()

    def _fail(self, reason: str, fault_id: str) -> None:
        """Latch a fault, as `stop` does."""
        self._latch = (Mode.FAULT, reason, fault_id)
        self._buffer.end_instruction()

    def end_instructions(self, newest_id: int) -> None:
        """The instruction that is followed, and every one up to `newest_id`, moves nothing any more."""
        self._buffer.set_instruction(newest_id)
        self._buffer.end_instruction()
        self._halt()

    def reset(self, now_s: float) -> None:
        """Leave a latch. Nothing is sent before a joint state given after this call has re-anchored the
        target; an instruction heard while it was latched stays without effect."""
        if self._latch is not None:
            self._buffer.end_instruction()
        self._latch = None
        self._bad_chunks = self._refused_goals = 0
        if self.ceased:
            self._gripper.forget()  # the fingers may have lost their torque, and with it what they held
        self.ceased = False
        self.excuse_silence()
        self.reanchor(now_s)

    def excuse_silence(self) -> None:
        """The silence so far does not count: nobody has listened. Call in every tick while it is so."""
        self._joints.forgive()

    def reanchor(self, now_s: float) -> None:
        """Forget chunks and images made so far; nothing is sent before the next joint state has anchored the target
        anew. No latch is left."""
        self._chunk_problem = ""
        self._buffer.clear(earliest_stamp_s=now_s)
        self._camera.reset()
        self._joints.expect(now_s)
        self._unanchor()

    def hold_for(self, fault_id: str, reason: str) -> None:
        """Hold for something outside this object (a peer that died, a second commander) until called with reason
        ""."""
        if reason:
            self._holds[fault_id] = reason
        else:
            self._holds.pop(fault_id, None)

    def give_way(self, reason: str, now_s: float) -> None:
        """Send no goal, for somebody else commands the arm (F14), until called with reason "": then the target is
        anchored anew."""
        if self._rival and not reason:
            self._gripper.forget()  # the others may have taken or put down what it held
            self.reanchor(now_s)
        self._rival = reason

    # Read-outs.

    @property
    def target(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The commanded end-effector pose (rotation (3, 3), position_m (3,)) in the base frame, or None."""
        return None if self._target is None else (self._target[0].copy(), self._target[1].copy())

    @property
    def instruction_id(self) -> int:
        """The instruction whose chunks are executed."""
        return self._buffer.instruction_id

    @property
    def following(self) -> bool:
        """Whether an instruction was given and has not been ended by a stop."""
        return self._buffer.following

    def measured_state(self) -> np.ndarray | None:
        """The policy's state vector (8,) from the newest joint state, or None before the first."""
        sample = self._joints.sample
        return None if sample is None else state_vector(sample.arm_rad, sample.finger_m, self.arm)

    @property
    def measured_rad(self) -> np.ndarray | None:
        """The newest accepted joint positions (n,), or None before the first."""
        return None if self._joints.sample is None else self._joints.sample.arm_rad

    def image_age_s(self, now_s: float) -> float:
        """Seconds since the last new frame; infinite before the first."""
        return self._camera.age_s(now_s)

    # The clockwork.

    def tick(self, now_s: float) -> Command:
        """Return what to send now. Call at the control rate; never raises on what it was fed."""
        jumped = self._last_tick_s is not None and not (
            -1e-3 <= now_s - self._last_tick_s <= self._safety.max_clock_jump_s
        )
        if jumped:
            self._jump(now_s)
        if self._joints.silent(now_s):
            why = f" ({self._joints.problem})" if self._joints.problem else ""
            self.cease(f"no usable joint state for {self._safety.max_joint_silence_s:g} s{why}")
        sample = self._joints.sample
        if self._goal is not None and self._rival:
            self.counts["F14"] += 1
            self._let_go(now_s)
        if sample is not None and self._goal is not None and self._anchorage.astray(self._goal, sample):
            self.counts["F10"] += 1
            self._let_go(now_s)
        if sample is None:
            return self._wait("waiting for a joint state", now_s, jumped)
        if self._goal is None and (self._latch is not None or self._rival or not self._anchorage.rests(sample)):
            return self._wait("waiting for the arm to come to rest", now_s, jumped)
        anchored = self._goal is not None
        previous = self._anchor(sample) if self._goal is None else self._goal
        mode, reason, fault_id, step = self._decide(sample, now_s)
        elapsed_s = self.config.tick_period_s if self._last_tick_s is None else now_s - self._last_tick_s
        goal = self._limiter.limit(self._interpolator.goal(now_s), previous, min(elapsed_s, self._longest_s))
        passage = Passage(goal, previous, sample.arm_rad, elapsed_s, mode, anchored)
        verdict = self._gate.check(passage)
        if verdict.ok:
            self._goal = goal
            self._refused_goals = 0
        else:
            mode, reason, fault_id = self._refuse(verdict, previous)
            goal = previous
        self._last_tick_s = now_s
        velocity = self._interpolator.velocity
        gripper = self._gripper.output(None if fault_id == "F05" else sample.finger_m, now_s)
        return Command(goal.copy(), gripper.pwm, step, mode, reason, fault_id, velocity, gripper.width_m)

    def _jump(self, now_s: float) -> None:
        """The clock has jumped (F16): what was received before it is void."""
        self.counts["F16"] += 1
        self._camera.reset()
        self._let_go(now_s)
        sample = self._joints.sample
        if sample is not None and not 0.0 <= now_s - sample.received_s <= self._safety.max_joint_state_age_s:
            self._joints.sample = None

    def cease(self, why: str) -> None:
        """Nobody says where the arm is any more (F24): nothing is sent before the reset, not even where to stay. What
        was latched before keeps its reason."""
        if self.ceased:
            return
        self.ceased = True
        self.counts["F24"] += 1
        why += "; see to the robot's power, cables and driver, hold the arm, then call reset"
        if self._latch is None:
            self._fail(why, "F24")
        else:
            mode, reason, fault_id = self._latch
            self._latch = mode, f"{reason}; since then {why}", fault_id
        self._unanchor()

    def _wait(self, reason: str, now_s: float, jumped: bool) -> Command:
        """Nothing to send before the target is anchored: not while somebody else commands the arm, and where a stopped
        arm has lost its goal, not before the reset. But once the PWM with which the gripper may be left alone."""
        pwm, self._parting_pwm = self._parting_pwm, None
        if self._latch is not None:
            return Command(None, pwm, None, *self._latch)
        if self._rival:
            return Command(None, pwm, None, Mode.HOLD, self._rival, "F14")
        self._waiting_since_s = now_s if self._waiting_since_s is None else self._waiting_since_s
        late = now_s - self._waiting_since_s > self._safety.max_joint_state_age_s or self._joints.problem
        fault_id = "F16" if jumped else "F05" if late else ""
        return Command(None, pwm, None, Mode.WAITING, self._joints.problem or reason, fault_id)

    def _refuse(self, verdict: Verdict, previous: np.ndarray) -> tuple[Mode, str, str]:
        """The gate has refused a goal: rest on the one before. Several in a row latch a fault."""
        self.counts[verdict.fault_id] += 1
        self._refused_goals += 1
        self._goal, self._halted, self._posture = previous, True, None
        self._joint_target = self._limiter.within(previous)
        self._target = self.arm.forward(self._joint_target)
        self._interpolator.jump_to(previous)
        if self._latch is not None:
            return self._latch
        if self._refused_goals >= self._safety.max_refused_goals:
            reason = f"{self._refused_goals} goals in a row refused ({verdict.reason}); reset to go on"
            self._fail(reason, verdict.fault_id)
            return Mode.FAULT, reason, verdict.fault_id
        return Mode.HOLD, verdict.reason, verdict.fault_id

    def _decide(self, sample: JointSample, now_s: float) -> tuple[Mode, str, str, ExecutedStep | None]:
        """Mode, reason, fault id and the step begun in this tick."""
        blocked = self._blocked(sample, now_s)
        if blocked is not None:
            if not self._halted or self._posture is not None:
                self._halt()
            if not self._fingers_held:
                self._gripper.hold(sample.finger_m)
                self._fingers_held = True
            counted_already = self._latch is not None or bool(self._joints.problem)
            if blocked[2] != self._last_fault and not counted_already:
                self.counts[blocked[2]] += 1
            self._last_fault = blocked[2]
            return (*blocked, None)
        self._last_fault, self._fingers_held = "", False
        if self._posture is not None:
            if not self._interpolator.at_rest(now_s):
                return Mode.HOMING, "on the way to a fixed posture", "", None
            self._posture = None
        begun = self._buffer.begin_step(now_s)
        if begun is None:
            if not self._buffer.step_is_due(now_s):
                verdict = self._step_verdict
                return (Mode.MOVING if verdict.ok else Mode.HOLD), verdict.reason, verdict.fault_id, None
            if self._buffer.empty:
                return Mode.HOLD, self._chunk_problem or "no action chunk for this instruction yet", "", None
            return Mode.HOLD, "the newest action chunk is used up; waiting for the next", "F11", None
        self._halted = False
        executed, self._step_verdict = self._begin(begun[0], begun[1], sample, now_s)
        if self._step_verdict.fault_id:
            self.counts[self._step_verdict.fault_id] += 1
        mode = Mode.MOVING if self._step_verdict.ok else Mode.HOLD
        return mode, self._step_verdict.reason, self._step_verdict.fault_id, executed

    def _blocked(self, sample: JointSample, now_s: float) -> tuple[Mode, str, str] | None:
        """Why nothing may move now, most serious first, or None."""
        if self._latch is not None:
            return self._latch
        if self._joints.problem:
            return Mode.HOLD, self._joints.problem, "F05"
        age_s = now_s - sample.received_s
        if age_s > self._safety.max_joint_state_age_s:
            limit = self._safety.max_joint_state_age_s
            return Mode.HOLD, f"joint state is {age_s:.2f} s old, limit {limit} s", "F05"
        for fault_id, why in self._holds.items():
            return Mode.HOLD, why, fault_id
        if self._posture is not None:
            return None  # a fixed posture is reached without looking
        unseen = self._camera.check(now_s)
        if unseen is None:
            return None
        if unseen.fault_id == "F01" and self.following and self._camera.lost(now_s):
            self._fail(f"{unseen.reason}; the instruction is over: see to the camera, then reset", "F01")
            return self._latch
        return Mode.HOLD, unseen.reason, unseen.fault_id

    def _begin(
        self, wanted: ActionStep, began_s: float, sample: JointSample, now_s: float
    ) -> tuple[ExecutedStep | None, Verdict]:
        """Turn a step into a joint target, or refuse it and keep the present one."""
        assert self._target is not None
        step, verdict = limit_step(wanted, self._safety)
        if not verdict.ok:
            return None, verdict
        measured_m = self.arm.forward(sample.arm_rad)[1]
        previous_m = self._target[1]
        rotation, position_m = apply_delta(*self._target, measured_m, step.delta_xyz_m, step.delta_rpy_rad)
        position_m, box = self._workspace.clip(position_m, previous_m)
        if not box.ok:
            return None, box
        if self._keep_out.depth_m(position_m) > self._keep_out.depth_m(previous_m):
            return None, Verdict(False, "F08", "target lies in a keep-out box; step refused")
        lead_m = float(np.linalg.norm(position_m - measured_m))
        if lead_m > self._safety.max_target_lead_m and lead_m > float(np.linalg.norm(previous_m - measured_m)):
            limit = self._safety.max_target_lead_m
            reason = f"target would be {lead_m:.3f} m ahead of the arm, limit {limit} m; is the arm blocked?"
            return None, Verdict(False, "F10", reason)
        reached = joints_near(
            self.arm, self._safety, self._limiter, rotation, position_m, self._joint_target
        )
        if isinstance(reached, Verdict):
            return None, reached
        joints, exact = reached
        self._target = (rotation, position_m) if exact else self.arm.forward(joints)
        self._joint_target = joints
        self._interpolator.move_to(joints, now_s)
        self._gripper.request(step.gripper, now_s)
        verdict = box if box.fault_id else verdict
        executed = ExecutedStep(
            step.delta_xyz_m, step.delta_rpy_rad, step.gripper, step.chunk_seq, step.step, step.instruction_id,
            began_s, step.dt_s, clamped=bool(verdict.fault_id),
        )  # fmt: skip
        return executed, verdict

    def _anchor(self, sample: JointSample) -> np.ndarray:
        """Take the measured posture as target and goal; returns the goal."""
        self._goal = sample.arm_rad.copy()
        self._joint_target = self._limiter.within(sample.arm_rad)
        self._target = self.arm.forward(self._joint_target)
        self._interpolator.jump_to(self._goal)
        self._parting_pwm = None
        self._gripper.reset()
        self._gripper.hold(sample.finger_m)
        self._workspace.reset()
        self._gate.anchor()
        return self._goal

    def _let_go(self, now_s: float) -> None:
        """Wait for the target to be anchored anew; what was planned before is void."""
        self._buffer.clear(earliest_stamp_s=now_s)
        self._unanchor()

    def _unanchor(self) -> None:
        """Wait for the next joint state before anything more is sent."""
        if self._goal is not None:
            self._parting_pwm = self._gripper.relief()
        self._goal = self._target = self._last_tick_s = self._waiting_since_s = None
        self._anchorage.reset()
        self._last_fault = ""
        self._halted, self._posture = True, None

    def _halt(self) -> None:
        """Come to rest at once; the target follows, so that nothing is caught up on later."""
        self._halted, self._posture = True, None
        if self._goal is not None:
            self._joint_target = self._interpolator.halt(self._goal.copy())
            self._target = self.arm.forward(self._joint_target)
