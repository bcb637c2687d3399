"""Which joint states tell where the arm is, and whether they have ceased."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.safety import SafetyConfig
from instructvla_ros.control.silence import Silence
from instructvla_ros.control.state import JointStateReader
from instructvla_ros.control.types import JointSample


class JointInput:
    """Keeps the newest joint state that counts: usable, newer than the last, and measured since the target is to be
    anchored. One thread owns an object. `problem`: why the last that came does not count, or ""."""

    def __init__(self, arm: ArmModel, safety: SafetyConfig) -> None:
        self._reader, self._safety = JointStateReader(arm), safety
        self.sample: JointSample | None = None
        self.problem = ""
        self._from_s = -math.inf  # earlier ones do not tell where the arm is
        self._outdated_s = math.inf  # the stamp of the last of them
        self._silence = Silence()

    def take(
        self, names: Sequence[str], positions: Sequence[float], stamp_s: float, now_s: float, *, anchored: bool
    ) -> JointSample | None:
        """The sample if it counts. Raises ValueError for one that is incomplete, not finite or impossible (F05)."""
        try:
            sample = self._reader.read(names, positions, stamp_s, now_s)
        except ValueError as error:
            self.problem = str(error)
            raise
        self._from_s = min(self._from_s, now_s)  # later only if the clock was set back
        self.problem = "" if anchored else self._outdated(sample)
        if self.problem:
            # Whoever goes on measuring is not silent, though his clock be behind ours.
            if sample.stamp_s > self._outdated_s:
                self._silence.note()
            self._outdated_s = sample.stamp_s
            return None
        if self._repeated(sample):
            return None
        self.sample = sample
        self._silence.note()
        return sample

    def _repeated(self, sample: JointSample) -> bool:
        """A stamp not newer than the last; one much older is of a clock that was set back."""
        if self.sample is None:
            return False
        return 0.0 <= self.sample.stamp_s - sample.stamp_s <= self._safety.max_clock_jump_s

    def _outdated(self, sample: JointSample) -> str:
        """Why a joint state cannot anchor the target, or "": where the arm was before a reset is not where it is."""
        late_s = self._from_s - sample.stamp_s
        if late_s <= self._safety.max_joint_state_age_s:
            return ""
        return f"joint state was measured {late_s:.2f} s before the reset; check that the clocks agree"

    def expect(self, now_s: float) -> None:
        """Only what is measured from now on counts."""
        self.sample, self._from_s, self._outdated_s = None, now_s, math.inf

    def forgive(self) -> None:
        """The silence so far is over."""
        self._silence.forgive()

    def silent(self, now_s: float) -> bool:
        """Whether none has come for `max_joint_silence_s` that is newer than the last, once one did. Call in every
        tick."""
        return self._silence.look(now_s) > self._safety.max_joint_silence_s + 1e-6
