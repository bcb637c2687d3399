"""instructvla bench model and bench memory: the words of the command line are the library's, figures go to JSON."""

import json

import pytest

from instructvla_model.benchmark import run as library
from instructvla_ros.cli import bench_model
from instructvla_ros.cli.main import main

TINY = ("bench", "model", "--preset", "tiny", "--device", "cpu", "--rounds", "1", "--warm-up", "0")


def test_the_command_line_knows_the_librarys_names():
    assert set(bench_model.BASELINES) == set(library.BASELINES)
    assert bench_model.STAGES.replace(" (a token)", "").split(", ") == list(library.STAGES)


def test_chosen_stages_are_printed_and_written(tmp_path, capsys):
    out = tmp_path / "figures.json"
    words = ("--stages", "flow-loop, chunk", "--against", "no-cache", "--regime", "reference", "--output", str(out))
    assert main([*TINY, *words]) == 0
    said = capsys.readouterr().out
    assert "additive_bias" in said and "no-cache" in said
    figures = json.loads(out.read_text())
    assert set(figures["stages"]) == set(figures["ratios"]) == {"flow-loop", "chunk"}


@pytest.mark.parametrize(
    ("words", "told"), [(("--stages", "lunch"), "expected some of vision"), (("--rounds", "0"), "at least 1")]
)
def test_wrong_words_are_told(words, told, capsys):
    assert main([*TINY, *words]) == 1
    assert told in capsys.readouterr().err


def test_a_device_that_is_not_there_is_told_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(("bench", "memory", "--preset", "tiny", "--device", "cuda", "--folder", str(tmp_path))) == 1
    assert "sees no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_is_measured_and_its_files_are_removed(tmp_path, capsys):
    out = tmp_path / "memory.json"
    words = ("bench", "memory", "--preset", "tiny", "--import", "--folder", str(tmp_path), "--output", str(out))
    assert main(words) == 0
    assert "private GB" in capsys.readouterr().out
    assert [figure["work"] for figure in json.loads(out.read_text())["figures"]] == ["load", "import"]
    assert list(tmp_path.iterdir()) == [out]
