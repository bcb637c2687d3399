"""A child process that dies with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


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


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    output: int | None,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program; raises OSError. It ends when the thread that called this ends (PR_SET_PDEATHSIG)."""
    return subprocess.Popen(
        list(argv),
        env=dict(environment),
        stdin=stdin,
        # Its own session: a Ctrl-C in the terminal reaches only the supervisor, which stops in order.
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid()),
        pass_fds=tuple(pass_fds),
        stdout=output,
        stderr=output,
    )
