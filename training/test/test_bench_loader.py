"""The loader's bench."""

from __future__ import annotations

import json

from synthetic import workspace

from instructvla_training.bench_loader import loader_speed, write
from instructvla_training.recipes import debug


def test_loader_and_training_are_measured_apart_and_nothing_is_kept(tmp_path):
    space = workspace(tmp_path)
    found = loader_speed(debug("base"), space, "cpu", threads=1, steps=2)
    assert found.loader_samples_per_s > 0 and found.training_samples_per_s > 0
    assert found.line().startswith("tiny-base: loader ") and "all steps of the recipe" in found.line()
    write(found, tmp_path / "out" / "loader.json")
    content = json.loads((tmp_path / "out" / "loader.json").read_text())
    assert content["ratio"] == round(found.loader_samples_per_s / found.training_samples_per_s, 2)
    assert not (space.run("base") / "log.jsonl").exists() and not space.checkpoint("base").exists()
