"""Recordings for the Rerun viewer, and the recording that the benchmark makes and measures."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from instructvla_ros_bag_factory import START_NS, Factory, arm_at, recording, write

from instructvla_ros.bags import benchmark
from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.benchmark import MAX_MEMORY_BYTES, make, measure
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.rerun_export import entries, export
from instructvla_ros.cli.main import main
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.state import state_vector


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("export") / "run", recording(1.0))


def test_everything_that_can_be_looked_at_is_shown_where_and_when_it_was_received(bag: Path) -> None:
    with Bag(bag) as opened:
        found = list(entries(opened))
        assert opened.problems == ()
    by_path: dict[str, list] = {}
    for entry in found:
        by_path.setdefault(entry.path, []).append(entry)
    assert {path: len(many) for path, many in by_path.items()} == {
        "words/instruction": 1, "words/reasoning": 1, "camera/primary": 10, "camera/wrist": 5, "joints": 50,
        "end_effector": 50, "gripper": 50,
    }  # fmt: skip
    assert by_path["words/instruction"][0].value == "put the carrot on the plate"
    picture = by_path["camera/primary"][3]
    assert picture.time_ns == START_NS + 300_000_000
    shown = cv2.imdecode(np.frombuffer(picture.value, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(shown.astype(int) - Factory().picture(0.3)).mean() < 6.0
    assert by_path["end_effector"][10].value == pytest.approx(state_vector(np.array(arm_at(0.2)), 0.037)[:6], abs=1e-5)


def test_a_picture_that_cannot_be_shown_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    odd = Factory().image("/camera/camera/color/image_raw", 0.55, encoding="yuv422")
    messages = sorted([*recording(1.0), odd], key=lambda m: m.stamp_ns)
    with Bag(write(tmp_path / "run", messages)) as opened:
        assert sum(entry.path == "camera/primary" for entry in entries(opened)) == 10
        assert any("yuv422" in problem.what for problem in opened.problems)


def test_the_file_is_one_of_the_viewers_and_is_never_written_over(bag: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    target = tmp_path / "run.rrd"
    with Bag(bag) as opened:
        assert export(opened, target) == 167
        assert target.read_bytes()[:3] == b"RRF" and target.stat().st_size > 10_000
        with pytest.raises(FileExistsError, match="another name"):
            export(opened, target)
        with pytest.raises(FileNotFoundError, match="is no folder"):
            export(opened, tmp_path / "nowhere" / "run.rrd")


def test_without_the_library_the_command_says_how_to_get_it(
    bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["export", str(bag)]) == 1
    assert "pip install -r requirements/rerun.txt" in capsys.readouterr().err


def test_the_benchmarks_recording_is_whole_and_every_picture_of_it_is_decoded(tmp_path: Path) -> None:
    make(tmp_path / "bag", 1.0)
    figures = measure(tmp_path / "bag")
    assert (figures.images, figures.messages, figures.problems) == (60, 60 + 100 + 5 + 1, 0)
    assert figures.duration_s == pytest.approx(1.0, abs=0.05) and figures.peak_memory_bytes > 2**20
    with Bag(tmp_path / "bag") as bag:
        decoder = Decoder(bag)
        pictures = [decoder.decode(r).data.tobytes() for r in bag.messages(["/wrist/image_raw/compressed"])]
    assert len(set(pictures)) == 30, "pictures that repeat would be read from a cache"


def test_the_benchmark_keeps_what_was_done_as_a_replay_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []

    class Counted(benchmark.Truth):
        def finish(self, arm: ArmModel) -> None:  # type: ignore[override]
            super().finish(arm)
            kept.append(f"{len(self._joints)} {len(self.steps)} {self.source}")

    monkeypatch.setattr(benchmark, "Truth", Counted)
    make(tmp_path / "bag", 1.0)
    measure(tmp_path / "bag")
    assert kept == ["100 5 steps"]


def test_each_bar_that_is_missed_is_named(tmp_path: Path) -> None:
    make(tmp_path / "bag", 0.2)
    good = dataclasses.replace(measure(tmp_path / "bag"), index_s=4.9, speed=10.1, peak_memory_bytes=MAX_MEMORY_BYTES)
    assert list(good.misses()) == []
    bad = dataclasses.replace(good, index_s=5.1, speed=9.9, peak_memory_bytes=MAX_MEMORY_BYTES + 1)
    assert len(list(bad.misses())) == 3
