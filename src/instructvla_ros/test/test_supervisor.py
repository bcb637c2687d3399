"""The supervisor of a graph: what the death of each process means, and how all are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instructvla_ros.graph.supervisor import Process, Supervisor

SHORT = [sys.executable, "-S", "-c", "pass"]
SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split(")")[1].split()[0] != "Z"


def wait_until(condition: Any, limit_s: float = 10.0) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_death_of_a_required_node_stops_the_others_and_gives_its_status() -> None:
    dying = [sys.executable, "-S", "-c", "import sys; sys.exit(3)"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("dies", dying)], os.environ)
    supervisor.start()
    pids = supervisor.pids
    ending = supervisor.wait(poll_s=0.01)
    assert (ending.status, ending.reason) == (3, "dies exited with status 3")
    assert not any(alive(pid) for pid in pids.values())


def test_the_good_end_of_a_node_that_finishes_is_the_end_of_the_work() -> None:
    short = [sys.executable, "-S", "-c", "pass"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("works", short, finishes=True)], os.environ)
    supervisor.start()
    ending = supervisor.wait(poll_s=0.01)
    assert (ending.status, ending.reason) == (0, "works has finished")


def test_the_death_of_a_node_that_is_not_required_ends_nothing_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = [sys.executable, "-S", "-c", "pass"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("ends", short, required=False)], os.environ)
    supervisor.start()
    assert wait_until(lambda: not alive(supervisor.pids["ends"]))
    assert supervisor.ended() is None and supervisor.ended() is None
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["ends exited with status 0; the graph goes on without it"]
    supervisor.stop()
    assert supervisor.wait().status == 0


def test_a_node_that_ignores_signals_is_killed_after_the_grace_time() -> None:
    stubborn = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)];"
        "print('x', flush=True); time.sleep(60)"
    )
    read, write = os.pipe()
    supervisor = Supervisor(
        [Process("stubborn", [sys.executable, "-S", "-c", stubborn])], os.environ, grace_s=0.1, output=write
    )
    supervisor.start()
    assert os.read(read, 1) == b"x"
    pid = supervisor.pids["stubborn"]
    supervisor.shutdown()
    assert not alive(pid)
    os.close(read)
    os.close(write)


def ends_with_a_word(name: str, slow: bool = False) -> list[str]:
    """A process that says its name when it is up, again when it is told to end, and in capitals when it has ended."""
    code = (
        "import os, signal, time\n"
        "def end(*_):\n"
        f"    os.write(1, b'{name}')\n"
        f"    time.sleep({0.3 if slow else 0.0})\n"
        f"    os.write(1, b'{name.upper()}')\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"os.write(1, b'{name}')\n"
        "while True: signal.pause()\n"
    )
    return [sys.executable, "-S", "-c", code]


def words(processes: dict[str, bool], **options: float) -> str:
    """What such processes say while their graph is stopped; the value tells which takes long."""
    read, write = os.pipe()
    started = [Process(name, ends_with_a_word(name, slow)) for name, slow in processes.items()]
    supervisor = Supervisor(started, os.environ, output=write, **options)
    supervisor.start()
    up = ""
    while len(up) < len(processes):
        up += os.read(read, 1).decode()
    supervisor.shutdown()
    os.close(write)
    said = os.read(read, 100).decode()
    os.close(read)
    return said


def test_a_graph_is_stopped_one_by_one_in_reverse_order_so_that_the_driver_hears_its_controller_to_the_end() -> None:
    assert words({"d": False, "c": True, "m": True}) == "mMcCdD"


def test_a_node_that_takes_long_to_end_gets_its_share_of_the_grace_time_and_then_the_next_is_told() -> None:
    assert words({"d": False, "c": True}, grace_s=0.02) in ("cdDC", "cdCD")


def test_no_node_survives_a_supervisor_that_is_killed() -> None:
    code = (
        "import os, sys, time; from instructvla_ros.graph.supervisor import *;"
        f"s = Supervisor([Process('n', {SLEEPER!r})], os.environ); s.start();"
        "print(s.pids['n'], flush=True); s.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sigint_and_sigterm_end_the_graph_cleanly_even_when_started_in_the_background(number: int) -> None:
    code = (
        "import os, sys; from instructvla_ros.graph.supervisor import *;"
        f"s = Supervisor([Process('n', {SLEEPER!r})], os.environ); s.handle_signals(); s.start();"
        "print(s.pids['n'], flush=True); sys.exit(s.wait(0.02).status)"
    )
    # A shell starts background jobs with SIGINT ignored.
    ignoring = (
        "import signal, os, sys; signal.signal(2, signal.SIG_IGN);"
        f"os.execv(sys.executable, [sys.executable, '-c', {code!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(number)
    assert parent.wait(10) == 0
    parent.stdout.close()
    assert not alive(pid)


def test_a_program_that_does_not_exist_stops_what_was_started() -> None:
    supervisor = Supervisor([Process("a", SLEEPER), Process("b", ["/no/such/program"])], os.environ)
    with pytest.raises(FileNotFoundError):
        supervisor.start()
    assert wait_until(lambda: not alive(supervisor.pids["a"]))
