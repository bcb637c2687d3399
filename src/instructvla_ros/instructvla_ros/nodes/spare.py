"""A process that imports what takes long, then waits to become a node that has crashed (started by graph/spare.py).

    python -m instructvla_ros.nodes.spare READY_FD MODULE ...

It imports the modules, writes a byte to READY_FD and waits for one line of JSON on its standard input: a module, the
arguments of its command line, and by how much more than now it must give way to other processes. Then it runs that
module's `main`. When the input ends instead, it ends too. Until then it holds no ROS context, no GPU and no model.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


def give_way(more: int) -> None:
    """Raise the nice value of every thread: on Linux each has its own, and some libraries start theirs at import."""
    for task in _TASKS.iterdir():
        with suppress(ProcessLookupError):  # a thread that has just ended
            os.setpriority(os.PRIO_PROCESS, int(task.name), os.getpriority(os.PRIO_PROCESS, int(task.name)) + more)


def become(line: str) -> None:
    """Run the node that the line asks for, as its own command line would."""
    name, arguments, more = json.loads(line)
    if more:
        give_way(more)
    # A node has no input.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    module = importlib.import_module(name)
    sys.argv = [str(module.__file__), *arguments]
    module.main()


def main(arguments: Sequence[str]) -> None:
    """Prepare, wait, become the node."""
    ready_fd, *modules = arguments
    for module in modules:
        importlib.import_module(module)
    os.write(int(ready_fd), b"\n")
    os.close(int(ready_fd))
    line = sys.stdin.readline()
    if line:
        become(line)


if __name__ == "__main__":
    main(sys.argv[1:])
