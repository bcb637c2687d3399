"""Is the camera's picture alive? Found without looking at it: by its fingerprint, and by what the arm did meanwhile."""

from __future__ import annotations

import numpy as np

_BLACK = 8  # of 255
_SAMPLED = 4  # every so many pixels each way


class FrozenPicture:
    """Several identical pictures in a row although the arm has moved since the first of them (F03).

    A simulated or very good camera shows a resting arm in identical pictures, so identity alone proves nothing. Only
    pictures stamped after the motion count: the camera's own delay is no fault. One thread owns an object; `limit` 0
    switches the check off.
    """

    def __init__(self, limit: int, motion_rad: float) -> None:
        self._limit, self._motion_rad = limit, motion_rad
        self._newest: np.ndarray | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self._begin(None)

    def _begin(self, digest: int | None) -> None:
        self._digest, self._posture = digest, self._newest
        self._moved_s: float | None = None
        self.identical = 0

    @property
    def frozen(self) -> bool:
        """Whether the newest pictures must be taken for one old picture."""
        return 0 < self._limit <= self.identical

    def on_joints(self, arm_rad: np.ndarray, stamp_s: float) -> None:
        """A measured posture (n,) and its time, on the clock of the pictures' stamps."""
        self._newest = arm_rad
        if self._posture is None:
            self._posture = arm_rad
        elif self._moved_s is None and float(np.max(np.abs(arm_rad - self._posture))) > self._motion_rad:
            self._moved_s = stamp_s

    def on_picture(self, digest: int, stamp_s: float) -> None:
        """A picture's fingerprint and stamp."""
        if digest != self._digest:
            self._begin(digest)
        elif self._moved_s is not None and stamp_s > self._moved_s:
            self.identical += 1


def is_black(rgb: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) uint8 shows nothing: sensors have noise of a few levels even in the dark (F03)."""
    return int(rgb[::_SAMPLED, ::_SAMPLED].max()) < _BLACK
