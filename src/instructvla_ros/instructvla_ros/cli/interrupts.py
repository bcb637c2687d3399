"""Ctrl-C and SIGTERM for a command that has a graph to bring down in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """Somebody asked for the end; the message says who. `status` is the exit status that shells expect then."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped by " + ("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name))
        self.status = 128 + number


class Interrupts:
    """Notes the signals, so that they tear nothing apart; `check` raises, within `at_once` the signal itself does.

    Make and close it in the main thread; `on_signal` is called from the handler.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self._on_signal = on_signal
        self._number = 0
        self._at_once = False
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def close(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._number = self._number or number
        self._on_signal()
        if self._at_once:
            self._at_once = False
            raise Stopped(number)

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self._number:
            raise Stopped(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that may be cut off anywhere."""
        self._at_once = True
        try:
            self.check()
            yield
        except OSError:  # a program that was started gets the terminal's Ctrl-C too, and its pipe breaks
            self.check()
            raise
        finally:
            self._at_once = False
