"""One run folder, one run: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .refusals import RunError

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"


def check_free(run_dir: Path) -> None:
    """Raises RunError where another process holds the folder, before minutes of preparation; makes nothing."""
    if (run_dir / LOCK_FILE).exists():
        with only_run(run_dir):
            pass


@contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Holds the folder. Raises RunError where another process does."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise RunError(
                f"{run_dir}: found another run at work in this folder (process {owner}), expected none; "
                "wait for it, stop it, or name another folder (finetune: --output)"
            ) from error
        except OSError as error:  # file systems without locks
            logger.warning("%s cannot be locked (%s): start no second run in it", run_dir, error)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
