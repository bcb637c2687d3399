"""A recipe with all that it rests on: in which order, and from what a stopped one goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instructvla_model.manifest import new_manifest, write_manifest
from instructvla_model.presets import preset
from instructvla_training import cli, pipeline
from instructvla_training.recipes import RECIPES, DataRecipe, debug
from instructvla_training.refusals import RunError
from instructvla_training.workspace import Workspace


@pytest.mark.parametrize(
    ("before", "steps", "expected"),
    [
        (0, None, ["demonstrations", 10, "corrections 40", 20, "corrections 80", 30]),
        (15, None, ["demonstrations", "corrections 40", 20, "corrections 80", 30]),
        (25, None, ["demonstrations", "corrections 40", "corrections 80", 30]),
        (0, 15, ["demonstrations", 10, "corrections 40", 15]),
    ],
)
def test_corrections_come_in_rounds_of_the_policy_as_it_then_is(monkeypatch, tmp_path, before, steps, expected):
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
    pipeline.make("nano-expert", Workspace(tmp_path, "nano"), "cpu", 1, steps)
    assert done == expected


def test_corrections_of_another_run_are_refused_before_the_first_step(monkeypatch, tmp_path):
    """A new run would train on them from the first step and record none of its own driving."""
    space = Workspace(tmp_path, "tiny")
    recipe = replace(debug(), corrections_at=(2,), after=None)
    monkeypatch.setitem(pipeline.RECIPES, "tiny-expert", lambda: recipe)
    monkeypatch.setattr(pipeline, "record_data", lambda *_: None)
    monkeypatch.setattr(pipeline, "run_stage", lambda *_, **__: tmp_path)
    pipeline.make("tiny-expert", space, "cpu", 1)
    (space.corrections / "shard-0000").mkdir(parents=True)
    with pytest.raises(RunError, match="delete that folder"):
        pipeline.make("tiny-expert", space, "cpu", 1)
    space.run("expert").mkdir(parents=True)
    pipeline.make("tiny-expert", space, "cpu", 1)


def test_under_torchrun_a_round_of_corrections_that_was_not_recorded_is_missed(monkeypatch, tmp_path):
    space, data = Workspace(tmp_path, "tiny"), DataRecipe(corrections=80)
    (space.corrections / "shard-0000").mkdir(parents=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipeline.record_data("corrections", space, replace(data, corrections=40), 1)
    with pytest.raises(FileNotFoundError, match=r"1 shards of .* missing.*once without torchrun"):
        pipeline.record_data("corrections", space, data, 1)


@pytest.mark.parametrize("what", ["stills", "demonstrations"])
def test_under_torchrun_the_data_of_another_robot_are_said_to_be_recorded_by_the_same_command(
    monkeypatch, tmp_path, what
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for recipe, told in (("nano-franka", "once without torchrun"), ("nano-expert", f"data record {what}")):
        space = pipeline.workspace_of(recipe, tmp_path)
        with pytest.raises(FileNotFoundError, match=told):
            pipeline.record_data(what, space, RECIPES[recipe]().data, 1)


def test_the_loader_is_measured_on_the_recipe_s_own_data(monkeypatch, tmp_path):
    asked = []

    def measured(recipe, space, *_):
        asked.append(space.data)

    monkeypatch.setattr("instructvla_training.bench_loader.loader_speed", measured)
    with pytest.raises(AttributeError):  # what stands in finds no figures
        cli.main(["--root", str(tmp_path), "bench", "loader", "nano-franka"])
    assert asked == [tmp_path / "data" / "nano-franka"]


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


def test_how_long_each_thing_took_is_told_in_order(tmp_path):
    space = Workspace(tmp_path, "nano")
    for name, text in (("stills", '{"seconds": 60.0}'), ("demonstrations", None), ("corrections", '{"seconds": 5}')):
        space.dataset(name).mkdir(parents=True)
        if text:
            (space.dataset(name) / "recording.json").write_text(text)
    config = preset("nano")
    for name, took in (("base", 100), ("expert", 300)):
        space.checkpoint(name).mkdir(parents=True)
        notes = {"recipe": f"nano-{name}", "seconds": took}
        write_manifest(space.checkpoint(name), new_manifest(config, "expert", None, notes))
    assert list(pipeline.durations("nano-expert", space).items()) == [
        ("stills", 60.0), ("nano-base", 100), ("demonstrations", None), ("nano-cloning", None), ("corrections", 5.0),
        ("nano-expert", 300),
    ]  # fmt: skip
