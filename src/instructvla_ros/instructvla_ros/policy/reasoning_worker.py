"""The work of the reasoning node without ROS: text streamed token by token, latents interleaved between
tokens."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from instructvla_ros.policy.instructions import Instruction
from instructvla_ros.policy.scheduler import Due, ReasoningScheduler, SchedulerConfig
from instructvla_ros.policy.views import views_of_vlm

Picture = np.ndarray | Mapping[str, np.ndarray]  # one image, or images by view


class VisionLanguageRuntime(Protocol):
    """The part of the model library's PolicyRuntime that is used here."""

    @property
    def manifest(self) -> Any:
        """Says which views are looked at."""
        ...

    def think(
        self,
        image: Picture,
        instruction: str,
        *,
        mode: str,
        max_new_tokens: int,
        should_stop: Callable[[], bool] | None,
    ) -> Iterator[Any]:
        """Stream thoughts; the last is final."""
        ...

    def latents(
        self,
        image: Picture,
        instruction: str,
        thought: Any,
        *,
        reuse_cache: bool,
        instruction_id: int,
        seq: int,
        stamp_s: float,
    ) -> Any:
        """One latent plan."""
        ...


@dataclass(frozen=True)
class Frame:
    """One camera image (H, W, 3) uint8 RGB, its stamp, and when it was received on the worker's clock."""

    image: np.ndarray
    stamp_s: float
    received_s: float


@dataclass(frozen=True)
class Sight:
    """What the VLM looks at: one image, or those of all views by name. The first view's stamp, and when the oldest was
    received."""

    picture: Picture
    stamp_s: float
    received_s: float


@dataclass(frozen=True)
class ReasoningUpdate:
    """The text so far. `seq` numbers the reasonings of this worker from 1; `stamp_s` is the image's."""

    instruction: Instruction
    seq: int
    text: str
    final: bool
    n_tokens: int
    latency_s: float
    tokens_per_second: float
    stamp_s: float


@dataclass(frozen=True)
class ReasoningConfig:
    """`mode` is the prompt of the text ("think" or "motion"), or "off" for none whatever the instruction
    asks.

    The first latent after a text reuses the text's key/value cache if its image is not older than
    `max_reuse_age_s`.
    """

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    mode: str = "think"
    max_new_tokens: int = 50
    max_image_age_s: float = 0.5
    max_reuse_age_s: float = 0.5


