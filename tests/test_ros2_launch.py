"""The genuine `ros2 launch` brings the graph up and ends it cleanly. Runs only beside an installed ROS 2."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROS2 = shutil.which("ros2")
pytestmark = [
    pytest.mark.ros,
    pytest.mark.timeout(600),
    pytest.mark.skipif(ROS2 is None, reason="needs an installed ROS 2: the wheels have no ros2 launch"),
]
START_LIMIT_S = 200.0
END_LIMIT_S = 60.0  # ros2 launch itself kills what has not ended 10 s after Ctrl-C, and says so
NODES = 5  # simulation, reasoning, action expert, controller, lifecycle manager


class Launched:
    """`ros2 launch` in a session of its own, as a terminal would start it; use with `with`."""

    def __init__(self, log_path: Path, *words: str) -> None:
        self._log_path = log_path
        # Only ROS 2 and the workspace are sourced, not the environment: the nodes must find its Python themselves.
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        folders = [x for x in environment["PATH"].split(os.pathsep) if Path(x) != Path(sys.executable).parent]
        environment |= {"PATH": os.pathsep.join(folders), "ROS_LOG_DIR": str(log_path.parent)}
        environment |= {"PYTHONUNBUFFERED": "1", "RCUTILS_COLORIZED_OUTPUT": "0"}
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(ROS2), "launch", "instructvla", *words],
                env=environment,
                stdin=subprocess.DEVNULL,  # no terminal: ros2 launch passes the Ctrl-C on to the nodes
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # what is left of a failed test, nodes included
        except ProcessLookupError:
            return
        finally:
            self._process.wait()

    def log(self) -> str:
        """What ros2 launch and the nodes have printed."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raises when it has ended."""
        assert self._process.poll() is None, self.log()

    def started(self) -> set[int]:
        """Process ids of all nodes that were started, those that were started again included."""
        return {int(pid) for pid in re.findall(r"process started with pid \[(\d+)\]", self.log())}

    def ended_cleanly(self) -> set[int]:
        """Process ids of the nodes that ended with status 0."""
        return {int(pid) for pid in re.findall(r"process has finished cleanly \[pid (\d+)\]", self.log())}

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(END_LIMIT_S)


def random_checkpoint(folder: Path) -> Path:
    """A tiny checkpoint that asks for no skill; tests are no package, so its module is loaded by path."""
    spec = importlib.util.spec_from_file_location("random_checkpoint", Path(__file__).with_name("random_checkpoint.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(folder, "tiny")
    return folder


@pytest.fixture
def launched(tmp_path: Path, new_ros_domain: Callable[[], int]) -> Iterator[Launched]:
    """The simulated graph, just started, on a ROS domain of its own."""
    checkpoint = random_checkpoint(tmp_path / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
        with Launched(tmp_path / "launch.log", "sim.launch.py", f"checkpoint:={checkpoint}", "device:=cpu") as made:
            yield made


def test_ros2_launch_brings_the_graph_up_and_ctrl_c_ends_all_of_it(launched: Launched) -> None:
    from instructvla_ros.cli.bring_up import wait_until_active
    from instructvla_ros.cli.ros_client import RosClient

    with RosClient() as client:
        try:
            wait_until_active(client, launched.check, START_LIMIT_S)
        except TimeoutError as error:
            pytest.fail(f"{error}\n{launched.log()}")
    nodes = launched.started()
    assert len(nodes) == NODES, launched.log()
    interpreters = {Path(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])) for pid in nodes}
    assert {path.parent for path in interpreters} == {Path(sys.executable).parent}, interpreters

    assert launched.interrupt() == 0, launched.log()
    assert launched.started() == launched.ended_cleanly() == nodes, launched.log()
    assert not [pid for pid in nodes if Path(f"/proc/{pid}").exists()]
