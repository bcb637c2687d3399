"""A progress bar for commands that go through recordings."""

from __future__ import annotations

import sys


class ProgressBar:
    """A bar on a terminal, nothing elsewhere. Called with the share that is done."""

    def __init__(self, name: str) -> None:
        self._name, self._bar = name, None

    def __enter__(self) -> ProgressBar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %")
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
