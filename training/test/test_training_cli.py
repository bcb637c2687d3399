"""The command line's own mistakes and messages."""

from __future__ import annotations

import pytest

from instructvla_training import cli


def test_data_without_a_name_records_stills_and_demonstrations(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("instructvla_training.pipeline.record_data", lambda what, *_: asked.append(what))
    assert cli.main(["--root", str(tmp_path), "data", "record"]) == 0
    assert asked == ["stills", "demonstrations"]


def test_an_unknown_kind_of_data_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="unknown films; expected stills, demonstrations, corrections"):
        cli.main(["--root", str(tmp_path), "data", "record", "films"])


def test_scoring_text_without_reasoning_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="expected --think beside it"):
        cli.main(["evaluate", str(tmp_path), "--text-only"])


def test_results_before_any_measurement_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="instructvla-train measure"):
        cli.main(["--root", str(tmp_path), "results"])
