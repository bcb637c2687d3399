"""Start a graph without ros2 launch, and stop it cleanly whatever happens.

One process per node. Each child dies with its parent (PR_SET_PDEATHSIG), so that not even SIGKILL of the
supervisor leaves a node behind. SIGINT and SIGTERM stop the graph; so does the end of a required node, unless it
crashed and may be started again.

A graph is stopped in reverse order of start: the manager first, so that nobody is brought up again, then the
controller, which holds the arm while its driver still listens, then the policy's nodes, which nobody hears any more,
and what stands in for the hardware last.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instructvla_ros.graph.child import spawn
from instructvla_ros.graph.spare import Order, Spare
from instructvla_ros.graph.tries import Tries

_log = logging.getLogger(__name__)
_TERM_S = _KILL_S = 3.0


@dataclass(frozen=True)
class Process:
    """What to run: `argv`, a name for messages, whether its end ends the graph, and how often it is started again when
    it crashes, in any minute. `finishes`: its end with status 0 is the end of the work. `order`: how a spare process
    takes its place after a crash; without, it is always started anew."""

    name: str
    argv: Sequence[str]
    required: bool = True
    respawns: int = 0
    finishes: bool = False
    order: Order | None = None


@dataclass(frozen=True)
class Ending:
    """Why the graph ended. `status` is 0 when it was asked to, else the exit status of the node that
    failed."""

    status: int
    reason: str


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _wait_for(process: subprocess.Popen[bytes], until_s: float) -> bool:
    """Whether a process has ended by then, on the steady clock."""
    try:
        process.wait(max(0.0, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


class Supervisor:
    """`output` is a file descriptor for what the nodes print, None for the terminal. `spare`: keep one process ready to
    take the place of a node that crashed, if the graph has any that may use it.

    Use from one thread; `stop` may be called from any thread or signal handler.

    PR_SET_PDEATHSIG fires when the *thread* that forked ends: call `start` from a thread that lives as long
    as the graph should, normally the main one.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        environment: Mapping[str, str],
        *,
        grace_s: float = 8.0,
        output: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        spare: bool = False,
    ) -> None:
        self._wanted = tuple(processes)
        self._environment = dict(environment)
        self._grace_s = grace_s
        self._output = output
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._tries = {process.name: Tries(process.respawns, clock) for process in processes}
        orders = [process.order for process in processes if process.order is not None] if spare else []
        self._spare = Spare(orders, environment, output, clock)
        self._stop = threading.Event()
        self._missed: set[str] = set()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the nodes by name."""
        return {name: process.pid for name, process in self._running.items()}

    def start(self) -> None:
        """Start all processes in order. Raises OSError if one cannot be started; those before it are
        stopped."""
        for process in self._wanted:
            try:
                self._spawn(process)
            except OSError:
                self.shutdown()
                raise
        self._spare.plan()

    def _spawn(self, process: Process) -> None:
        self._running[process.name] = spawn(process.argv, self._environment, self._output)
        _log.info("started %s, pid %d", process.name, self._running[process.name].pid)

    def stop(self) -> None:
        """Ask `wait` to end the graph."""
        self._stop.set()

    def ended(self) -> Ending | None:
        """Why the graph must end now, or None while it runs. Starts again what has crashed and may be."""
        if self._stop.is_set():
            return Ending(0, "asked to stop")
        for process in self._wanted:
            status = self._running[process.name].poll()
            if status is None or (status != 0 and self._respawn(process, status)):
                continue
            if status == 0 and process.finishes:
                return Ending(0, f"{process.name} has finished")
            if process.required:
                return Ending(abs(status) or 1, f"{process.name} {_how(status)}")
            if process.name not in self._missed:
                self._missed.add(process.name)
                _log.warning("%s %s; the graph goes on without it", process.name, _how(status))
        self._spare.look()
        return None

    def _respawn(self, process: Process, status: int) -> bool:
        """Start a crashed process again, if it has not been too often of late."""
        tries = self._tries[process.name]
        if not tries.again():
            return False
        _log.warning("%s %s; starting it again (%s)", process.name, _how(status), tries)
        taken = self._spare.take(process.order)
        if taken is None:
            self._spawn(process)
        else:
            self._running[process.name] = taken
            _log.info("%s goes on in the spare process, pid %d", process.name, taken.pid)
        return True

    def wait(self, poll_s: float = 0.05) -> Ending:
        """Block until the graph must end, then stop all nodes."""
        while True:
            ending = self.ended()
            if ending is not None:
                self.shutdown()
                return ending
            self._stop.wait(poll_s)

    def shutdown(self) -> None:
        """Stop one process after the other in reverse order of start, in bounded time.

        Each gets SIGINT and its share of what is left of the grace time before the next is told; one that needs longer
        goes on with its end meanwhile. Who is left after the grace time gets SIGTERM, then SIGKILL, all at once.
        """
        self._spare.end()
        processes = [(name, process) for name, process in reversed(self._running.items()) if process.poll() is None]
        deadline_s = time.monotonic() + self._grace_s
        for told, (_, process) in enumerate(processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                left_s = deadline_s - time.monotonic()
                _wait_for(process, time.monotonic() + left_s / (len(processes) - told))
        for number, wait_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
            alive = [(name, process) for name, process in processes if not _wait_for(process, deadline_s)]
            for name, process in alive:
                _log.warning("%s, pid %d, still runs; sending %s", name, process.pid, number.name)
                process.send_signal(number)
            deadline_s = time.monotonic() + wait_s
        for name, process in processes:
            if not _wait_for(process, deadline_s):
                _log.warning("%s, pid %d, still runs after SIGKILL", name, process.pid)

    def handle_signals(self) -> None:
        """Let SIGINT and SIGTERM of this process stop the graph."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
