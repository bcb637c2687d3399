"""Action chunks and state statistics from recorded frames."""

from __future__ import annotations

import numpy as np

from .shards import Frames


def chunk_actions(frames: Frames, index: np.ndarray, horizon: int) -> np.ndarray:
    """Actions of steps t..t+F-1 for the frames ``index`` (n,) -> (n, F, 7).

    Past the end of the episode the arm stands still and the gripper keeps its last value (reference §4.6).
    """
    episode = frames.episode[index]
    last = frames.first[episode] + np.array([r.length for r in frames.episodes])[episode] - 1
    wanted = index[:, None] + np.arange(horizon)[None, :]
    chunk = frames.action[np.minimum(wanted, last[:, None])].copy()
    chunk[..., :6][wanted > last[:, None]] = 0.0
    return chunk


def later_frames(frames: Frames, index: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """The frames ``delay`` steps after ``index``, clamped to the end of the same episode."""
    episode = frames.episode[index]
    last = frames.first[episode] + np.array([r.length for r in frames.episodes])[episode] - 1
    return np.minimum(index + delay, last)


def action_quantiles(frames: Frames) -> dict[str, dict[str, list[float] | list[bool]]]:
    """q01/q99, mean, standard deviation, extremes and mask of actions and states (reference §5.9)."""
    statistics = {}
    for name, key in (("action", "action"), ("proprio", "state")):
        values = getattr(frames, key)
        statistics[name] = {
            "q01": np.quantile(values, 0.01, axis=0).tolist(),
            "q99": np.quantile(values, 0.99, axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mask": [True] * 6 + [False] if name == "action" else [True] * values.shape[1],
        }
    return statistics
