"""Recording and closed-loop evaluation on the real simulation, at the tiny size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from instructvla_model import checkpoint
from instructvla_model.manifest import new_manifest
from instructvla_model.presets import preset
from instructvla_model.tokenizer import train_tokenizer
from instructvla_sim import RenderSpec, World
from instructvla_sim.catalog import INDEX, NAMES
from instructvla_training.data import corrections, demonstrations, stills
from instructvla_training.data.record import record, seconds
from instructvla_training.data.shards import NO_OBJECT, read_frames, write_shard
from instructvla_training.data.survey import action_statistics
from instructvla_training.evaluation import trials
from instructvla_training.evaluation.closed_loop import Outcome, Runner
from instructvla_training.evaluation.tables import line, share, summarise
from instructvla_training.recipes import DataRecipe
from instructvla_training.workspace import new_policy

CONFIG = preset("tiny")
SMALL = RenderSpec(width=64, height=48, samples=0)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstrations")
    data = replace(DataRecipe(), families=("pick",), family_weights=(1.0,), disturbed_fraction=0.0)
    write_shard(folder / "shard-0000", demonstrations.record_shard(range(7, 8), CONFIG, data))
    return read_frames([folder])


@pytest.fixture(scope="module")
def expert(tmp_path_factory, demonstration):
    """An untrained expert checkpoint with the demonstration's statistics."""
    folder = tmp_path_factory.mktemp("expert")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["pick up the red cube", "what action should the robot take to"], 300, CONFIG.n_queries)
    policy = new_policy("tiny", tokenizer)
    policy.set_stage("expert")
    manifest = new_manifest(policy.config, "expert", action_statistics(demonstration.action, demonstration.state))
    checkpoint.save(folder, policy, tokenizer, manifest)
    return folder


def test_a_demonstration_lifts_its_object_and_labels_every_step(demonstration):
    (episode,) = demonstration.episodes
    height = demonstration.objects[:, INDEX[episode.target], 2]
    assert height[-1] > height[0] + 0.03
    assert len(episode.motion) == episode.length == len(demonstration)
    assert "close gripper" in " ".join(episode.motion)
    assert demonstration.action[0, 6] == 1.0 and demonstration.action[-1, 6] == 0.0


def test_the_patch_grid_shows_the_visible_objects(demonstration):
    seen = set(np.unique(demonstration.grid[0]).tolist()) - {NO_OBJECT}
    there = {i for i, row in enumerate(demonstration.objects[0]) if row[3] > 0.5}
    assert seen and seen <= there


def test_stills_differ_by_seed_and_repeat_by_seed():
    data = DataRecipe()
    first, second = stills.record_shard(range(3, 5), CONFIG, data)
    (again,) = stills.record_shard(range(3, 4), CONFIG, data)
    assert np.array_equal(first.frames["image"], again.frames["image"])
    assert not np.array_equal(first.frames["image"], second.frames["image"])


def test_recording_continues_where_it_was_stopped(tmp_path):
    data = DataRecipe()
    assert record(stills.record_shard, tmp_path, 4, 2, 10, CONFIG, data, workers=1) == 2
    both = seconds(tmp_path)
    (tmp_path / "shard-0001" / "episodes.jsonl").unlink()
    for file in (tmp_path / "shard-0001").iterdir():
        file.unlink()
    (tmp_path / "shard-0001").rmdir()
    assert record(stills.record_shard, tmp_path, 4, 2, 10, CONFIG, data, workers=1) == 1
    assert [e.seed for e in read_frames([tmp_path]).episodes] == [10, 11, 12, 13]
    assert both is not None and seconds(tmp_path) > both > 0.0  # the third shard's time is added


def test_corrections_start_where_the_policy_left_the_arm(expert, demonstration):
    data = replace(DataRecipe(), families=("pick",), family_weights=(1.0,), disturbed_fraction=0.0)
    (episode,) = corrections.record_shard(range(7, 8), CONFIG, data, expert)
    assert episode.source == "correction" and episode.success
    assert not np.allclose(episode.frames["state"][0], demonstration.state[0], atol=1e-3)


def test_an_untrained_policy_runs_in_the_graphs_own_code_and_is_scored(expert):
    world = World(SMALL)
    (trial,) = trials.atomic_trials(world, ("pick",), 1)
    world.close()
    runner = Runner(expert, think=False, max_steps=3)
    outcome = runner.run(trial)
    assert outcome.steps == 3 and not outcome.success and outcome.text_right is None
    again = runner.run(trial)
    assert again == outcome


def test_a_trial_of_another_scene_is_refused(expert):
    world = World(SMALL)
    (trial,) = trials.atomic_trials(world, ("pick",), 1)
    world.close()
    with pytest.raises(ValueError, match="make the trials again"):
        Runner(expert, think=False, max_steps=1).run(replace(trial, seed=trial.seed + 1))


def test_trials_share_scenes_but_not_instructions():
    world = World(SMALL)
    atomic = trials.atomic_trials(world, ("pick", "place"), 6)
    shuffled = trials.shuffled_trials(world, ("pick", "place"), 6)
    heldout = trials.heldout_trials(world, ("pick", "place"), 6)
    world.close()
    assert [t.task for t in atomic] == [t.task for t in shuffled]
    assert all(a.instruction != s.instruction for a, s in zip(atomic, shuffled, strict=True))
    assert [t.kind for t in heldout] == ["paraphrase", "attribute", "situated"] * 2
    assert {t.task.family for t in atomic} == {"pick", "place"}
    assert all(t.task.target in NAMES for t in heldout)


def _outcome(success: bool, approached: str | None) -> Outcome:
    world_task = trials.Task("pick", "lemon")
    trial = trials.Trial(1, "atomic", "pick up the lemon", world_task)
    return Outcome(trial, success, approached, None, 10, "", None, ())


def test_the_summary_counts_and_its_interval_is_wilsons():
    outcomes = [_outcome(True, "lemon")] * 7 + [_outcome(False, "apple")] * 2 + [_outcome(False, None)]
    summary = summarise(outcomes)
    assert summary["success"]["k"] == 7 and summary["success"]["n"] == 10
    assert summary["named_object_first"]["n"] == 9 and summary["named_object_first"]["k"] == 7
    counted = share(outcomes, lambda o: o.success)
    assert (round(counted["low"], 3), round(counted["high"], 3)) == (0.397, 0.892)
    assert "70.0 %" in line("success", counted)
    assert line("nothing", share([], lambda o: True)).endswith("-")
