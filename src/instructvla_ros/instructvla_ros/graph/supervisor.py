"""Start a graph without ros2 launch, and stop it cleanly whatever happens.

One process per node. Each child dies with its parent (PR_SET_PDEATHSIG), so that not even SIGKILL of the
supervisor leaves a node behind. SIGINT and SIGTERM stop the graph; so does the end of a required node, unless it
crashed and may be started again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
RESPAWN_WINDOW_S = 60.0
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Process:
    """What to run: `argv`, a name for messages, whether its end ends the graph, and how often it is started again when
    it crashes, in any `RESPAWN_WINDOW_S`. `finishes`: its end with status 0 is the end of the work."""

    name: str
    argv: Sequence[str]
    required: bool = True
    respawns: int = 0
    finishes: bool = False


@dataclass(frozen=True)
class Ending:
    """Why the graph ended. `status` is 0 when it was asked to, else the exit status of the node that
    failed."""

    status: int
    reason: str


def _die_with_parent(parent_pid: int) -> Callable[[], None]:
    """Runs in the child before exec: only calls that are safe there."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died between fork and prctl.
        if os.getppid() != parent_pid:
            os._exit(1)
        # Jobs started with & in a script ignore SIGINT; nodes must not inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return prepare


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


class Supervisor:
    """`output` is a file descriptor for what the nodes print, None for the terminal.

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
    ) -> None:
        self._wanted = tuple(processes)
        self._environment = dict(environment)
        self._grace_s = grace_s
        self._output = output
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._respawned_s: dict[str, list[float]] = {process.name: [] for process in processes}
        self._clock = clock
        self._stop = threading.Event()

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

    def _spawn(self, process: Process) -> None:
        self._running[process.name] = subprocess.Popen(
            list(process.argv),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            # Its own session: a Ctrl-C in the terminal reaches only the supervisor, which stops in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
            stdout=self._output,
            stderr=self._output,
        )
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
        return None

    def _respawn(self, process: Process, status: int) -> bool:
        """Start a crashed process again, if it has not been too often of late."""
        now_s = self._clock()
        recent = [when_s for when_s in self._respawned_s[process.name] if now_s - when_s < RESPAWN_WINDOW_S]
        if len(recent) >= process.respawns:
            return False
        self._respawned_s[process.name] = [*recent, now_s]
        count = f"{len(recent) + 1} of {process.respawns}"
        _log.warning("%s %s; starting it again (%s within %g s)", process.name, _how(status), count, RESPAWN_WINDOW_S)
        self._spawn(process)
        return True

    def wait(self, poll_s: float = 0.2) -> Ending:
        """Block until the graph must end, then stop all nodes."""
        while True:
            ending = self.ended()
            if ending is not None:
                self.shutdown()
                return ending
            self._stop.wait(poll_s)

    def shutdown(self) -> None:
        """Stop in reverse order: SIGINT, after the grace time SIGTERM, then SIGKILL."""
        for signal_number, wait_s in (
            (signal.SIGINT, self._grace_s),
            (signal.SIGTERM, 3.0),
            (signal.SIGKILL, 3.0),
        ):
            alive = [p for p in reversed(list(self._running.values())) if p.poll() is None]
            if not alive:
                return
            for process in alive:
                process.send_signal(signal_number)
            deadline_s = time.monotonic() + wait_s
            for process in alive:
                try:
                    process.wait(max(0.0, deadline_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    _log.warning("pid %d still runs after %s", process.pid, signal.Signals(signal_number).name)

    def handle_signals(self) -> None:
        """Let SIGINT and SIGTERM of this process stop the graph."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
