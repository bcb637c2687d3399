"""What the demonstration does around its graph: results of one run only, honest ends, Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instructvla_ros.cli import demo_results as results
from instructvla_ros.cli.interrupts import Interrupts, Stopped
from instructvla_ros.policy.task_status import TaskStatus

pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from instructvla_ros.bags.writer import CLOSED, WriterState
from instructvla_ros.cli import demo, demo_session, ros_client
from instructvla_ros.cli import main as cli_main
from instructvla_ros.cli.demo_session import DemoSession, Outcome
from instructvla_ros.graph.supervisor import Ending

FATAL = "[FATAL] [1753.25] [instructvla]: cannot start: seed is -4\n"
DIED = """[INFO] [1753.10] [sim_node]: scene 5
[FATAL] [1753.20] [sim_node]: Traceback (most recent call last):
  File "world.py", line 3, in step
ValueError: the arm is gone

[INFO] [1753.30] [reasoning_node]: active
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("[ERROR] [1.0] [a]: bad\n", ""),
        (FATAL, "instructvla: cannot start: seed is -4"),
        (DIED, "sim_node: ValueError: the arm is gone"),
        (FATAL + DIED, "sim_node: ValueError: the arm is gone"),
        (DIED + "x" * 200_000 + "\n" + FATAL, "instructvla: cannot start: seed is -4"),
    ],
)
def test_the_last_fatal_line_of_the_nodes_is_found(log: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "nodes.log").write_text(log)
    assert results.last_fatal(tmp_path / "nodes.log") == said


def test_an_incomplete_bag_is_told_and_a_complete_one_is_not() -> None:
    assert results.bag_problem(WriterState(9, 9, 0, False, CLOSED), 0) == ""
    assert "3 messages were not written, DDS lost 2" in results.bag_problem(WriterState(9, 9, 3, False, CLOSED), 2)
    assert results.bag_problem(WriterState(9, 9, 0, False, "disk full"), 0) == "disk full"


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    made = Interrupts(lambda: None)
    yield made
    made.close()


def test_ctrl_c_is_noted_and_told_at_the_next_check(interrupts: Interrupts) -> None:
    interrupts.check()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped, match=r"stopped by Ctrl-C") as stopped:
        interrupts.check()
    assert stopped.value.status == 130


def test_ctrl_c_cuts_off_what_may_be_cut_off_once(interrupts: Interrupts) -> None:
    with pytest.raises(Stopped, match="SIGTERM") as stopped, interrupts.at_once():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.status == 143
    signal.raise_signal(signal.SIGINT)  # while the graph comes down: noted only


def test_a_pipe_that_broke_by_ctrl_c_is_no_error_of_its_own(interrupts: Interrupts) -> None:
    with pytest.raises(Stopped), interrupts.at_once():
        interrupts._number = signal.SIGINT
        raise BrokenPipeError
    interrupts._number = 0
    with pytest.raises(BrokenPipeError), interrupts.at_once():
        raise BrokenPipeError


def test_the_handlers_from_before_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    Interrupts(lambda: None).close()
    assert signal.getsignal(signal.SIGINT) is before


def earlier_run(folder: Path) -> list[Path]:
    (folder / "bag").mkdir(parents=True)
    files = [folder / name for name in ("demo.mp4", "contact_sheet.png", "outcome.json", "bag/metadata.yaml")]
    for file in files:
        file.write_text("earlier")
    return files


@pytest.mark.parametrize(
    "words", [["robotname:=x"], ["seed:=-4"], ["--instruction", ""], ["follow_instructions:=perhaps"]]
)
def test_arguments_that_are_refused_leave_the_last_results(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = earlier_run(tmp_path)
    assert cli_main.main(["demo", "--output", str(tmp_path), *words]) == 1
    said = capsys.readouterr().err
    assert all(file.exists() for file in files) and ("expected" in said or "known are" in said or "is empty" in said)


class Graph:
    """Stands in for the supervisor."""

    ending: Ending | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def ended(self) -> Ending | None:
        return self.ending


class Session:
    """Stands in for DemoSession: the task is done at once, and nothing was seen."""

    wait: Any = staticmethod(lambda check: None)

    def __init__(self, client: Any, folder: Path, values: Any, check: Any, write: Any) -> None:
        self.check, self.said_at_s, self.timeline, self.cameras = check, 0.0, None, ("/a", "/b")
        self.frames: dict[str, list[Any]] = {"/a": [], "/b": []}
        state = WriterState(7, 70, 2, False, CLOSED)
        self.recorder = SimpleNamespace(close=lambda: state, lost=1)

    def wait_until_active(self, limit_s: float) -> None:
        self.wait(self.check)
        self.check()

    def say(self, instruction: str, think: bool) -> None: ...
    def wait_for_outcome(self, limit_s: float) -> Outcome:
        return Outcome(TaskStatus(True, {"success": True, "target": "can"}), "grasp", 3.0)


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Graph:
    made = Graph()
    monkeypatch.setattr(demo, "make_supervisor", lambda *_, **__: made)
    monkeypatch.setattr(demo, "refuse_second", lambda *_: None)
    monkeypatch.setattr(demo_session, "DemoSession", Session)
    monkeypatch.setattr(ros_client, "RosClient", lambda _: nullcontext())
    return made


def test_a_run_replaces_the_last_results_and_tells_of_an_incomplete_bag(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = earlier_run(tmp_path)
    assert cli_main.main(["demo", "--output", str(tmp_path), "seed:=4"]) == 0
    assert [file.name for file in files if file.exists()] == ["outcome.json"]
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["seed"] == 4 and outcome["success"] and outcome["bag"]["dropped"] == 2
    said = capsys.readouterr().out
    assert "BAG NOT COMPLETE: 2 messages were not written, DDS lost 1" in said and "no film" in said


def test_the_outcome_is_written_before_the_film_and_ctrl_c_cuts_the_film_off(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def film(folder: Path, *_: Any) -> int:
        assert (folder / "outcome.json").exists() and graph.calls == ["start", "shutdown"]
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the film went on")

    monkeypatch.setattr(results, "write_pictures", film)
    assert cli_main.main(["demo", "--output", str(tmp_path)]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err and (tmp_path / "outcome.json").exists()


def test_ctrl_c_before_the_outcome_is_no_failure_of_the_graph(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "wait", staticmethod(lambda check: signal.raise_signal(signal.SIGINT)))
    assert cli_main.main(["demo", "--output", str(tmp_path)]) == 130
    said = capsys.readouterr().err
    assert "stopped by Ctrl-C" in said and "the graph ended" not in said and graph.calls[-1] == "shutdown"


def test_a_node_that_ends_is_quoted(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.ending = Ending(2, "sim_node exited with status 2")
    monkeypatch.setattr(Session, "wait", staticmethod(lambda check: (tmp_path / "nodes.log").write_text(FATAL)))
    assert cli_main.main(["demo", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "sim_node exited with status 2" in said and "instructvla: cannot start: seed is -4" in said


def test_a_recording_that_ended_ends_the_wait() -> None:
    session = DemoSession.__new__(DemoSession)
    session._check_graph = lambda: None
    state = SimpleNamespace(ended="")
    session.recorder = SimpleNamespace(writer=SimpleNamespace(state=state))  # type: ignore[assignment]
    session._check()
    state.ended = "only 3 MB are free (F25)"
    with pytest.raises(OSError, match="the recording ended: only 3 MB are free"):
        session._check()
