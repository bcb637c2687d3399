"""A recipe with all that it rests on: in which order, and from what a stopped one goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instructvla_training import pipeline
from instructvla_training.recipes import RECIPES
from instructvla_training.workspace import Workspace


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (0, ["demonstrations", 10, "corrections 40", 20, "corrections 80", 30]),
        (15, ["demonstrations", "corrections 40", 20, "corrections 80", 30]),
        (25, ["demonstrations", "corrections 40", "corrections 80", 30]),
    ],
)
def test_corrections_come_in_rounds_of_the_policy_as_it_then_is(monkeypatch, tmp_path, before, expected):
    full = RECIPES["nano-expert"]()
    recipe = replace(
        full,
        optimisation=replace(full.optimisation, steps=30),
        data=replace(full.data, corrections=80),
        corrections_at=(10, 20),
        still_groups=0,
        after=None,
    )
    done, reached = [], [before]

    def run_stage(recipe, space, device, threads, until=None, wandb_project=None):
        reached[0] = until or recipe.optimisation.steps
        done.append(reached[0])

    def record_data(what, space, data, workers, driver=None):
        done.append(f"{what} {data.corrections}" if what == "corrections" else what)

    monkeypatch.setitem(pipeline.RECIPES, "nano-expert", lambda: recipe)
    monkeypatch.setattr(pipeline, "trained_steps", lambda space, name: reached[0])
    monkeypatch.setattr(pipeline, "run_stage", run_stage)
    monkeypatch.setattr(pipeline, "record_data", record_data)
    pipeline.make("nano-expert", Workspace(tmp_path, "nano"), "cpu", 1)
    assert done == expected


def test_more_corrections_than_before_are_recorded_by_the_present_policy(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(pipeline, "record", lambda recorder, folder, total, *_: asked.append((recorder, folder, total)))
    space, data = Workspace(tmp_path, "nano"), RECIPES["nano-expert"]().data
    pipeline.record_data("corrections", space, replace(data, corrections=40), 1)
    pipeline.record_data("rehearsal", space, replace(data, corrections=20), 1, tmp_path / "start")
    (expert, corrections, forty), (start, rehearsal, twenty) = asked
    assert (forty, twenty) == (40, 20)
    assert (corrections.name, rehearsal.name) == ("corrections", "rehearsal")
    assert expert.keywords["checkpoint"] == space.checkpoint("expert")
    assert start.keywords["checkpoint"] == tmp_path / "start"
