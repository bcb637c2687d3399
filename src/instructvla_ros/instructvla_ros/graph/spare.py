"""One process that has imported already what takes a node long to import, for a node that has crashed.

Importing torch and transformers takes most of a model node's start. The spare does it beforehand, then waits for the
name and the arguments of a node on its standard input and becomes that node. It holds no ROS context and no GPU
meanwhile. See nodes/spare.py for its own side.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instructvla_ros.graph.child import spawn

_log = logging.getLogger(__name__)
SETTLE_S = 8.0  # nodes that have just been started have the processors to themselves for so long


@dataclass(frozen=True)
class Order:
    """What a spare does in a node's place: run `module` with these arguments. `preload`: what it has imported before.
    `nice` is that of the node."""

    module: str
    arguments: tuple[str, ...]
    preload: tuple[str, ...]
    nice: int = 0


class Spare:
    """Keeps one spare for these orders; without any there is none. Use from one thread.

    Nothing here waits, and nothing raises: a spare that is not ready, has died or cannot be started is no spare, and
    the caller starts the node in the ordinary way.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        environment: Mapping[str, str],
        output: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment, self._output, self._clock = environment, output, clock
        self._modules = list(dict.fromkeys(name for order in orders for name in (*order.preload, order.module)))
        # The least of all: a process may give way more, but without privileges never less again.
        self._nice = min((order.nice for order in orders), default=0)
        self._due_s: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd, self._said_ready = -1, False

    @property
    def pid(self) -> int | None:
        """Process id of the spare, None while there is none."""
        return None if self._process is None else self._process.pid

    def plan(self) -> None:
        """Start one when the nodes have settled."""
        if self._modules:
            self._due_s = self._clock() + SETTLE_S

    def look(self) -> None:
        """Start the spare when it is due, and notice that it has died. Call now and then."""
        if self._process is not None and self._process.poll() is not None:
            _log.warning("the spare process ended with status %s; see its output", self._process.returncode)
            self._drop(self._process)
        if self._due_s is None or self._clock() < self._due_s:
            return
        self._due_s = None
        if self._process is None:
            self._start()

    def _start(self) -> None:
        read_fd, write_fd = os.pipe()
        argv = ["nice", "-n", str(self._nice)] if self._nice else []
        argv += [sys.executable, "-P", "-m", "instructvla_ros.nodes.spare", str(write_fd), *self._modules]
        try:
            self._process = spawn(argv, self._environment, self._output, subprocess.PIPE, (write_fd,))
        except OSError as error:
            _log.warning("no spare process: %s", error)
            os.close(read_fd)
        else:
            os.set_blocking(read_fd, False)
            self._ready_fd = read_fd
            _log.info("started a spare process, pid %d", self._process.pid)
        finally:
            os.close(write_fd)

    @property
    def ready(self) -> bool:
        """Whether it lives and has imported everything."""
        if self._process is None or self._process.poll() is not None:
            return False
        if not self._said_ready:
            try:
                self._said_ready = os.read(self._ready_fd, 1) != b""
            except BlockingIOError:
                return False
        return self._said_ready

    def take(self, order: Order | None) -> subprocess.Popen[bytes] | None:
        """The spare as this node, or None. Another spare is started when that node has settled."""
        if order is None:
            return None
        self.plan()
        process = self._process
        if not self.ready or process is None or process.stdin is None:
            return None
        line = json.dumps([order.module, order.arguments, order.nice - self._nice])
        try:
            with process.stdin:
                process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:  # it died just now
            return None
        self._forget()
        return process

    def end(self) -> None:
        """End the spare at once: it holds nothing that would have to be put away."""
        self._due_s = None
        if self._process is not None:
            self._drop(self._process)

    def _drop(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._forget()

    def _forget(self) -> None:
        os.close(self._ready_fd)
        self._process, self._said_ready = None, False
