"""Training from datasets on disk: LeRobot v3 and TFRecord, mixed, with annotations and conversations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robot_data import INSTRUCTIONS, bridge, lerobot_v3, picture, png
from synthetic import episode as still

from instructvla_model import checkpoint
from instructvla_model.manifest import read_manifest
from instructvla_model.presets import preset
from instructvla_training import cli
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.opening import Reading
from instructvla_training.data.shards import write_shard
from instructvla_training.data.survey import read_published
from instructvla_training.finetune import Request, finetune, prepare
from instructvla_training.language import vla_it
from instructvla_training.language.vla_it import EpisodeAnnotation, QuestionAnswer
from instructvla_training.parallel import Processes
from instructvla_training.recipes import debug
from instructvla_training.stages.episodes import EpisodeStage
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A LeRobot v3 dataset, a TFDS dataset, annotations and conversations."""
    root = tmp_path_factory.mktemp("made")
    lerobot_v3(root / "kitchen", episodes=4)
    bridge(root)
    pair = (QuestionAnswer("where is it?", "there"),)
    vla_it.write(
        root / "words.json", [EpisodeAnnotation("kitchen", "1", ("move up",) * 11, "a bowl", pair, pair, pair)]
    )
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a picture " * 300}]
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(png(picture(2)))
    entries = [
        {"conversations": talk, "image": "a.png"},
        {"conversations": [{"from": "human", "value": "what is it?"}, talk[1]]},
    ]
    (root / "talk.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Path:
    """A tiny Expert, trained for a few steps on frames of numbers."""
    space = Workspace(tmp_path_factory.mktemp("work"), "tiny")
    config = preset("tiny")
    write_shard(space.stills / "shard-0000", [still(seed, 1, config, "still") for seed in range(4)])
    write_shard(space.demonstrations / "shard-0000", [still(seed, 6, config) for seed in range(3)])
    for stage in ("base", "expert"):
        run_stage(debug(stage), space, "cpu", threads=1)
    return space.checkpoint("expert")


def _request(expert: Path, run_dir: Path, *paths: Path, **options) -> Request:
    reading = options.pop("reading", Reading())
    return Request(base=expert, datasets=[(path, 1.0) for path in paths], reading=reading, run_dir=run_dir, **options)


def _prepared(request: Request) -> EpisodeStage:
    return prepare(request, Processes())[0].stage


@pytest.mark.parametrize("name", ["kitchen", "bridge_dataset"])
def test_the_tiny_policy_learns_from_a_dataset_on_disk(expert, made, tmp_path, name):
    request = _request(expert, tmp_path / "run", made / name, steps=50, learning_rate=3e-3)
    folder = finetune(request, "cpu", threads=1)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"] and rows[-1]["flow"] < rows[0]["flow"]
    assert read_manifest(folder).stage == "expert"
    assert read_published(folder / "dataset_statistics.json")[name] == read_manifest(folder).statistics


def test_only_the_action_adapter_the_queries_and_the_expert_move(expert, made, tmp_path):
    folder = finetune(_request(expert, tmp_path / "run", made / "kitchen", steps=2), "cpu", threads=1)
    before, after = (dict(checkpoint.load_policy(path)[0].named_parameters()) for path in (expert, folder))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(n.startswith(("expert.", "vlm.query_")) or ".action." in n for n in moved), sorted(moved)


def test_datasets_are_drawn_by_weight_times_steps_and_those_of_one_arm_normalised_together(expert, made, tmp_path):
    request = _request(expert, tmp_path, made / "kitchen", made / "bridge_dataset")
    request = replace(request, datasets=[(made / "kitchen", 3.0), (made / "bridge_dataset", 1.0)])
    stage = _prepared(request)
    rng = np.random.default_rng(0)
    drawn = [stage.make_batch(rng).drawn.counts["data/kitchen"] for _ in range(25)]
    steps = [part.survey.n_steps for part in stage.data.parts]
    assert stage.data.shares["kitchen"] == pytest.approx(3 * steps[0] / (3 * steps[0] + steps[1]))
    assert np.mean(drawn) / 16 == pytest.approx(3 * steps[0] / (3 * steps[0] + steps[1]), abs=0.05)
    last = np.array([0, len(stage.frames) - 1])
    actions = stage._actions(last, np.arange(2), rng).actions_BFA.numpy()
    one, other = (part.survey.statistics for part in stage.data.parts)
    assert one == other
    raw = stage.frames.action[last]
    assert np.allclose(actions[:, 0], one.action.normalize(raw), atol=1e-6)


def test_the_same_seed_draws_the_same_batch_and_another_another_one(expert, made, tmp_path):
    stage = _prepared(_request(expert, tmp_path, made / "kitchen", multimodal=made / "talk.json"))
    one, two, three = (stage.make_batch(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.drawn == two.drawn != three.drawn
    assert torch.equal(one.action.pixels_BVCHW, two.action.pixels_BVCHW)
    assert torch.equal(one.language.input_ids_BS, two.language.input_ids_BS)


def test_conversations_come_in_their_ratio_and_long_ones_are_shortened(expert, made, tmp_path):
    stage = _prepared(
        _request(expert, tmp_path, made / "kitchen", multimodal=made / "talk.json", multimodal_ratio=0.25)
    )
    batch = stage.make_batch(np.random.default_rng(0))
    assert batch.drawn.counts["row/multimodal"] == 4 and batch.language.size == 20
    assert batch.language.input_ids_BS.shape[1] <= stage.policy.config.language.max_position
    assert torch.isfinite(stage(batch)["loss"])


def test_annotations_become_prompts_and_the_rest_plain_ones(expert, made, tmp_path):
    stage = _prepared(_request(expert, tmp_path, made / "kitchen", reading=Reading(annotations=made / "words.json")))
    rng = np.random.default_rng(0)
    motion = stage.data.motion
    for kind in ("qa_action", "situated", "rewrite"):
        assert stage.prompter.action(kind, stage.data.words(1), lambda: motion(15), rng, 0.2)[0] == kind
        assert stage.prompter.action(kind, stage.data.words(0), lambda: motion(3), rng, 0.0)[0] == "action"
        assert stage.prompter.action(kind, stage.data.words(0), lambda: motion(3), rng, 1.0)[0] == "motion"
    assert motion(15) == "move up" and stage.data.words(0).instruction == INSTRUCTIONS[0]


def test_a_stopped_run_goes_on_as_an_uninterrupted_one(expert, made, tmp_path):
    finetune(_request(expert, tmp_path / "whole", made / "kitchen", steps=4), "cpu", threads=1)
    finetune(_request(expert, tmp_path / "parts", made / "kitchen", steps=2), "cpu", threads=1)
    finetune(_request(expert, tmp_path / "parts", made / "kitchen", steps=4), "cpu", threads=1)
    for name in ("whole", "parts"):
        assert read_manifest(tmp_path / name / "checkpoint").training["step"] == 4
    one, two = (read_manifest(tmp_path / name / "checkpoint").weights_sha256 for name in ("whole", "parts"))
    assert one == two


def test_data_with_errors_is_refused_with_what_the_linter_found(expert, made, tmp_path):
    request = _request(expert, tmp_path, made / "kitchen", reading=Reading(invert_gripper="action"))
    with pytest.raises(DataError, match="gripper-polarity"):
        finetune(request, "cpu", threads=1)


def test_the_way_to_a_new_robot_from_the_command_line(expert, made, tmp_path, capsys):
    data, run = str(made / "kitchen"), tmp_path / "run"
    words = ["--from", str(expert), "--data", data, "--output", str(run), "--steps", "30", "--learning-rate", "3e-3"]
    assert cli.main(["finetune", *words, "--threads", "1"]) == 0
    cli.main(["replay", str(run / "checkpoint"), data, "--output", str(run / "replay")])
    assert "standing still" in capsys.readouterr().out
    assert json.loads((run / "replay" / "replay.json").read_text())["steps"] == 25
    assert (run / "replay" / "episode-0003.png").stat().st_size > 1000
