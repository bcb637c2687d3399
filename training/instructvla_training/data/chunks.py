"""The window of actions that follows a step, as a chunk, and frames that come later."""

from __future__ import annotations

import numpy as np

from .shards import Frames


def action_chunks(
    action_XA: np.ndarray, index_N: np.ndarray, last_N: np.ndarray | int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Actions of steps t .. t+F-1 -> (N, F, 7), and which of them are in the episode, (N, F) bool.

    ``last_N``: the last step of each one's episode. Past it the arm stands still and the gripper keeps its last value
    (reference §4.6).
    """
    last_N1 = np.broadcast_to(last_N, len(index_N))[:, None]
    wanted_NF = np.asarray(index_N)[:, None] + np.arange(horizon)
    inside_NF = wanted_NF <= last_N1
    chunks_NFA = np.array(action_XA[np.minimum(wanted_NF, last_N1)])
    chunks_NFA[..., :6][~inside_NF] = 0.0
    return chunks_NFA, inside_NF


def chunk_actions(frames: Frames, index: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """`action_chunks` that follow the frames ``index`` (N,)."""
    return action_chunks(frames.action, index, frames.last[frames.episode[index]], horizon)


def later_frames(frames: Frames, index: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """The frames ``delay`` steps after ``index``, clamped to the end of the same episode."""
    return np.minimum(index + delay, frames.last[frames.episode[index]])
