"""A replay that took an hour is not thrown away: what is wrong is said before it begins, or beside what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instructvla_ros_bag_factory import PRIMARY, Message, recording, write
from instructvla_ros_fakes import FakeRuntime

from instructvla_ros.bags import evaluate as evaluation
from instructvla_ros.bags.comparison import compare
from instructvla_ros.bags.evaluate import evaluate, unique_names
from instructvla_ros.bags.replay import ReplayOptions
from instructvla_ros.bags.report import figures, pdf
from instructvla_ros.bags.score import METRICS, ChunkScores, merged
from instructvla_ros.bags.types import BagError
from instructvla_ros.cli.main import main


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return recording(2.0, compressed=True, wrist=False)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures cost most of a report's time; tests of other things do without."""
    monkeypatch.setattr(figures, "save", lambda figure, kind: b"<svg/>")
    monkeypatch.setattr(pdf, "render", lambda *_: b"%PDF")


@pytest.fixture
def untouched(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line whose replay must not begin."""

    def begun(*_: Any) -> None:
        raise AssertionError("the replay has begun")

    monkeypatch.setattr(evaluation, "load_checkpoints", lambda given, device: {"one": FakeRuntime()})
    monkeypatch.setattr(evaluation, "replay", begun)


def figures_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "figures").glob("*.png"))


def test_bags_of_the_same_name_and_the_same_bag_twice_stay_apart(undrawn: None, tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "bag", recording(1.5, compressed=True, wrist=False))
    other = write(tmp_path / "b" / "bag", recording(3.0, compressed=True, wrist=False))
    made = evaluate([one, other, one], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out")
    names = ["a/bag", "b/bag", "a/bag (2)"]
    assert [bag["name"] for bag in made.report["bags"]] == names
    spans = [(row["bag"], round(row["duration_s"], 1)) for row in made.report["episodes"]]
    assert spans == [("a/bag", 1.4), ("b/bag", 2.9), ("a/bag (2)", 1.4)]
    assert {"episode_a_bag_0", "episode_b_bag_0", "episode_a_bag (2)_0"} <= set(figures_of(made.folder))
    assert all(row["time_s"] < dict(spans)[row["bag"]] + 0.1 for row in made.report["worst"])
    assert unique_names([Path("/x/run"), Path("/y/run"), Path("/y/other")]) == ["x/run", "y/run", "other"]


def test_a_bag_without_a_single_chunk_spoils_no_other(undrawn: None, messages: list[Message], tmp_path: Path) -> None:
    numb = write(tmp_path / "numb", [m for m in messages if "joint" not in m.topic])
    good = write(tmp_path / "good", messages)
    for order in ([numb, good], [good, numb]):
        made = evaluate(order, {"c": FakeRuntime()}, ReplayOptions(), tmp_path / f"out_{order[0].name}")
        assert made.report["summary"]["c"]["translation_error_mm"]["n"] > 5 and len(made.report["bags"]) == 2


def test_a_bag_of_which_nothing_can_be_read_is_named_beside_the_report_of_the_others(
    undrawn: None, messages: list[Message], tmp_path: Path
) -> None:
    good, empty = write(tmp_path / "good", messages), tmp_path / "empty"
    empty.mkdir()
    made = evaluate([good, empty, tmp_path / "gone"], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out")
    assert [bag["name"] for bag in made.report["bags"]] == ["good"]
    reasons = {bag["name"]: bag["reason"] for bag in made.report["unreadable"]}
    assert "holds no .mcap" in reasons["empty"] and "does not exist" in reasons["gone"]
    assert "gone is not in this report" in (made.folder / "index.html").read_text(encoding="utf-8")
    with pytest.raises(BagError, match=r"holds no \.mcap"):
        evaluate([empty, tmp_path / "gone"], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_report_is_there_also_where_the_gate_cannot_compare(
    undrawn: None, messages: list[Message], tmp_path: Path
) -> None:
    bag = write(tmp_path / "run", messages)
    base = evaluate([bag], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "base").folder / "report.json"
    other = write(tmp_path / "other", recording(1.0, compressed=True, wrist=False))
    with pytest.raises(ValueError, match="other bags"):
        evaluate([other], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out", baseline=base)
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["checkpoints"][0]["chunks"] > 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (ReplayOptions(seed=2), "made with seed 0"),
        (ReplayOptions(instruction="pick up the can"), "made with instruction ''"),
        (ReplayOptions(think=False), "made with think None"),
        (ReplayOptions(topics={"primary": f"{PRIMARY}/compressed"}), "made with topics {}"),
        (ReplayOptions(parameters={"action_expert_node": {"rate_hz": 5}}), "made with parameters {}"),
    ],
)
def test_a_baseline_of_other_options_is_refused_before_the_replay(
    undrawn: None, options: ReplayOptions, told: str, messages: list[Message], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bag = write(tmp_path / "run", messages)
    made = evaluate([bag], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "base")
    assert made.report["options"] == {
        "instruction": "", "think": None, "actions": "auto", "topics": {}, "parameters": {}
    }  # fmt: skip
    monkeypatch.setattr(evaluation, "replay", None)
    with pytest.raises(ValueError, match=told):
        evaluate([bag], {"c": FakeRuntime()}, options, tmp_path / "out", baseline=made.folder / "report.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("seed"),
        lambda r: r.pop("bags"),
        lambda r: r["bags"][0].pop("actions"),
        lambda r: r.update(summary={}),
        lambda r: r.update(summary={"c": []}),
        lambda r: r["summary"]["c"]["seam_jump_mm"].pop("unit"),
        lambda r: r["summary"]["c"]["seam_jump_mm"].update(mean="much"),
    ],
)
def test_a_baseline_that_is_not_complete_is_refused_before_the_replay(
    untouched: None, spoil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = {"unit": "mm", "higher_is_better": False, "mean": 1.0}
    report = {
        "schema": "instructvla.replay/1", "seed": 0, "bags": [{"fingerprint": "f", "actions": "steps"}],
        "summary": {"c": {"seam_jump_mm": cell}},
    }  # fmt: skip
    spoil(report)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    assert main(["replay", "nowhere", "--baseline", str(file)]) == 1
    assert "make the baseline anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "reasoning_node.latent_period_s:=abc"], "'abc'; expected a number from 0.02 to 10"),
        (["--set", "reasoning_node.latent_period_s:=-1"], "is -1.0; expected a number from 0.02"),
        (["--set", "reasoning_node.latent_period_s:=0"], "is 0.0; expected a number from 0.02"),
        (["--set", "reasoning_node.latent_period_s:=[1]"], "is [1]; expected a number"),
        (["--set", "reasoning_node.latent_period_s:=[1"], "no value that YAML knows"),
        (["--set", "reasoning_node.latent_period_s:=.nan"], "is nan; expected a number"),
        (["--set", "reasoning_node.max_new_tokens:=2.5"], "is 2.5; expected a whole number from 1 to 512"),
        (["--set", "reasoning_node.mode:=dream"], "'dream'; expected one of auto, think, motion, off"),
        (["--set", "reasoning_node.periodd:=1"], "has no parameter periodd"),
        (["--set", "action_expert_node.seed:=1"], "say --seed"),
        (["--seed", "-1"], "seed -1; expected a number from 0"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_the_replay(
    untouched: None, arguments: list[str], told: str, messages: list[Message], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["replay", str(write(tmp_path / "run", messages)), *arguments]) == 1
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_seven_checkpoints_have_a_colour_each_time(
    undrawn: None, messages: list[Message], tmp_path: Path
) -> None:
    runtimes = {f"c{n}": FakeRuntime(chunk_value=0.01 * n) for n in range(7)}
    made = evaluate([write(tmp_path / "run", messages)], runtimes, ReplayOptions(), tmp_path / "out")
    assert "c6" in (made.folder / "index.html").read_text(encoding="utf-8")


def test_pictures_of_an_older_report_do_not_stay(undrawn: None, messages: list[Message], tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, messages) for name in ("first", "second"))
    evaluate([first], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out")
    (tmp_path / "out" / "figures" / "mine.png").write_bytes(b"kept")
    made = evaluate([second], {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out")
    assert not any("first" in name for name in figures_of(made.folder)) and "mine" in figures_of(made.folder)


def test_the_worst_moments_are_ranked_over_all_bags(undrawn: None, tmp_path: Path) -> None:
    bags = [write(tmp_path / name, recording(8.0, compressed=True, wrist=False)) for name in ("a", "b")]
    worst = evaluate(bags, {"c": FakeRuntime()}, ReplayOptions(), tmp_path / "out").report["worst"]
    errors = [row["path_error_mm"] for row in worst]
    assert len(worst) == 6 and errors == sorted(errors, reverse=True) and {row["bag"] for row in worst} == {"a", "b"}


def test_chunks_of_a_bag_are_paired_also_where_one_policy_made_none_in_its_last_episode() -> None:
    def scores(episodes: list[int], times: list[float]) -> ChunkScores:
        steps = np.zeros((len(episodes), 8, 7))
        values = {name: np.ones(len(episodes)) for name in METRICS}
        return ChunkScores(np.array(episodes), np.array(times), 0.2, steps, steps, values, {})

    a = merged([scores([0, 0, 1], [1, 2, 3]), scores([0, 0], [11, 12])], [2, 1])
    b = merged([scores([0, 0], [1, 2]), scores([0, 0], [11, 12])], [2, 1])
    assert compare(a, b)[0].n == 4


def test_switches_of_the_gripper_that_are_missed_are_shown_to_people(
    undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "load_checkpoints", lambda given, device: {"one": FakeRuntime()})
    bag = write(tmp_path / "run", recording(5.0, compressed=True, wrist=False))
    assert main(["replay", str(bag), "--output", str(tmp_path / "out")]) == 0
    assert "switches missed, spurious                     1, 0" in capsys.readouterr().out
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Gripper switches missed, spurious</td><td class=\"n\">1, 0</td>" in page
