"""Turn Reasoning messages, which carry the whole text so far, into a stream of new pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class TextStream:
    """Messages may arrive before it is known which instruction to follow; they are kept until then."""

    def __init__(self, write: Callable[[str], None], on_complete: Callable[[], None]) -> None:
        self._write, self._on_complete = write, on_complete
        self._lock = threading.Lock()
        self._early: list[Any] = []
        self._instruction_id = 0
        self._seq = -1
        self._printed = 0
        self._last_thought = ""
        self._muted = False
        self.text = ""
        """The newest text."""
        self.first_text = ""
        """The first complete text."""

    def mute(self) -> None:
        """Print nothing more; texts are still kept."""
        with self._lock:
            self._muted = True

    def follow(self, instruction_id: int) -> None:
        """Print the first reasoning of this instruction and whatever comes after."""
        with self._lock:
            self._instruction_id = instruction_id
            early, self._early = self._early, []
            for message in early:
                self._take(message)

    def on_message(self, message: Any) -> None:
        """A Reasoning message, from any thread."""
        with self._lock:
            if self._instruction_id == 0:
                self._early.append(message)
            else:
                self._take(message)

    def _take(self, message: Any) -> None:
        if message.instruction_id != self._instruction_id:
            return
        if message.seq != self._seq:
            self._last_thought = self.text
            self._seq, self._printed = message.seq, 0
        ended_sooner = message.final and message.text != self._last_thought
        if ended_sooner or not self._last_thought.startswith(message.text):  # what comes again is not printed again
            if self._printed == 0 and self._last_thought:
                self._print("\n")
            self._print(message.text[self._printed :])
            self._printed = max(self._printed, len(message.text))
        self.text = message.text or self.text
        if message.final:
            self.first_text = self.first_text or message.text
            self._on_complete()

    def _print(self, piece: str) -> None:
        if piece and not self._muted:
            self._write(piece)
