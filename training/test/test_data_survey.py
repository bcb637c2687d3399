"""Statistics of a dataset, their cache, and the linter."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from robot_data import episode, lerobot_v3, write_json

from instructvla_training import cli
from instructvla_training.data.formats.episode import ArrayImages, DataError, EpisodeDataset, StateLayout
from instructvla_training.data.formats.lerobot import LeRobotDataset
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.lint import lint, lint_text
from instructvla_training.data.survey import cache_folder, fingerprint, read_published, survey, write_published


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Made(EpisodeDataset):
    """Episodes that are in memory."""

    name, format, root, dt_s, layout, views = "made", "memory", Path("."), 0.2, StateLayout.RPY, ("primary",)

    def __init__(self, episodes):
        self.episodes = episodes

    def __len__(self):
        return len(self.episodes)

    def __getitem__(self, index):
        found = self.episodes[index]
        if isinstance(found, Exception):
            raise found
        return found

    def files(self):
        return []


def _codes(episodes, **options):
    return {found.code: found for found in lint(Made(episodes), **options)}


def test_statistics_are_those_of_all_steps(tmp_path):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made"))
    made = survey(dataset)
    actions = np.concatenate([e.action_TA for e in dataset])
    assert made.lengths == (10, 11, 12) and made.spoken.all() and made.n_steps == 33
    assert np.allclose(made.statistics.action.mean, actions.mean(0))
    assert np.allclose(made.statistics.action.q99[6], np.quantile(actions[:, 6], 0.99))
    assert made.statistics.action.mask == (True,) * 6 + (False,)


def test_a_second_survey_comes_from_the_cache_and_a_changed_file_makes_another(tmp_path, monkeypatch):
    root = lerobot_v3(tmp_path / "made", episodes=2)
    first = survey(LeRobotDataset(root))
    monkeypatch.setattr(LeRobotDataset, "__getitem__", lambda *_: pytest.fail("read again"))
    assert survey(LeRobotDataset(root)) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fingerprint(LeRobotDataset(root, invert_gripper=True)) != first.fingerprint
    info = json.loads((root / "meta/info.json").read_text())
    write_json(root / "meta/info.json", info | {"robot_type": "another"})
    assert fingerprint(LeRobotDataset(root)) != first.fingerprint


def test_the_hash_does_not_depend_on_where_the_data_lies(tmp_path):
    here = lerobot_v3(tmp_path / "made", episodes=1)
    there = shutil.copytree(here, tmp_path / "elsewhere")
    assert fingerprint(LeRobotDataset(here)) == fingerprint(LeRobotDataset(there))


def test_a_damaged_cache_is_made_anew(tmp_path, caplog):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=1))
    first = survey(dataset)
    np.save(cache_folder() / first.fingerprint / "action_XA.npy", np.zeros((2, 7), np.float32))
    assert survey(dataset) == first and "made anew" in caplog.text


def test_published_statistics_come_back(tmp_path):
    made = survey(LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=2)))
    write_published(tmp_path / "s.json", [made])
    table = json.loads((tmp_path / "s.json").read_text())
    assert table["made"]["num_transitions"] == 21 and set(table["made"]) >= {"action", "proprio", "num_trajectories"}
    assert read_published(tmp_path / "s.json") == {"made": made.statistics}


def test_values_that_are_not_finite_stop_the_survey_with_the_way_to_find_them(tmp_path):
    bad = episode(0)
    bad.action_TA[2, 1] = np.nan
    with pytest.raises(DataError, match="data lint"):
        survey(Made([bad]))


# ---- lint ---------------------------------------------------------------------------------------------


def test_good_data_has_no_findings():
    assert lint(Made([episode(n) for n in range(4)]), dt_s=0.2) == []


def test_values_that_are_not_finite_are_found_by_episode():
    bad = episode(1)
    bad.state_TS[3, 2] = np.inf
    assert "made/1" in _codes([episode(0), bad])["not-finite"].text


def test_a_gripper_the_wrong_way_round_is_found():
    turned = [episode(n) for n in range(3)]
    for each in turned:
        each.action_TA[:, 6] = 1.0 - each.action_TA[:, 6]
    found = _codes(turned)
    assert found["gripper-polarity"].error and "--invert-gripper" in found["gripper-polarity"].text


def test_a_gripper_of_another_range_is_found():
    wide = episode(0)
    wide.action_TA[:, 6] = 2.0 * wide.action_TA[:, 6] - 1.0
    assert "from -1.00 to 1.00" in _codes([wide])["gripper-range"].text


def test_dimensions_that_never_change_are_found():
    still = episode(0)
    still.action_TA[:, :3] = 0.0
    found = _codes([still])["zero-span"]
    assert found.error and "x, y, z" in found.text
    one = episode(0)
    one.action_TA[:, 3] = 0.0
    assert not _codes([one])["zero-span"].error


def test_missing_language_is_an_error_only_where_there_is_none_at_all():
    assert not _codes([episode(0, instruction=""), episode(1)])["no-language"].error
    assert _codes([episode(0, instruction="")])["no-language"].error


def test_an_axis_that_runs_the_other_way_is_found():
    mirrored = episode(0)
    rng = np.random.default_rng(0)
    mirrored.action_TA[:, :3] = rng.normal(0, 0.01, (10, 3))
    mirrored.state_TS[1:, :3] = mirrored.state_TS[0, :3] + np.cumsum(mirrored.action_TA[:-1, :3] * [1, -1, 1], axis=0)
    assert "along y" in _codes([mirrored])["axis-sign"].text


def test_wrong_rates_and_gaps_are_found():
    slow = dataclasses.replace(episode(0), time_s=np.arange(10) * 0.4)
    assert _codes([slow])["rate"].error
    late = dataclasses.replace(episode(0), time_s=np.arange(10) * 0.2 + (np.arange(10) > 5))
    assert "1 of 9 steps" in _codes([late])["gaps"].text
    assert "record or resample at 3.33333 Hz" in _codes([episode(0)], dt_s=0.3)["rate"].text


def test_blank_and_frozen_cameras_are_found():
    dark = dataclasses.replace(episode(0), images={"primary": ArrayImages(np.zeros((10, 8, 8, 3), np.uint8))})
    same = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 8, 8, 3), dtype=np.uint8), 10, axis=0)
    frozen = dataclasses.replace(episode(1), images={"primary": ArrayImages(same)})
    found = _codes([dark, frozen])
    assert "made/0" in found["blank-image"].text and "made/1" in found["frozen-camera"].text


def test_an_episode_that_cannot_be_read_does_not_hide_the_others():
    found = _codes([DataError("file x is damaged"), episode(1, instruction="")])
    assert "file x is damaged" in found["unreadable"].text and "no-language" in found


def test_conversations_are_checked_for_their_images(tmp_path):
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    (tmp_path / "talk.json").write_text(json.dumps([{"conversations": turns, "image": "a.png"}, {"conversations": []}]))
    assert {found.code for found in lint_text(LlavaDataset(tmp_path / "talk.json"))} == {"missing-image", "unreadable"}


# ---- commands -----------------------------------------------------------------------------------------


def test_the_commands_report_and_convert(tmp_path, capsys):
    source = lerobot_v3(tmp_path / "made", episodes=2)
    assert cli.main(["data", "inspect", str(source)]) == 0
    assert "2 episodes" not in capsys.readouterr().err
    assert cli.main(["data", "stats", str(source), "--output", str(tmp_path / "s.json")]) == 0
    assert "action yaw" in capsys.readouterr().out and (tmp_path / "s.json").exists()
    target = tmp_path / "small"
    assert cli.main(["data", "convert", str(source), str(target), "--height", "24", "--codec", "h264"]) == 0
    assert LeRobotDataset(target)[1].images["primary"][0].shape == (24, 32, 3)
    assert cli.main(["data", "lint", str(target), "--dt", "0.2"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert cli.main(["data", "lint", str(target), "--dt", "0.1"]) == 1


def test_a_command_on_no_data_says_what_was_expected(tmp_path):
    with pytest.raises(SystemExit, match="expected LeRobot"):
        cli.main(["data", "lint", str(tmp_path)])
