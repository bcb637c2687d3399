"""A spare process that takes the place of a node that crashed. The nodes here are small programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import instructvla_ros_fakes as fakes  # registered by conftest.py
import pytest

from instructvla_ros.graph.spare import SETTLE_S, Order, Spare
from instructvla_ros.graph.supervisor import Process, Supervisor

pytestmark = pytest.mark.timeout(120)
LIMIT_S = 60.0
CRASH = [sys.executable, "-S", "-c", "import os; os.abort()"]
STAY = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
NODE = """
import json, os, signal, sys
assert "heavy" in sys.modules
def main():
    nices = sorted({os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")})
    said = {"argv": sys.argv, "pid": os.getpid(), "nice": nices, "input": sys.stdin.read()}
    with open(os.environ["SAYS"] + ".part", "w") as file:
        json.dump(said, file)
    os.replace(os.environ["SAYS"] + ".part", os.environ["SAYS"])
    signal.pause()
"""


class Place:
    """Where a spare finds the modules `heavy` and `small_node`, and where the latter writes what it was told."""

    def __init__(self, folder: Path) -> None:
        self.says, self.clock = folder / "says.json", fakes.FakeClock()
        (folder / "heavy.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(600,),"
                                         " daemon=True).start()\n")
        (folder / "small_node.py").write_text(NODE)
        paths = [str(folder), str(Path(__file__).parents[1])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "SAYS": str(self.says)}

    def order(self, nice: int = 0, preload: str = "heavy") -> Order:
        return Order("small_node", ("--ros-args", "-r", "__node:=small"), (preload,), nice)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def keep(place: Place) -> Iterator[Callable[..., Spare]]:
    """A spare that is due."""
    made: list[Spare] = []

    def start(*orders: Order) -> Spare:
        made.append(Spare(orders, place.environment, clock=place.clock))
        made[-1].plan()
        place.clock.advance(SETTLE_S)
        made[-1].look()
        return made[-1]

    yield start
    for spare in made:
        spare.end()


def until(condition: Callable[[], object]) -> bool:
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def test_a_spare_becomes_the_node_with_its_arguments_without_input_and_as_nice_as_that_node(
    place: Place, keep: Callable[..., Spare]
) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    spare = keep(place.order(5), place.order(2))
    assert until(lambda: spare.ready)
    assert os.getpriority(os.PRIO_PROCESS, spare.pid or 0) == min(own + 2, 19)
    node = spare.take(place.order(5))
    assert node is not None
    try:
        assert until(place.says.exists)
        said = json.loads(place.says.read_text())
        assert said["argv"][0].endswith("small_node.py") and tuple(said["argv"][1:]) == place.order().arguments
        assert (said["pid"], said["nice"], said["input"]) == (node.pid, [min(own + 5, 19)], "")
    finally:
        node.kill()
        node.wait()


def test_a_spare_imports_nothing_from_the_folder_in_which_the_graph_was_started(
    place: Place, keep: Callable[..., Spare], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "somebodys"
    folder.mkdir()
    (folder / "heavy.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(folder)
    spare = keep(place.order())
    assert until(lambda: spare.ready or spare.pid is None or gone(spare.pid)) and spare.ready


def test_a_spare_is_started_only_when_the_nodes_have_settled(place: Place) -> None:
    spare = Spare([place.order()], place.environment, clock=place.clock)
    spare.plan()
    place.clock.advance(SETTLE_S - 0.1)
    spare.look()
    assert spare.pid is None


def test_a_graph_without_model_nodes_has_no_spare(place: Place, keep: Callable[..., Spare]) -> None:
    assert keep().pid is None


def test_a_spare_that_is_not_ready_is_not_waited_for(place: Place, keep: Callable[..., Spare]) -> None:
    spare = keep(place.order(preload="small_node_that_does_not_exist"))
    assert spare.pid is not None
    assert spare.take(place.order()) is None


@pytest.mark.parametrize("prepared", [True, False])
def test_a_spare_that_died_is_no_spare_and_is_not_tried_again_and_again(
    place: Place, keep: Callable[..., Spare], prepared: bool
) -> None:
    spare = keep(place.order(preload="heavy" if prepared else "no_such_module"))
    pid = spare.pid or 0
    if prepared:
        assert until(lambda: spare.ready)
        os.kill(pid, signal.SIGKILL)
    # A zombie whose threads are still ending cannot be waited for yet.
    assert until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None)
    assert spare.take(place.order()) is None
    spare.look()
    assert spare.pid is None
    spare.look()
    assert spare.pid is None, "another one only when a node that has crashed has settled"
    place.clock.advance(SETTLE_S)
    spare.look()
    assert spare.pid is not None


def test_a_spare_ends_with_its_supervisor(place: Place, keep: Callable[..., Spare]) -> None:
    code = (
        "import os, sys, time; from instructvla_ros.graph.spare import *\n"
        "s = Spare([Order('small_node', (), ('heavy',))], os.environ, clock=lambda: time.monotonic() * 1e6)\n"
        "s.plan()\n"
        "while not s.ready: s.look()\n"
        "print(s.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place.environment
    )
    assert parent.stdout is not None and parent.stdin is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    assert until(lambda: gone(pid))


def test_f12_a_crashed_node_goes_on_in_the_spare_and_the_next_in_an_ordinary_process(place: Place) -> None:
    wanted = [Process("stays", STAY), Process("node", STAY, respawns=3, order=place.order())]
    supervisor = Supervisor(wanted, place.environment, clock=place.clock, spare=True)
    supervisor.start()
    try:
        place.clock.advance(SETTLE_S)
        assert supervisor.ended() is None
        spare = supervisor._spare
        assert until(lambda: spare.ready)
        pid, first = spare.pid, supervisor.pids["node"]
        os.kill(first, signal.SIGKILL)
        assert until(lambda: supervisor.ended() is None and supervisor.pids["node"] != first)
        assert supervisor.pids["node"] == pid and until(place.says.exists)
        os.kill(supervisor.pids["node"], signal.SIGKILL)
        assert until(lambda: supervisor.ended() is None and supervisor.pids["node"] != pid)
        assert spare.pid is None
    finally:
        supervisor.shutdown()
    assert all(gone(number) for number in supervisor.pids.values())


def test_a_graph_that_is_stopped_leaves_no_spare(place: Place) -> None:
    supervisor = Supervisor(
        [Process("node", STAY, order=place.order())], place.environment, clock=place.clock, spare=True
    )
    supervisor.start()
    place.clock.advance(SETTLE_S)
    assert supervisor.ended() is None
    pid = supervisor._spare.pid or 0
    supervisor.shutdown()
    assert gone(pid)


def test_without_being_asked_to_a_supervisor_keeps_no_spare(place: Place) -> None:
    supervisor = Supervisor([Process("node", STAY, order=place.order())], place.environment, clock=place.clock)
    supervisor.start()
    place.clock.advance(SETTLE_S)
    assert supervisor.ended() is None and supervisor._spare.pid is None
    supervisor.shutdown()
