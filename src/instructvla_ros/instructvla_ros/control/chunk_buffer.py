"""Which policy step comes next: receding horizon over chunks, aligned by the steps consumed since their
image.

A chunk predicts F steps from the moment of its image. Steps begun since that moment have been consumed, by
whatever chunk they came from, so a chunk that arrives late continues at its first step not yet begun. The
newest chunk wins; with the temporal ensemble, older chunks that still cover the step are averaged in.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from instructvla_ros.control.types import ActionChunk, ActionStep

# Two stamps closer than this are the same instant: it absorbs rounding, far below one control tick.
_SAME_INSTANT_S = 1e-3
_BEGINS_KEPT = 256


@dataclass(frozen=True)
class ChunkBufferConfig:
    """`ensemble_size` 1 executes the newest chunk alone; K > 1 averages up to K chunks with weights
    exp(ensemble_alpha * cosine similarity to the newest prediction). `max_steps_per_chunk` stops a chunk
    early (0: never)."""

    ensemble_size: int = 1
    ensemble_alpha: float = 0.1
    max_steps_per_chunk: int = 0
    max_future_stamp_s: float = 0.5


def ensemble_weights(predictions: np.ndarray, alpha: float) -> np.ndarray:
    """Weights (K,) of K predictions (K, D), newest first: softmax of alpha times cosine similarity to the
    newest."""
    newest = predictions[0]
    norms = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    cosine = np.where(norms > 1e-12, predictions @ newest / np.maximum(norms, 1e-12), 1.0)
    weights = np.exp(alpha * cosine)
    return weights / weights.sum()


class ChunkBuffer:
    """Holds the live chunks of the current instruction. One thread owns it; all times are on the caller's
    clock."""

    def __init__(self, config: ChunkBufferConfig | None = None) -> None:
        self._config = config or ChunkBufferConfig()
        self._chunks: deque[ActionChunk] = deque(maxlen=max(1, self._config.ensemble_size))  # newest first
        self._begins: deque[float] = deque(maxlen=_BEGINS_KEPT)
        self._step_ends_s = -math.inf
        self._earliest_stamp_s = -math.inf
        self._ended_id = -1
        self.instruction_id = 0
        self.dropped = 0

    @property
    def empty(self) -> bool:
        """True while no chunk of the current instruction is held."""
        return not self._chunks

    @property
    def following(self) -> bool:
        """Whether an instruction was given and has not been ended since."""
        return self.instruction_id > max(0, self._ended_id)

    def set_instruction(self, instruction_id: int) -> bool:
        """Drop everything older than `instruction_id`; returns whether the instruction changed."""
        if instruction_id <= self.instruction_id:
            return False
        self.instruction_id = instruction_id
        self.clear()
        return True

    def end_instruction(self) -> None:
        """Drop everything and refuse chunks of the present instruction from now on."""
        self._ended_id = self.instruction_id
        self.clear()

    def clear(self, earliest_stamp_s: float | None = None) -> None:
        """Forget all chunks and consumed steps; later chunks stamped before `earliest_stamp_s` are
        refused."""
        self._chunks.clear()
        self._begins.clear()
        self._step_ends_s = -math.inf
        if earliest_stamp_s is not None:
            self._earliest_stamp_s = earliest_stamp_s

    def add(self, chunk: ActionChunk, now_s: float) -> str:
        """Take a chunk. Returns "" when taken, else why it was dropped."""
        self._earliest_stamp_s = min(self._earliest_stamp_s, now_s)  # later only if the clock was set back
        reason = self._why_not(chunk, now_s)
        if reason:
            self.dropped += 1
        else:
            self.set_instruction(chunk.instruction_id)
            self._chunks.appendleft(chunk)
        return reason

    def _why_not(self, chunk: ActionChunk, now_s: float) -> str:
        if chunk.instruction_id < self.instruction_id:
            return f"chunk belongs to instruction {chunk.instruction_id}, current is {self.instruction_id}"
        if chunk.instruction_id <= self._ended_id:
            return f"instruction {chunk.instruction_id} was ended by a stop; give a new one"
        if chunk.stamp_s < self._earliest_stamp_s - _SAME_INSTANT_S:
            return "chunk was made from an image taken before the last reset"
        if chunk.stamp_s > now_s + self._config.max_future_stamp_s:
            return f"chunk stamp is {chunk.stamp_s - now_s:.2f} s in the future; check that the clocks agree"
        if chunk.stamp_s + len(chunk.gripper) * chunk.dt_s <= now_s:
            return f"chunk is {now_s - chunk.stamp_s:.2f} s old and all its steps are over"
        if self._chunks and chunk.instruction_id == self._chunks[0].instruction_id:
            newest = self._chunks[0]
            if (chunk.stamp_s, chunk.seq) <= (newest.stamp_s, newest.seq):
                return f"chunk {chunk.seq} is not newer than chunk {newest.seq}"
        return ""

    def step_is_due(self, now_s: float) -> bool:
        """True when the step under way is over (or none is under way)."""
        return now_s >= self._step_ends_s - _SAME_INSTANT_S

    def _next_index(self, chunk: ActionChunk, now_s: float) -> int | None:
        """The first step of the chunk that has not begun, or None when the chunk is used up or expired."""
        index = sum(1 for begin in self._begins if begin >= chunk.stamp_s - _SAME_INSTANT_S)
        last = len(chunk.gripper)
        if self._config.max_steps_per_chunk > 0:
            last = min(last, self._config.max_steps_per_chunk)
        expired = now_s >= chunk.stamp_s + len(chunk.gripper) * chunk.dt_s - _SAME_INSTANT_S
        return None if index >= last or expired else index

    def begin_step(self, now_s: float) -> tuple[ActionStep, float] | None:
        """Begin the next step if one is due. Returns it and its begin time on the step grid, or None.

        A step due slightly late keeps the grid of the one before it, so tick jitter does not add up.
        """
        if not self.step_is_due(now_s) or not self._chunks:
            return None
        newest = self._chunks[0]
        index = self._next_index(newest, now_s)
        if index is None:
            return None
        on_grid = self._begins and now_s - self._step_ends_s < 0.5 * newest.dt_s
        began_s = self._step_ends_s if on_grid else now_s
        step = self._blend(newest, index, now_s)
        self._begins.append(began_s)
        self._step_ends_s = began_s + newest.dt_s
        return step, began_s

    def _blend(self, newest: ActionChunk, index: int, now_s: float) -> ActionStep:
        rows = [_row(newest, index)]
        for chunk in list(self._chunks)[1:]:
            older = self._next_index(chunk, now_s)
            if older is not None:
                rows.append(_row(chunk, older))
        row = rows[0]
        if len(rows) > 1:
            stacked = np.stack(rows)
            row = ensemble_weights(stacked, self._config.ensemble_alpha) @ stacked
        values = row.tolist()
        return ActionStep(
            delta_xyz_m=(values[0], values[1], values[2]),
            delta_rpy_rad=(values[3], values[4], values[5]),
            gripper=values[6],
            dt_s=newest.dt_s,
            chunk_seq=newest.seq,
            step=index,
            instruction_id=newest.instruction_id,
        )


def _row(chunk: ActionChunk, index: int) -> np.ndarray:
    row = np.empty(7)
    row[:3] = chunk.delta_xyz_m[index]
    row[3:6] = chunk.delta_rpy_rad[index]
    row[6] = chunk.gripper[index]
    return row
