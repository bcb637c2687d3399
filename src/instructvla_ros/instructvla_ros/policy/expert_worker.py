"""The work of the action expert node without ROS: newest latent, newest images and state make a chunk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.safety import check_chunk
from instructvla_ros.control.state import state_of
from instructvla_ros.control.types import JointSample
from instructvla_ros.control.wx250s import WX250S
from instructvla_ros.policy.latent_gate import LatentGate, LatentLimits, LatentUse
from instructvla_ros.policy.reasoning_worker import Frame

_SAMPLES_KEPT = 64
_CLOCK_SET_BACK_S = 1.0  # stamps of one stream never differ backwards by more, unless its clock was set


@dataclass(frozen=True)
class ExpertConfig:
    """`rate_hz` is the highest rate of chunks; each needs a primary image not used before.

    `seed` None draws fresh noise for every chunk, a number makes the sequence of chunks repeatable.
    """

    views: tuple[str, ...] = ("primary",)
    rate_hz: float = 10.0
    max_image_age_s: float = 0.3
    max_skew_s: float = 0.1
    needs_state: bool = True
    seed: int | None = None
    latent: LatentLimits = field(default_factory=LatentLimits)


@dataclass(frozen=True)
class Inputs:
    """What one chunk is made from; `state` is (8,) float32 or None."""

    images: Mapping[str, np.ndarray]
    state: np.ndarray | None
    stamp_s: float


class ExpertWorker:
    """`offer_*` and `set_instruction` may be called from any thread and only store; `step` from one owner
    thread.

    `act` is called as act(inputs, plan, seed=..., seq=...) and returns an ActionChunk; it is the only slow
    call.
    """

    def __init__(
        self,
        act: Callable[..., Any],
        config: ExpertConfig,
        on_chunk: Callable[[Any, float], None],
        clock: Callable[[], float],
        arm: ArmModel = WX250S,
    ) -> None:
        self._act, self._config, self._arm = act, config, arm
        self._on_chunk, self._clock = on_chunk, clock
        self._gate = LatentGate(config.latent)
        self._lock = threading.Lock()
        self._frames: dict[str, Frame] = {}
        self._samples: deque[JointSample] = deque(maxlen=_SAMPLES_KEPT)
        self._plan: Any = None
        self._instruction_id = 0
        self._used_stamp_s: float | None = None
        self._last_s: float | None = None
        self._seq = 0
        self.problem = "no latent action yet"
        self.aging = ""
        self.stale = ""
        """Why the last latent was dropped, if it was of the present instruction and none has been taken since."""
        self.bad_chunks = 0

    def set_instruction(self, instruction_id: int) -> None:
        """Latents of an older instruction are dropped."""
        with self._lock:
            if instruction_id > self._instruction_id:
                self._instruction_id, self._plan = instruction_id, None
                self.stale = ""
                self._gate.reset()

    def offer_latent(self, plan: Any) -> str:
        """Take a latent plan; returns "" or why it was dropped."""
        with self._lock:
            if plan.instruction_id < self._instruction_id:
                return f"latent of instruction {plan.instruction_id}, current is {self._instruction_id}"
            old = self._plan
            if old is not None and not _newer(plan, old):
                self.stale = (
                    f"latent {plan.seq} of {plan.stamp_s:.2f} s is not newer than latent {old.seq} of "
                    f"{old.stamp_s:.2f} s; it is not used"
                )
                return self.stale
            self._instruction_id, self._plan, self.stale = plan.instruction_id, plan, ""
            self._gate.on_latent(self._clock())
            return ""

    def offer_image(self, view: str, frame: Frame) -> None:
        """The newest image of a view. One under its last stamp is not new: the view goes on aging (F03, F01)."""
        with self._lock:
            last = self._frames.get(view)
            if last is None or frame.stamp_s != last.stamp_s:
                self._frames[view] = frame

    def offer_joints(self, sample: JointSample) -> None:
        """A joint state; the one nearest to the image's stamp is used."""
        with self._lock:
            self._samples.append(sample)

    def step(self) -> float:
        """Make a chunk if one is due. Returns how long the caller may sleep unless something new is offered
        (s)."""
        now_s = self._clock()
        period_s = 1.0 / self._config.rate_hz
        if self._last_s is not None and now_s - self._last_s < period_s - 1e-6:
            return self._last_s + period_s - now_s
        with self._lock:
            use, reason = self._gate.use(now_s)
            plan = self._plan
            frames = [self._frames.get(view) for view in self._config.views]
            samples = list(self._samples)
        self.aging = reason if use is LatentUse.AGING else ""
        if use in (LatentUse.NONE, LatentUse.EXPIRED):
            self.problem = reason
            return period_s
        inputs = self._inputs(frames, samples, now_s)
        if inputs is None or inputs.stamp_s == self._used_stamp_s:
            return period_s
        self._seq += 1
        seed = None if self._config.seed is None else self._config.seed + self._seq
        chunk = self._act(inputs, plan, seed=seed, seq=self._seq)
        self._used_stamp_s = inputs.stamp_s
        # Stay on the grid of the rate when only slightly late.
        on_grid = self._last_s is not None and now_s - self._last_s < 1.5 * period_s
        self._last_s = self._last_s + period_s if on_grid and self._last_s is not None else now_s
        verdict = check_chunk(chunk)
        if not verdict.ok:
            self.bad_chunks += 1
            self.problem = f"{verdict.fault_id}: {verdict.reason}"
            return 0.0
        with self._lock:
            current = plan.instruction_id >= self._instruction_id
            self._gate.on_chunk()
        if current:
            self._on_chunk(chunk, self._clock() - now_s)
        return 0.0

    def latent_age_s(self) -> float:
        """Seconds since the newest latent was received."""
        with self._lock:
            return self._gate.age_s(self._clock())

    def _inputs(self, frames: Sequence[Frame | None], samples: Sequence[JointSample], now_s: float) -> Inputs | None:
        config = self._config
        images: dict[str, np.ndarray] = {}
        for view, frame in zip(config.views, frames, strict=True):
            if frame is None:
                self.problem = f"no {view} image yet"
                return None
            age_s = now_s - frame.received_s
            if age_s > config.max_image_age_s:
                self.problem = f"{view} image is {age_s:.1f} s old, limit {config.max_image_age_s} s"
                return None
            images[view] = frame.image
        first = frames[0]
        assert first is not None
        state = None
        if config.needs_state:
            if not samples:
                self.problem = "no joint state yet"
                return None
            nearest = min(samples, key=lambda sample: abs(sample.stamp_s - first.stamp_s))
            skew_s = abs(nearest.stamp_s - first.stamp_s)
            if skew_s > config.max_skew_s:
                limit = config.max_skew_s
                self.problem = f"joint state and image are {skew_s:.2f} s apart, limit {limit} s (F04)"
                return None
            state = state_of(nearest, self._arm)
        self.problem = ""
        return Inputs(images, state, first.stamp_s)


def _newer(plan: Any, old: Any) -> bool:
    """Whether a latent replaces another. Stamps decide, since numbers begin anew with the node that makes them; where
    the clock was set back (F16), the numbers do."""
    if plan.instruction_id != old.instruction_id:
        return bool(plan.instruction_id > old.instruction_id)
    if old.stamp_s - plan.stamp_s > _CLOCK_SET_BACK_S:
        return bool(plan.seq > old.seq)
    return bool((plan.stamp_s, plan.seq) > (old.stamp_s, old.seq))
