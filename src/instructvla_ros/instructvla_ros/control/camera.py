"""What the controller knows of the policy's camera: how old its newest image is, and whether the picture lives."""

from __future__ import annotations

import math

import numpy as np

from instructvla_ros.control.pictures import FrozenPicture
from instructvla_ros.control.safety import Freshness, SafetyConfig, Verdict


class CameraWatch:
    """One thread owns an object; times are on the caller's clock."""

    def __init__(self, safety: SafetyConfig) -> None:
        self._safety = safety
        self._image = Freshness()
        self._picture = FrozenPicture(safety.max_identical_pictures, safety.frozen_motion_rad)
        self._missed_s: float | None = None

    def reset(self) -> None:
        """Forget all images."""
        self._image.reset()
        self._picture.reset()
        self._missed_s = None

    def on_image(self, stamp_s: float, now_s: float, digest: int | None) -> bool:
        """A frame; False for one with the stamp of the last. `digest` is a fingerprint of its pixels."""
        if not self._image.note(stamp_s, now_s):
            return False
        if digest is not None:
            self._picture.on_picture(digest, stamp_s)
        return True

    def on_joints(self, arm_rad: np.ndarray, stamp_s: float) -> None:
        """Where the arm was measured to be: a picture of an arm that moves changes."""
        self._picture.on_joints(arm_rad, stamp_s)

    def age_s(self, now_s: float) -> float:
        """Seconds since the last new frame; infinite before the first."""
        return self._image.age_s(now_s)

    def check(self, now_s: float) -> Verdict | None:
        """Why nothing may move by what the camera shows (F01, F03), or None."""
        if self._picture.frozen:
            times = self._picture.identical
            return Verdict(False, "F03", f"the camera's picture did not change {times} times while the arm moved")
        age_s, limit_s = self.age_s(now_s), self._safety.max_image_age_s
        if age_s <= limit_s:
            return None
        old = "no camera image yet" if age_s == math.inf else f"camera image is {age_s:.1f} s old, limit {limit_s} s"
        return Verdict(False, "F01", old)

    def lost(self, now_s: float) -> bool:
        """Whether there has been no image for so long that what is followed is over (F01). Before the first image the
        time counts from when this was first asked."""
        age_s = self.age_s(now_s)
        if age_s == math.inf:
            self._missed_s = now_s if self._missed_s is None else self._missed_s
            age_s = now_s - self._missed_s
        return age_s > self._safety.abort_image_age_s
