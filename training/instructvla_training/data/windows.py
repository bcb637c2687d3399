"""Windows over the steps of one episode: the chunk of actions that follows a step, the images before it."""

from __future__ import annotations

import numpy as np


def action_chunk(action_TA: np.ndarray, step: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions of steps t .. t+F-1 -> (F, 7), and which of them are in the episode, (F,) bool.

    Past the end of the episode the arm stands still and the gripper keeps its last value (reference §4.6).
    """
    wanted = step + np.arange(horizon)
    inside = wanted < len(action_TA)
    chunk = action_TA[np.minimum(wanted, len(action_TA) - 1)].copy()
    chunk[~inside, :6] = 0.0
    return chunk, inside


def observation_window(step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps t-size+1 .. t -> (size,) indices, the first step standing in for those before it, and which are real."""
    wanted = step + np.arange(1 - size, 1)
    return np.maximum(wanted, 0), wanted >= 0