class ReasoningWorker:
    """`accept`, `cancel` and `offer_image` may be called from any thread and only store; `step` from one
    owner thread.

    The sinks are called in the owner thread. A new instruction ends a running text at its next token.
    """

    def __init__(
        self,
        runtime: VisionLanguageRuntime,
        config: ReasoningConfig,
        on_text: Callable[[ReasoningUpdate], None],
        on_latent: Callable[[Any, ReasoningUpdate | None, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._runtime, self._config = runtime, config
        self._on_text, self._on_latent, self._clock = on_text, on_latent, clock
        self._scheduler = ReasoningScheduler(config.scheduler)
        self._lock = threading.Lock()
        self._wanted: Instruction | None = None
        self._changed = False
        self._views = views_of_vlm(runtime.manifest)
        self._frames: dict[str, Frame] = {}
        self._instruction: Instruction | None = None
        self._thought: Any = None
        self._thought_update: ReasoningUpdate | None = None
        self._latent_stamp_s: float | None = None
        self._text_seq = 0
        self._text_announced = False
        self._open: ReasoningUpdate | None = None
        """What listeners were told last, if they were told that more will come."""
        self._latent_seq = 0
        self.problem = "no instruction yet"

    def accept(self, instruction: Instruction) -> None:
        """Follow this instruction from the next step on."""
        with self._lock:
            self._wanted, self._changed = instruction, True

    def cancel(self) -> None:
        """Follow no instruction."""
        with self._lock:
            self._wanted, self._changed = None, True

    def drop(self) -> Instruction | None:
        """In the owner thread: follow the present instruction no more; returns it, unless a newer one waits already."""
        dropped = self._instruction
        with self._lock:
            if self._changed or dropped is None:
                return None
            self._wanted, self._changed = None, True
        return dropped

    def close(self) -> None:
        """End the present reasoning for its listeners, at what was written so far; in the owner thread, or after it."""
        if self._open is not None:
            self._tell(replace(self._open, final=True))

    def offer_image(self, view: str, frame: Frame) -> None:
        """The newest image of a view. One under its last stamp is not new: the view goes on aging (F03, F01)."""
        with self._lock:
            last = self._frames.get(view)
            if last is None or frame.stamp_s != last.stamp_s:
                self._frames[view] = frame

    @property
    def instruction(self) -> Instruction | None:
        """The instruction that is, or is about to be, followed."""
        with self._lock:
            return self._wanted if self._wanted is not None and self._wanted.text else None

    def step(self) -> float:
        """Do what is due. Returns how long the caller may sleep unless something new is offered (s)."""
        self._take_instruction()
        now_s = self._clock()
        due = self._scheduler.next(now_s)
        if due is Due.NOTHING:
            return self._scheduler.wait_s(now_s)
        sight = self._look(now_s)
        if sight is None:
            return math.inf
        if due is Due.TEXT:
            try:
                self._write(sight)
            except Exception:
                self._scheduler.on_text_abandoned()
                self.close()
                raise
            return 0.0
        return 0.0 if self._refresh(sight, reuse_cache=False) else math.inf

    def _take_instruction(self) -> None:
        with self._lock:
            if not self._changed:
                return
            self._instruction, self._changed = self._wanted, False
        self.close()
        self._thought = self._thought_update = self._latent_stamp_s = None
        if self._instruction is not None and not self._instruction.text:
            # Its id alone makes everybody drop what belongs to an older one.
            self._text_seq += 1
            self._tell(self._update("", True, 0, 0.0, math.nan))
            self._instruction = None
        if self._instruction is None:
            self._scheduler.clear()
            self.problem = "no instruction"
            return
        think = self._instruction.think and self._config.mode != "off"
        self._scheduler.on_instruction(think, self._clock())
        self._text_seq += 1
        self._text_announced = think
        # Announce the instruction at once: whoever listens drops what belongs to an older one.
        self._tell(self._update("", not think, 0, 0.0, math.nan))

    def _look(self, now_s: float) -> Sight | None:
        with self._lock:
            frames = dict(self._frames)
        for view in self._views:
            if view not in frames:
                self.problem = f"no {view} image yet"
                return None
            age_s = now_s - frames[view].received_s
            if age_s > self._config.max_image_age_s:
                self.problem = f"{view} image is {age_s:.1f} s old, limit {self._config.max_image_age_s} s"
                return None
        self.problem = ""
        seen = {view: frames[view] for view in self._views}
        first = seen[self._views[0]]
        picture = first.image if len(seen) == 1 else {view: frame.image for view, frame in seen.items()}
        return Sight(picture, first.stamp_s, min(frame.received_s for frame in seen.values()))

    def _update(self, text: str, final: bool, n_tokens: int, latency_s: float, stamp_s: float) -> ReasoningUpdate:
        assert self._instruction is not None
        rate = n_tokens / latency_s if latency_s > 0.0 else 0.0
        return ReasoningUpdate(self._instruction, self._text_seq, text, final, n_tokens, latency_s, rate, stamp_s)

    def _tell(self, update: ReasoningUpdate) -> None:
        self._open = None if update.final else update
        self._on_text(update)

    def _superseded(self) -> bool:
        with self._lock:
            return self._changed

    def _write(self, sight: Sight) -> None:
        """Stream one text, with latents in between; then a latent made from it."""
        assert self._instruction is not None
        began_s = self._clock()
        if not self._text_announced:
            self._text_seq += 1
        self._text_announced = False
        self._scheduler.on_text_started()
        last = None
        for thought in self._runtime.think(
            sight.picture,
            self._instruction.text,
            mode=self._config.mode,
            max_new_tokens=self._config.max_new_tokens,
            should_stop=self._superseded,
        ):
            if self._superseded():
                self.close()
                return
            now_s = self._clock()
            last = self._update(thought.text, thought.final, thought.n_tokens, now_s - began_s, sight.stamp_s)
            self._tell(last)
            if thought.final:
                self._thought, self._thought_update = thought, last
                break
            if self._scheduler.latent_due(now_s):
                newer = self._look(now_s)
                if newer is not None:
                    self._refresh(newer, reuse_cache=False)
        if last is None or not last.final:
            # Cut short without a final text: close the stream for listeners and go on without it.
            text, count = ("", 0) if last is None else (last.text, last.n_tokens)
            self._tell(self._update(text, True, count, self._clock() - began_s, sight.stamp_s))
            self._scheduler.on_text_finished()
            return
        self._scheduler.on_text_finished()
        now_s = self._clock()
        reuse = now_s - sight.received_s <= self._config.max_reuse_age_s
        source = sight if reuse else self._look(now_s)
        if source is not None:
            self._refresh(source, reuse_cache=reuse)

    def _refresh(self, sight: Sight, *, reuse_cache: bool) -> bool:
        """Make a latent unless this image was already used for one; returns whether it did."""
        if sight.stamp_s == self._latent_stamp_s and not reuse_cache:
            return False
        instruction = self._instruction
        assert instruction is not None
        began_s = self._clock()
        self._latent_seq += 1
        plan = self._runtime.latents(
            sight.picture,
            instruction.text,
            self._thought,
            reuse_cache=reuse_cache,
            instruction_id=instruction.instruction_id,
            seq=self._latent_seq,
            stamp_s=sight.stamp_s,
        )
        self._latent_stamp_s = sight.stamp_s
        now_s = self._clock()
        self._scheduler.on_latent(now_s)
        if not self._superseded():
            self._on_latent(plan, self._thought_update, now_s - began_s)
        return True
