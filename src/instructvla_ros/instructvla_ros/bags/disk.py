"""Whether there is room on the disk to go on recording (F25)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Space(Enum):
    """How much room there is."""

    ENOUGH = "enough"
    LOW = "low"
    FULL = "full"


@dataclass(frozen=True)
class DiskLimits:
    """Below `warn_bytes` free the recorder warns, below `stop_bytes` it stops; looked at after every
    `check_every_bytes` written."""

    warn_bytes: int = 2_000_000_000
    stop_bytes: int = 500_000_000
    check_every_bytes: int = 8_000_000


class DiskGuard:
    """One owner thread. `free_bytes` tells the free bytes of a folder's disk; injected by tests."""

    def __init__(
        self,
        folder: Path,
        limits: DiskLimits | None = None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder, self._limits, self._free = folder, limits or DiskLimits(), free_bytes
        self._since_check = 0
        self.free_bytes = 0
        self.space = Space.ENOUGH

    def check(self) -> Space:
        """Look at the disk now."""
        self._since_check = 0
        self.free_bytes = self._free(self._folder)
        if self.free_bytes < self._limits.stop_bytes:
            self.space = Space.FULL
        elif self.free_bytes < self._limits.warn_bytes:
            self.space = Space.LOW
        else:
            self.space = Space.ENOUGH
        return self.space

    def wrote(self, count: int) -> Space:
        """Count bytes that were written; looks at the disk from time to time."""
        self._since_check += count
        return self.check() if self._since_check >= self._limits.check_every_bytes else self.space
