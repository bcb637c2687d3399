"""The command line's parts that need no graph, and what a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instructvla_ros.cli.streaming import TextStream
from instructvla_ros.graph.description import ArgumentError
from instructvla_ros.nodes.stats import LatencyStats, RateMeter
from instructvla_ros.policy.task_status import TaskWatch, parse_task_status


class Listener:
    def __init__(self) -> None:
        self.printed, self.complete = "", 0
        self.stream = TextStream(self.write, self.done)

    def write(self, piece: str) -> None:
        self.printed += piece

    def done(self) -> None:
        self.complete += 1

    def hear(self, text: str, *, instruction_id: int = 1, seq: int = 1, final: bool = False) -> None:
        self.stream.on_message(SimpleNamespace(instruction_id=instruction_id, seq=seq, text=text, final=final))


def test_growing_texts_are_printed_as_a_stream() -> None:
    listener = Listener()
    listener.stream.follow(1)
    for text, final in (("", False), ("move", False), ("move to", False), ("move to the carrot", True)):
        listener.hear(text, final=final)
    assert listener.printed == "move to the carrot"
    assert listener.complete == 1


def test_messages_heard_before_the_service_answered_are_not_lost_and_others_are_left_out() -> None:
    listener = Listener()
    listener.hear("old", instruction_id=1)
    listener.hear("new", instruction_id=2, final=True)
    assert listener.printed == ""
    listener.stream.follow(2)
    assert listener.printed == "new" and listener.complete == 1


def test_a_later_reasoning_starts_a_new_line_and_the_first_text_is_kept() -> None:
    listener = Listener()
    listener.stream.follow(1)
    listener.hear("grasp", final=True)
    listener.hear("lift", seq=2)
    listener.stream.mute()
    listener.hear("lift it", seq=2, final=True)
    assert listener.printed == "grasp\nlift"
    assert (listener.stream.first_text, listener.stream.text) == ("grasp", "lift it")


def test_a_thought_that_comes_again_is_not_printed_again() -> None:
    listener = Listener()
    listener.stream.follow(1)
    listener.hear("lift it", final=True)
    listener.hear("lift", seq=2)
    listener.hear("lift it", seq=2, final=True)
    assert listener.printed == "lift it"
    listener.hear("lift", seq=3)
    listener.hear("lift the can", seq=3)
    listener.hear("lift", seq=4, final=True)
    assert listener.printed == "lift it\nlift the can\nlift"
    assert listener.complete == 3


def test_the_task_status_is_read_and_described() -> None:
    status = parse_task_status('{"success": true, "target": "carrot", "place": null}')
    assert status.success and status.describe() == "target carrot"


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '{"success": 1}', '{"done": true}'])
def test_an_unreadable_task_status_is_refused_and_leaves_the_last_verdict(text: str) -> None:
    with pytest.raises(ValueError, match="task status"):
        parse_task_status(text)
    watch = TaskWatch()
    watch.on_message('{"success": true}')
    watch.on_message(text)
    assert watch.status.success and watch.unreadable == 1


def test_rates_fall_when_events_stop_and_show_the_longest_gap() -> None:
    meter = RateMeter()
    for k in range(11):
        meter.note(0.1 * k)
    assert meter.rate_hz(1.0) == pytest.approx(10.0)
    assert meter.rate_hz(3.0) < 4.0
    meter.note(1.5)
    assert meter.longest_gap_s() == pytest.approx(0.5)
    assert RateMeter().rate_hz(1.0) == 0.0


def test_latencies_leave_out_the_warm_up() -> None:
    stats = LatencyStats(warm_up=1)
    assert stats.summary() == "none yet"
    for value in (9.0, 0.010, 0.020, 0.030):
        stats.note(value)
    assert stats.summary() == "p50 20.0 ms, p95 29.0 ms, max 30.0 ms"


# What follows needs the interfaces.

pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")


from instructvla_msgs.msg import LatentAction, Reasoning, SafetyState  # noqa: E402
from instructvla_ros.cli import arguments as command_line  # noqa: E402
from instructvla_ros.cli import main as cli_main  # noqa: E402
from instructvla_ros.cli import up  # noqa: E402
from instructvla_ros.cli.view import LiveView  # noqa: E402
from instructvla_ros.graph.widowx import WIDOWX  # noqa: E402


def parsed(monkeypatch: pytest.MonkeyPatch, *argv: str) -> Any:
    """What the sub-command would be run with."""
    seen: list[Any] = []
    monkeypatch.setattr(up, "run", lambda arguments: seen.append(arguments) or 0)
    assert cli_main.main(argv) == 0
    return seen[0]


def test_graph_arguments_may_stand_on_both_sides_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = parsed(monkeypatch, "up", "widowx", "seed:=3", "--sim", "device:=cpu")
    assert arguments.sim
    assert up.parse_assignments(arguments.arguments) == {"seed": "3", "device": "cpu"}


def test_unknown_options_and_malformed_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli_main.main(["up", "widowx", "--simulate"])
    with pytest.raises(SystemExit):
        cli_main.main(["status", "seed:=3"])
    assert "unrecognized arguments" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="name:=value"):
        up.parse_assignments(["seed=3"])


@pytest.mark.parametrize(
    "words",
    [
        ["--namespace", "/left", "up", "widowx"],
        ["up", "widowx", "--namespace", "left"],
        ["up", "widowx", "namespace:=/left", "--sim"],
        ["up", "namespace:=left", "widowx", "--namespace", "/left"],
    ],
)
def test_the_namespace_may_be_given_as_option_or_as_argument_anywhere(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    arguments = parsed(monkeypatch, *words)
    assert arguments.namespace == "/left" and arguments.arguments == []


def test_without_a_namespace_it_is_the_projects() -> None:
    assert command_line.parse(cli_main.parser(), ["say", "go"]).namespace == "/instructvla"
    assert command_line.parse(cli_main.parser(), ["stop", "namespace:=two/arms"]).namespace == "/two/arms"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["say", "go", "--namespace", "/left", "namespace:=/right"], "/left and /right; give one"),
        (["status", "--namespace", "left arm"], "expected letters, digits and _"),
        (["status", "namespace:="], "expected letters, digits and _"),
    ],
)
def test_two_namespaces_or_one_that_is_no_name_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli_main.main(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_without_a_command_the_help_names_each_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main([]) == 2
    said = capsys.readouterr().out
    assert "give the robot an instruction" in said and "hold the arm where it is, until reset" in said


def test_an_unknown_graph_argument_is_a_message_and_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main(["up", "widowx", "robotname:=x"]) == 1
    assert "unknown argument 'robotname'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "x" * 600, "a\nb"])
def test_f20_say_refuses_bad_instructions_before_it_asks_anybody(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main(["say", text]) == 1
    assert "instruction" in capsys.readouterr().err


def test_the_supervisor_gets_the_graph_with_the_shipped_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("INSTRUCTVLA_CHECKPOINTS", str(tmp_path))
    supervisor = up.make_supervisor(WIDOWX, {"checkpoint": "mine"}, "/two")
    texts = [" ".join(process.argv) for process in supervisor._wanted]
    assert len(texts) == 4 and all("__ns:=/two" in text for text in texts)
    assert sum(f"checkpoint:='{tmp_path}/mine'" in text for text in texts) == 2


def test_the_live_view_shows_text_rates_age_and_the_reason_for_a_hold() -> None:
    view = LiveView()
    view.on_reasoning(Reasoning(instruction_id=2, instruction="pick up the can", text="grasp", tokens_per_second=9.0))
    for k in range(5):
        view.on_latent(LatentAction(gate_mean=[0.25, 0.75]), 100.0 + 0.5 * k, 99.9 + 0.5 * k)
    view.on_safety(SafetyState(mode=SafetyState.MODE_HOLDING, fault_id="F01", reason="camera image is old"))
    rows = dict(view.rows(102.0))
    assert rows["instruction"] == "2: pick up the can" and rows["reasoning"] == "grasp…"
    assert rows["latent age"] == "0.10 s" and rows["latents"] == "2.0 Hz" and rows["gates"] == "0.25, 0.75"
    assert rows["arm"] == "holding  F01 camera image is old"


def test_data_commands_reach_the_training_package_with_all_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from instructvla_ros.cli.main import main

    heard: list[list[str]] = []
    training = SimpleNamespace(main=lambda words: heard.append(words) or 1)
    monkeypatch.setattr("importlib.import_module", lambda name: training)
    assert main(["data", "lint", "folder", "--dt", "0.2"]) == 1
    assert heard == [["data", "lint", "folder", "--dt", "0.2"]]


def test_data_commands_without_the_training_package_say_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from instructvla_ros.cli.main import main

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["data", "lint", "folder"]) == 1
    assert "pip install -e training" in capsys.readouterr().err
