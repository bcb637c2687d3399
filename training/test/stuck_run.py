"""A program for torchrun: its first process never comes to where the others wait for it.

Usage: stuck_run.py FOLDER [LONGEST_WAIT_S]; each process leaves a file with its number in the folder.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from instructvla_training.parallel import LONGEST_WAIT_S, processes

if __name__ == "__main__":
    folder, *wait = sys.argv[1:]
    with processes("cpu", float(wait[0]) if wait else LONGEST_WAIT_S) as group:
        (Path(folder) / str(os.getpid())).touch()
        if group.is_first:
            threading.Event().wait()
        group.wait()
