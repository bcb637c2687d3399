"""Adaptive ensembling: what successive chunks say about the present step, weighed by agreement with the newest."""

from __future__ import annotations

from collections import deque

import numpy as np


class AdaptiveEnsemble:
    """Keeps the last `n_chunks` chunks, one for each step, and averages their predictions for now.

    Weights are proportional to exp(alpha cos(prediction, newest prediction)) over all dimensions.
    """

    def __init__(self, n_chunks: int, alpha: float = 0.1) -> None:
        if n_chunks < 1:
            raise ValueError(f"n_chunks={n_chunks}; expected at least 1")
        self._alpha = alpha
        self._chunks: deque[np.ndarray] = deque(maxlen=n_chunks)

    def reset(self) -> None:
        self._chunks.clear()

    def step(self, chunk_FA: np.ndarray) -> np.ndarray:
        """Add the newest chunk (F, A), one step after the one before -> the action for now, (A,).

        A chunk too short to say something about now has no voice.
        """
        self._chunks.append(np.asarray(chunk_FA, dtype=np.float64))
        ages = range(len(self._chunks) - 1, -1, -1)
        predictions = np.stack([c[age] for age, c in zip(ages, self._chunks, strict=True) if age < len(c)])
        newest = predictions[-1]
        lengths = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
        cosine = predictions @ newest / (lengths + 1e-7)
        weights = np.exp(self._alpha * cosine)
        return (weights / weights.sum()) @ predictions
