"""Between messages and the values of the pure code. No dict and no message travels past this module."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time

from instructvla_msgs.msg import ActionChunk as ActionChunkMsg
from instructvla_msgs.msg import EndEffectorDelta, SafetyState
from instructvla_msgs.msg import Reasoning as ReasoningMsg
from instructvla_ros.control.types import ActionChunk, Command, ExecutedStep, Mode
from instructvla_ros.policy.ingest import time_to_s
from instructvla_ros.policy.reasoning_worker import ReasoningUpdate

_MODES = {
    Mode.WAITING: SafetyState.MODE_HOLDING,
    Mode.HOMING: SafetyState.MODE_RESETTING,
    Mode.HOLD: SafetyState.MODE_HOLDING,
    Mode.MOVING: SafetyState.MODE_EXECUTING,
    Mode.STOPPED: SafetyState.MODE_STOPPED,
    Mode.FAULT: SafetyState.MODE_FAULT,
}


def s_to_time(seconds: float) -> Time:
    """Inverse of `time_to_s`."""
    sec = int(seconds // 1)
    nanosec = round((seconds - sec) * 1e9)
    return Time(sec=sec + nanosec // 1_000_000_000, nanosec=nanosec % 1_000_000_000)


def _floats(values: Any) -> array[float]:
    """float32 values as rclpy takes them without checking each one, row-major."""
    return array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def chunk_to_message(chunk: Any, frame_id: str, latency_s: float) -> ActionChunkMsg:
    """Pack a chunk of the control code or of the model library."""
    message = ActionChunkMsg()
    message.header.stamp, message.header.frame_id = s_to_time(chunk.stamp_s), frame_id
    message.instruction_id, message.seq = int(chunk.instruction_id), int(chunk.seq)
    message.latent_seq, message.dt_s = int(chunk.latent_seq), float(chunk.dt_s)
    message.horizon = len(chunk.gripper)
    message.delta_xyz_m, message.delta_rpy_rad = _floats(chunk.delta_xyz_m), _floats(chunk.delta_rpy_rad)
    message.gripper = _floats(chunk.gripper)
    message.latency_s = float(latency_s)
    return message


def message_to_chunk(message: ActionChunkMsg) -> ActionChunk:
    """Unpack a chunk; raises ValueError when the arrays do not have `horizon` steps (F19)."""
    steps = message.horizon
    sizes = len(message.delta_xyz_m), len(message.delta_rpy_rad), len(message.gripper)
    if sizes != (3 * steps, 3 * steps, steps):
        raise ValueError(f"chunk of horizon {steps} has array sizes {sizes}; expected {(3 * steps, 3 * steps, steps)}")
    return ActionChunk(
        np.asarray(message.delta_xyz_m, dtype=float).reshape(steps, 3),
        np.asarray(message.delta_rpy_rad, dtype=float).reshape(steps, 3),
        np.asarray(message.gripper, dtype=float),
        # float32 on the wire: 0.2 must come back as 0.2, or the step grid drifts against the clock.
        round(float(message.dt_s), 6),
        time_to_s(message.header.stamp),
        message.instruction_id,
        message.seq,
        message.latent_seq,
    )


def reasoning_to_message(update: ReasoningUpdate, stamp: Time, frame_id: str) -> ReasoningMsg:
    """Pack the text so far; `stamp` is the image's, or the present time for a bare announcement."""
    message = ReasoningMsg()
    message.header.stamp, message.header.frame_id = stamp, frame_id
    message.instruction_id, message.seq = update.instruction.instruction_id, update.seq
    message.instruction, message.text, message.final = update.instruction.text, update.text, update.final
    message.n_tokens, message.latency_s = update.n_tokens, float(update.latency_s)
    message.tokens_per_second = float(update.tokens_per_second)
    return message


def step_to_message(step: ExecutedStep, frame_id: str) -> EndEffectorDelta:
    """Pack the step that has begun."""
    message = EndEffectorDelta()
    message.header.stamp, message.header.frame_id = s_to_time(step.began_s), frame_id
    message.instruction_id, message.chunk_seq, message.step = step.instruction_id, step.chunk_seq, step.step
    message.dt_s = float(step.dt_s)
    xyz, rpy = message.delta_xyz_m, message.delta_rpy_rad
    xyz.x, xyz.y, xyz.z = step.delta_xyz_m
    rpy.x, rpy.y, rpy.z = step.delta_rpy_rad
    message.gripper, message.clamped = float(step.gripper), step.clamped
    return message


def safety_mode(command: Command, instruction_id: int) -> int:
    """The SafetyState mode of a command: holding without any instruction is idleness."""
    if command.mode is Mode.HOLD and instruction_id == 0 and not command.fault_id:
        return SafetyState.MODE_IDLE
    return _MODES[command.mode]
