"""A disk that fills up: a file of ballast that leaves only so much space, and is taken away again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

BALLAST = "instructvla_fault_ballast"
MEGABYTE = 1_000_000
DEFAULT_MOST_MB = 20_000.0


def free_mb(folder: Path) -> float:
    """Free space where a folder lies, in MB."""
    return shutil.disk_usage(folder).free / MEGABYTE


def fill(
    folder: Path, leave_mb: float, most_mb: float = DEFAULT_MOST_MB, free: Callable[[Path], float] = free_mb
) -> float:
    """Reserve space until `leave_mb` are free; returns the ballast's size in MB.

    Raises ValueError when that needs more than `most_mb`: nobody fills a large disk by mistake.
    """
    clear(folder)
    size_mb = free(folder) - leave_mb
    if size_mb > most_mb:
        raise ValueError(
            f"{free(folder):.0f} MB are free in {folder}: leaving {leave_mb:.0f} MB takes a file of {size_mb:.0f} MB, "
            f"more than {most_mb:.0f} MB; take a smaller disk, or allow more"
        )
    if size_mb <= 0.0:
        return 0.0
    with open(folder / BALLAST, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, int(size_mb * MEGABYTE))
    return size_mb


def clear(folder: Path) -> bool:
    """Take the ballast away; returns whether there was any."""
    path = folder / BALLAST
    found = path.exists()
    path.unlink(missing_ok=True)
    return found
