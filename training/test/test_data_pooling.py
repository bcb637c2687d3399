"""One normalisation for all datasets of one arm, and each its own where arms differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robot_data import episode
from tiny_checkpoint import tiny_checkpoint

from instructvla_model.manifest import read_manifest
from instructvla_model.runtime import PolicyRuntime
from instructvla_training import cli
from instructvla_training.data.episode_frames import Part
from instructvla_training.data.formats.lerobot import LeRobotDataset
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.opening import Reading
from instructvla_training.data.pooling import pool
from instructvla_training.data.survey import action_statistics, read_published, survey
from instructvla_training.finetune import Request, finetune, prepare
from instructvla_training.parallel import Processes
from instructvla_training.samples import open_loop
from instructvla_training.stages.episodes import EpisodeStage

pytestmark = pytest.mark.usefixtures("own_cache")


def _written(root: Path, factor: float, episodes: int, robot: str = "wx250s", fps: float = 5.0) -> Path:
    """Episodes that move so many times as far, of another length in each dataset."""
    made = [episode(n, 10 + episodes) for n in range(episodes)]
    larger = [
        replace(e, action_TA=e.action_TA * np.array([factor] * 6 + [1], np.float32), state_TS=e.state_TS * factor)
        for e in made
    ]
    for one in larger:
        one.state_TS[:, 7] /= factor
    write_lerobot(root, larger, fps=fps, codec="h264", robot_type=robot)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    _written(root / "monday", 1.0, 2)
    _written(root / "tuesday", 3.0, 4)
    _written(root / "franka", 3.0, 3, robot="fr3")
    _written(root / "quick", 1.0, 2, fps=10.0)
    tiny_checkpoint(root / "expert")
    return root


def _parts(made: Path, *names: str) -> list[Part]:
    datasets = [LeRobotDataset(made / name) for name in names]
    return [Part(dataset, survey(dataset)) for dataset in datasets]


def _joined(parts: list[Part]):
    columns = [np.concatenate([getattr(p.survey, name) for p in parts]) for name in ("action_XA", "state_XS")]
    return action_statistics(*columns)


def test_arms_that_the_graph_takes_for_one_are_normalised_together(made):
    parts = _parts(made, "monday", "tuesday")
    one, other = (part.survey.statistics for part in pool(parts, ["fr3", "panda"]))
    assert one == other
    one, other = (part.survey.statistics for part in pool(parts, ["fr3", "wx250s"]))
    assert one != other


def test_datasets_of_one_arm_are_normalised_by_the_quantiles_of_all_their_steps(made):
    parts = _parts(made, "monday", "tuesday")
    one, other = (part.survey.statistics for part in pool(parts, ["wx250s", "wx250s"]))
    assert one == other == _joined(parts)
    assert one not in [part.survey.statistics for part in parts]
    assert pool(parts[:1], ["wx250s"]) == parts[:1]


def test_another_arm_or_another_rate_keeps_its_own_and_that_is_told(made, caplog):
    parts = _parts(made, "monday", "franka", "tuesday", "quick")
    found = [part.survey.statistics for part in pool(parts, ["wx250s", "fr3", "wx250s", "wx250s"])]
    assert found[0] == found[2] == _joined([parts[0], parts[2]])
    assert found[1] == parts[1].survey.statistics and found[3] == parts[3].survey.statistics
    assert "runs with that of monday, tuesday, the others can be replayed: replay --dataset NAME" in caplog.text


def test_steps_of_splits_that_are_not_trained_on_count_too(made, monkeypatch):
    parts, extra = _parts(made, "monday", "tuesday"), LeRobotDataset(made / "franka")
    monkeypatch.setattr(parts[1].dataset, "other_splits", lambda: [extra])
    (found, _) = (part.survey.statistics for part in pool(parts, ["", ""]))
    assert found == _joined([*parts, Part(extra, survey(extra))])


def _request(made: Path, run_dir: Path, *names: str) -> Request:
    data = [(made / name, 1.0) for name in names]
    return Request(base=made / "expert", datasets=data, reading=Reading(), run_dir=run_dir, steps=1)


def test_what_a_checkpoint_of_two_days_runs_with_is_what_each_was_trained_in(made, tmp_path):
    folder = finetune(_request(made, tmp_path / "run", "monday", "tuesday"), "cpu", threads=1)
    published, own = read_published(folder / "dataset_statistics.json"), read_manifest(folder).statistics
    assert published == {"monday": own, "tuesday": own} and own == _joined(_parts(made, "monday", "tuesday"))


def _stage_of_two_arms(made: Path, tmp_path: Path) -> EpisodeStage:
    return prepare(_request(made, tmp_path, "monday", "franka"), Processes())[0].stage


def test_samples_of_an_episode_are_in_the_scale_of_its_own_dataset(made, tmp_path, monkeypatch):
    stage = _stage_of_two_arms(made, tmp_path)
    runtime = PolicyRuntime.load(made / "expert", device="cpu")
    monkeypatch.setattr(EpisodeStage, "held_out", property(lambda self: np.array([2])))  # the first of the Franka's
    loop = open_loop(runtime, stage)
    assert loop is not None and loop.episode.startswith("franka 0")
    assert runtime.manifest.statistics == stage.data.parts[1].survey.statistics


def test_a_replay_normalises_as_the_dataset_that_is_named(made, tmp_path, capsys):
    folder = finetune(_request(made, tmp_path / "run", "monday", "franka"), "cpu", threads=1)
    errors = {}
    for name in ("", "monday", "franka"):
        words = ["replay", str(folder), str(made / "franka"), "--output", str(tmp_path / "out")]
        cli.main([*words, *(["--dataset", name] if name else [])])
        errors[name] = json.loads((tmp_path / "out" / "replay.json").read_text())["error_m"]
    assert errors[""] == errors["monday"] != errors["franka"]
    with pytest.raises(SystemExit, match="found statistics of monday, franka, expected those of 'sunday'"):
        cli.main(["replay", str(folder), str(made / "franka"), "--dataset", "sunday"])
