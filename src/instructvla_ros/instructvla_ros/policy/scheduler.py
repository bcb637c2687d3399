"""When the vision-language model writes text and when it refreshes the latent action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Due(Enum):
    """What the model should do next."""

    NOTHING = "nothing"
    TEXT = "text"
    LATENT = "latent"


@dataclass(frozen=True)
class SchedulerConfig:
    """`reasoning_period` counts latents between two reasonings of one instruction; 0 reasons once.

    With `wait_for_first_text` the arm waits for the first text of a new instruction (at most
    `first_text_timeout_s`) instead of starting on a latent made without any.
    """

    latent_period_s: float = 0.4
    reasoning_period: int = 20
    wait_for_first_text: bool = True
    first_text_timeout_s: float = 5.0


class ReasoningScheduler:
    """Decides from times and counts alone; the caller reports what it did. One owner thread, injected clock.

    Text never delays latents: while text is being written `latent_due` is asked between tokens, and latents
    then go on from the last finished text. Only the first text of an instruction is waited for, and only if
    so configured.
    """

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self.clear()

    def clear(self) -> None:
        """No instruction: nothing is due."""
        self._active = self._think = self._writing = self._has_text = False
        self._began_s = 0.0
        self._last_latent_s = -math.inf
        self._latents_since_text = 0

    def on_instruction(self, think: bool, now_s: float) -> None:
        """A new instruction; `think` False goes straight to latents."""
        self.clear()
        self._active, self._think, self._began_s = True, think, now_s

    def on_text_started(self) -> None:
        """Text is being written from now on."""
        self._writing = True
        self._latents_since_text = 0

    def on_text_abandoned(self) -> None:
        """No more of this text will come; if it was an instruction's first, another one is due at once."""
        self._writing = False

    def on_text_finished(self) -> None:
        """Text is complete; a latent made from it is due at once."""
        self._writing, self._has_text = False, True
        self._last_latent_s = -math.inf

    def on_latent(self, now_s: float) -> None:
        """A latent was made."""
        # Keep the period's grid when only slightly late, so that the rate is met on average.
        due_s = self._last_latent_s + self.config.latent_period_s
        self._last_latent_s = due_s if 0.0 <= now_s - due_s < 0.5 * self.config.latent_period_s else now_s
        self._latents_since_text += 1

    def text_due(self) -> bool:
        """True when text should be started now."""
        if not (self._active and self._think) or self._writing:
            return False
        if not self._has_text:
            return True
        period = self.config.reasoning_period
        return period > 0 and self._latents_since_text >= period

    def latent_due(self, now_s: float) -> bool:
        """True when a latent should be made now, also between two tokens of text."""
        if not self._active:
            return False
        if self._waits_for_text() and now_s - self._began_s < self.config.first_text_timeout_s:
            return False
        return now_s - self._last_latent_s >= self.config.latent_period_s - 1e-6

    def next(self, now_s: float) -> Due:
        """What to do now, outside of writing: text goes first, because a latent is interleaved anyway."""
        if self.text_due():
            return Due.TEXT
        return Due.LATENT if self.latent_due(now_s) else Due.NOTHING

    def wait_s(self, now_s: float) -> float:
        """Seconds until something can become due by time alone; infinite without an instruction."""
        if not self._active:
            return math.inf
        due_s = self._last_latent_s + self.config.latent_period_s
        if self._waits_for_text():
            due_s = max(due_s, self._began_s + self.config.first_text_timeout_s)
        return max(0.0, due_s - now_s)

    def _waits_for_text(self) -> bool:
        return self._think and not self._has_text and self.config.wait_for_first_text
