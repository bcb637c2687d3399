"""The report: complete, self-contained, the same bytes for the same replay, and the gate's exit status."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from instructvla_ros_bag_factory import Factory, Message, recording, write
from instructvla_ros_fakes import FakeRuntime

from instructvla_ros.bags import evaluate as evaluation
from instructvla_ros.bags.comparison import Regression
from instructvla_ros.bags.evaluate import Evaluation, evaluate
from instructvla_ros.bags.replay import ReplayOptions
from instructvla_ros.bags.report import figures, pdf
from instructvla_ros.bags.report.page import interval, short, words
from instructvla_ros.cli.main import main


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return recording(2.0, compressed=True)


@pytest.fixture(scope="module")
def made(messages: list[Message], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("report")
    bag = write(folder / "run", messages)
    runtimes = {"first": FakeRuntime(), "second": FakeRuntime(chunk_value=0.02)}
    return evaluate([bag], runtimes, ReplayOptions(seed=4), folder / "out")


class Page(HTMLParser):
    """What a page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself_and_is_well_formed(made: Evaluation) -> None:
    page = Page((made.folder / "index.html").read_text(encoding="utf-8"))
    assert page.open == [] and len(page.sources) > 8
    assert all(source.startswith("data:image/") for source in page.sources), "an image or link from elsewhere"
    raw = (made.folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in raw and 'name="viewport"' in raw and "url(" not in raw
    for text in (
        "put the carrot on the plate", "move to the carrot", "Worst moments", "second against first",
        "–\nundecided", "none below 50 chunks",
    ):  # fmt: skip
        assert text in page.text


def test_the_folder_holds_page_json_table_and_pictures(made: Evaluation) -> None:
    names = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()}
    assert {"index.html", "report.pdf", "report.json", "chunks.csv", "figures/along_the_chunk.png"} <= names
    assert {"figures/histograms.png", "figures/episode_run_0.png"} <= names
    assert any(name.startswith("figures/worst_run_") for name in names)
    rows = (made.folder / "chunks.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + sum(c["chunks"] for c in made.report["checkpoints"])


def test_the_pdf_has_a_page_for_the_numbers_for_each_episode_and_for_the_worst_moments(made: Evaluation) -> None:
    data = (made.folder / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and re.findall(rb"/Count (\d+)", data) == [b"3"]


def test_the_pdf_says_what_the_page_says_of_gate_instructions_marks_and_what_is_not_shown(
    made: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    text, table = pdf._Pages.text, pdf._Pages.table

    def heard(pages: Any, words: str, *rest: Any, **more: Any) -> None:
        said.append(words)
        text(pages, words, *rest, **more)

    def seen(pages: Any, rows: Any) -> None:
        said.extend(" | ".join(row) for row in rows)
        table(pages, rows)

    monkeypatch.setattr(pdf._Pages, "text", heard)
    monkeypatch.setattr(pdf._Pages, "table", seen)
    report = json.loads(json.dumps(made.report)) | {"worst": []}
    (episode,) = report["episodes"]
    report["episodes"] = [episode | {"success": False}, *[episode | {"instruction": "another"}] * 3]
    rows = [Regression("path_error_mm", 1.0, 2.0, 1.0, True)]
    picture = cv2.imencode(".png", np.zeros((4, 8, 3), np.uint8))[1].tobytes()
    drawn = {"along_the_chunk": picture, "histograms": picture}
    pdf.render("title", report, drawn, [[], []], [], rows, 0.05)
    everything = "\n".join(said)
    for words_there in (
        "Worse than the baseline (limit 5 %)", "Path error | 1.00 | 2.00 | +100.0 % WORSE", "By instruction",
        "put the carrot on the plate | ", "marked a failure", "2 further episodes are in report.json",
        "Gripper switches missed, spurious | 0, 0", "95 % interval", " | – | undecided",
    ):  # fmt: skip
        assert words_there in everything, words_there


def test_the_json_says_what_was_compared_with_what(made: Evaluation) -> None:
    report = json.loads((made.folder / "report.json").read_text(encoding="utf-8"))
    assert report == made.report and report["schema"] == "instructvla.replay/1" and report["seed"] == 4
    assert report["bags"][0]["actions"] == "states" and report["bags"][0]["problems"] == []
    assert [c["name"] for c in report["checkpoints"]] == ["first", "second"]
    assert (
        report["summary"]["second"]["translation_error_mm"]["mean"]
        > (report["summary"]["first"]["translation_error_mm"]["mean"])
    )
    row = next(r for r in report["comparison"]["metrics"] if r["metric"] == "translation_error_mm")
    assert 0 < row["n"] < 50 and row["difference"] > 0.0, "too few chunks for an interval"
    assert row["low"] is None and row["high"] is None and row["better"] == ""
    assert report["episodes"][0]["checkpoints"]["first"]["texts"][0]["text"] == "move to the carrot"
    assert report["instructions"]["first"][0]["instruction"] == "put the carrot on the plate"
    assert len(report["by_step"]["first"]["path_error_mm"]) == 8


def test_the_same_bag_and_seed_give_the_same_files_byte_for_byte(
    made: Evaluation, messages: list[Message], tmp_path: Path
) -> None:
    bag = write(tmp_path / "run", messages, storage="sqlite3", compression="file")
    runtimes = {"first": FakeRuntime(), "second": FakeRuntime(chunk_value=0.02)}
    again = evaluate([bag], runtimes, ReplayOptions(seed=4), tmp_path / "out")
    for name in ("report.json", "chunks.csv", "index.html", "report.pdf"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_several_bags_are_one_report(undrawn: None, messages: list[Message], tmp_path: Path) -> None:
    bags = [write(tmp_path / name, messages) for name in ("monday", "tuesday")]
    made = evaluate(bags, {"one": FakeRuntime()}, ReplayOptions())
    assert made.folder == Path(f"{bags[0]}_report") and len(made.report["episodes"]) == 2
    assert made.report["instructions"]["one"][0]["episodes"] == 2 and made.report["comparison"] is None
    assert Page((made.folder / "index.html").read_text(encoding="utf-8")).open == []


def test_what_is_wrong_with_a_bag_stands_in_the_report(undrawn: None, tmp_path: Path) -> None:
    factory = Factory()
    bad = [factory.image("/camera/camera/color/image_raw", 0.05 * n, encoding="yuv422_yuy2") for n in range(5)]
    good = [m for m in recording(2.0) if m.stamp_ns > bad[-1].stamp_ns or "image" not in m.topic]
    bag = write(tmp_path / "run", sorted([*bad, *good], key=lambda m: m.stamp_ns))
    (bag / "metadata.yaml").unlink()
    made = evaluate([bag], {"one": FakeRuntime()}, ReplayOptions())
    text = Page((made.folder / "index.html").read_text(encoding="utf-8")).text
    assert "metadata.yaml: is missing" in text and "'yuv422_yuy2' is not supported" in text and "(5 times)" in text


def test_a_bag_on_which_nothing_can_be_predicted_still_makes_a_report(undrawn: None, tmp_path: Path) -> None:
    bag = write(tmp_path / "run", [m for m in recording(1.0) if "joint" not in m.topic])
    made = evaluate([bag], {"one": FakeRuntime()}, ReplayOptions())
    page = Page((made.folder / "index.html").read_text(encoding="utf-8"))
    assert page.open == [] and "has no joint states" in page.text and "No chunk was made" in page.text
    assert made.report["summary"]["one"]["translation_error_mm"]["mean"] is None
    timing = made.report["summary"]["one"]["gripper_timing"]
    assert timing["missed"] is timing["spurious"] is None and "Gripper switches missed, spurious–" in page.text


def test_instructions_cannot_smuggle_markup_into_the_page(undrawn: None, tmp_path: Path) -> None:
    made = evaluate(
        [write(tmp_path / "run", recording(1.0))],
        {"one": FakeRuntime()},
        ReplayOptions(instruction="<script>alert(1)</script>"),
    )
    assert "<script" not in (made.folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures cost most of a report's time; tests of other things do without."""
    monkeypatch.setattr(figures, "save", lambda figure, kind: b"<svg/>")
    monkeypatch.setattr(pdf, "render", lambda *_: b"%PDF")


@pytest.fixture
def shipped(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `load_checkpoints` gives to the command line."""
    runtimes: dict[str, Any] = {"one": FakeRuntime()}
    monkeypatch.setattr(evaluation, "load_checkpoints", lambda given, device: runtimes)
    return runtimes


def test_the_gate_sets_the_exit_status(
    shipped: dict[str, Any], messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = str(write(tmp_path / "run", messages))
    assert main(["replay", bag, "--output", str(tmp_path / "base")]) == 0
    baseline = ["--baseline", str(tmp_path / "base" / "report.json")]
    assert main(["replay", bag, "--output", str(tmp_path / "same"), *baseline]) == 0
    shipped["one"] = FakeRuntime(chunk_value=0.02)
    capsys.readouterr()
    assert main(["replay", bag, "--output", str(tmp_path / "worse"), *baseline]) == 3
    assert "WORSE  translation_error_mm" in capsys.readouterr().out
    assert "Worse than the baseline" in (tmp_path / "worse/index.html").read_text(encoding="utf-8")
    assert main(["replay", bag, "--output", str(tmp_path / "lax"), *baseline, "--max-regression", "900%"]) == 0
    other = str(write(tmp_path / "other", recording(1.0)))
    assert main(["replay", other, "--output", str(tmp_path / "x"), *baseline]) == 1
    assert "other bags" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ("[1]", "has the form list"),
        ("{}", "has the form None"),
        ('{"schema": "old"}', "has the form 'old'"),
    ],
)
def test_a_baseline_that_is_no_report_is_named(
    shipped: dict[str, Any], text: str, expected: str, messages: list[Message], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bag, file = str(write(tmp_path / "run", messages)), tmp_path / "wrong.json"
    file.write_text(text, encoding="utf-8")
    assert main(["replay", bag, "--output", str(tmp_path / "x"), "--baseline", str(file)]) == 1
    said = capsys.readouterr().err
    assert f"{file} {expected}" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "does not exist"),
        (["nowhere", "--max-regression", "lots"], "expected a share"),
        (["nowhere", "--topic", "primary"], "is no argument"),
    ],
)
def test_mistakes_are_one_line_and_no_traceback(
    shipped: dict[str, Any], arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *arguments]) == 1
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_numbers_and_names_are_written_for_people() -> None:
    assert [short(v) for v in (None, float("nan"), 0.0, 1.0, 12.345, 1234.5)] == [
        "–",
        "–",
        "0.00",
        "1.00",
        "12.3",
        "1234",
    ]
    assert interval({"low": -0.5, "high": 1.25}) == "-0.5 … +1.25" and interval({"low": None, "high": None}) == "–"
    assert words("translation_error_mm") == "Translation error"
    assert re.match(r"^[A-Z]", words("jerk_m_s3"))
