"""What the README's table rests on, and when it must be measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructvla_model.manifest import read_manifest
from instructvla_training import scoreboard

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"episodes": 9}, False),
        ({"episodes": 20}, True),
        ({"max_steps": 30}, False),
        ({"checkpoint": "another"}, False),
    ],
)
def test_a_row_counts_for_the_checkpoint_the_trials_and_the_time_that_it_was_measured_with(tmp_path, change, expected):
    folder, outcome = CHECKPOINTS / "nano-expert", tmp_path / "row.json"
    about = {"checkpoint": read_manifest(folder).checkpoint_id, "episodes": 10, "max_steps": 60} | change
    outcome.write_text(json.dumps({"about": about}), encoding="utf-8")
    assert scoreboard.measured(outcome, folder, 10, 60) is expected
    assert scoreboard.measured(outcome, folder, 10, 60, exactly=True) is (expected and not change)
    assert not scoreboard.measured(tmp_path / "none.json", folder, 10, 60)


def test_the_shipped_rows_are_of_the_shipped_checkpoints():
    for row in scoreboard.ROWS:
        about = json.loads((CHECKPOINTS / "results" / row.file).read_text(encoding="utf-8"))["about"]
        assert about["checkpoint"] == read_manifest(CHECKPOINTS / f"nano-{row.made}").checkpoint_id, row.file


def test_what_ships_reaches_its_bars():
    def success(name: str) -> float:
        found = json.loads((CHECKPOINTS / "results" / f"{name}.json").read_text(encoding="utf-8"))["summary"]["success"]
        assert found["n"] >= 200
        return found["rate"]

    assert success("expert_atomic_act") >= 0.85 and success("generalist_atomic_act") >= 0.80
    reasoning = success("generalist_heldout_think")
    assert reasoning >= 1.5 * success("expert_heldout_act") and reasoning >= 1.15 * success("generalist_heldout_act")


def test_language_survives_action_training_as_the_study_measured_it_on_what_ships():
    study = json.loads((CHECKPOINTS / "results" / "study" / "study.json").read_text(encoding="utf-8"))
    asked = {
        row["stage"]: row
        for row in study["measured"]
        if row["cell"].startswith("shipped_") and row["set"] == "questions"
    }
    for stage in ("base", "generalist"):
        assert asked[stage]["checkpoint"] == read_manifest(CHECKPOINTS / f"nano-{stage}").checkpoint_id
    lost = "question answering: after stage 2 minus before action training"
    assert study["success"]["comparisons"][lost]["value"] >= -0.03


def test_batches_are_made_at_least_three_times_as_fast_as_they_are_trained_on():
    measured = list((CHECKPOINTS / "results" / "loader").glob("*.json"))
    assert measured and all(json.loads(path.read_text(encoding="utf-8"))["ratio"] >= 3.0 for path in measured)


def test_the_table_tells_every_date_and_machine_and_rows_have_their_own_number_of_trials(tmp_path, monkeypatch):
    counted = {"n": 2, "k": 1, "rate": 0.5, "low": 0.1, "high": 0.9}
    summary = dict.fromkeys({row.column for row in scoreboard.ROWS}, counted)
    for row, date in zip(scoreboard.ROWS, (*["2026-01-01"] * 9, "2026-01-02"), strict=True):
        content = {"summary": summary, "about": {"date": date, "machine": row.made}}
        (tmp_path / row.file).write_text(json.dumps(content), encoding="utf-8")
    assert scoreboard.table(tmp_path)[-1] == "Measured 2026-01-01 and 2026-01-02 on expert; franka; generalist."
    asked = {}
    monkeypatch.setattr(scoreboard, "measured", lambda output, _, count, __: asked.update({output.name: count}) or True)
    scoreboard.measure(CHECKPOINTS, tmp_path, None, 1)
    assert asked["franka_atomic_act.json"] == 50 and asked["expert_atomic_act.json"] == 200
