"""Wrong values on the command line end in one line that says what was found and what was expected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from std_srvs.srv import Trigger

from instructvla_msgs.srv import SetInstruction
from instructvla_ros.cli import main as cli_main
from instructvla_ros.cli import ros_client, status
from instructvla_ros.cli.view import LiveView
from instructvla_ros.cli.watch import make_table


@pytest.mark.parametrize("command", ["demo", "scene"])
@pytest.mark.parametrize("number", ["-4", "99999999999", "2147483648", "1.5", "two", "²"])
def test_a_seed_out_of_range_is_refused_before_anything_starts(
    command: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli_main.main([command, "--seed", number])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and repr(number) in said and "whole number from 0 to 2147483647" in said


def test_the_largest_seed_is_possible() -> None:
    assert cli_main.parser().parse_args(["scene", "--seed", "2147483647"]).seed == 2**31 - 1


@pytest.mark.parametrize("words", [["demo", "--time-limit"], ["demo", "--start-limit"], ["say", "go", "--timeout"]])
@pytest.mark.parametrize("limit", ["0", "-1", "inf", "nan", "soon"])
def test_a_time_limit_must_be_positive_and_finite(
    words: list[str], limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli_main.main([*words, limit])
    assert ended.value.code == 2 and "more than 0 and finite" in capsys.readouterr().err


@pytest.mark.ros
def test_a_name_that_is_no_topic_is_a_line_and_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main(["watch", "--robot-name", "bad name", "--seconds", "0.1"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("instructvla: ") and "/bad name/commands" in said and "expected letters, digits" in said


@pytest.mark.parametrize("domain", ["abc", "233", "-1"])
def test_a_domain_that_is_none_is_a_line_and_not_a_traceback(
    domain: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert cli_main.main(["status"]) == 1
    assert f"ROS_DOMAIN_ID is '{domain}'; expected a whole number from 0 to 232" in capsys.readouterr().err


def test_another_refusal_of_ros_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rclpy.impl.implementation_singleton import rclpy_implementation

    def fail(_: Any) -> int:
        raise rclpy_implementation.RCLError("failed to create node:\n  out of memory")

    monkeypatch.setattr(status, "run", fail)
    assert cli_main.main(["status"]) == 1
    assert "ROS 2 could not start: failed to create node: out of memory" in capsys.readouterr().err


def test_an_error_of_the_program_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> int:
        raise KeyError("a mistake")

    monkeypatch.setattr(status, "run", fail)
    with pytest.raises(KeyError, match="a mistake"):
        cli_main.main(["status"])


class Graph:
    """Stands in for RosClient; answers by the service's name."""

    answers: ClassVar[dict[str, Any]] = {}

    def __init__(self, namespace: str) -> None: ...
    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None: ...
    def subscribe(self, *_: Any) -> None: ...
    def call(self, kind: Any, service: str, request: Any) -> Any:
        return self.answers[service]


def test_scene_says_which_step_failed_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ros_client, "RosClient", Graph)
    good = Trigger.Response(success=True, message="scene 5")
    refused = Trigger.Response(success=False, message="F03 no joint states")
    monkeypatch.setattr(Graph, "answers", {"stop": good, "sim/reset": good, "reset": refused})
    assert cli_main.main(["scene"]) == 1
    said = capsys.readouterr()
    assert said.out == "scene 5\n" and "releasing the arm failed: F03 no joint states" in said.err


def test_say_points_to_the_status_when_no_reasoning_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ros_client, "RosClient", Graph)
    accepted = SetInstruction.Response(accepted=True, instruction_id=1, message="accepted")
    monkeypatch.setattr(Graph, "answers", {"set_instruction": accepted})
    assert cli_main.main(["say", "--follow", "--timeout", "0.01", "pick up the can"]) == 1
    assert "within 0.01 s; see: instructvla status" in capsys.readouterr().out


def test_watch_shows_brackets_as_they_were_said() -> None:
    from rich.console import Console

    view = LiveView()
    view.on_reasoning(SimpleNamespace(
        instruction_id=1, instruction="pick [red] up [/x]", text="[bold]", final=True, tokens_per_second=0.0
    ))  # fmt: skip
    console = Console(width=120)
    with console.capture() as shown:
        console.print(make_table(view.rows(0.0)))
    assert "pick [red] up [/x]" in shown.get() and "[bold]" in shown.get()


def test_watch_says_why_there_are_no_joint_goals() -> None:
    view = LiveView()
    assert dict(view.rows(0.0))["joint goals"] == "0.0 Hz"
    view.unheard_goals = "/wx250s/commands/joint_group"
    said = dict(view.rows(0.0))["joint goals"]
    assert "nobody publishes /wx250s/commands/joint_group" in said and "--robot-name" in said
