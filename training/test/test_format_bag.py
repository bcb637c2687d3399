"""Recordings of the graph become episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from robot_data import FRANKA, INSTRUCTIONS, bag, picture, which

from instructvla_ros.control.kinematics import NEUTRAL_RAD
from instructvla_ros.control.state import state_vector
from instructvla_training.data.formats.bag import BagDataset
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.survey import fingerprint, survey

RUNS = ((1, INSTRUCTIONS[0], 8), (2, INSTRUCTIONS[1], 6), (3, "too short", 2))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    bag(root / "first", RUNS)
    bag(root / "second", raw=True)
    return root


def test_each_instruction_with_enough_steps_is_an_episode(recorded):
    dataset = BagDataset(recorded, cameras={})
    found = [(e.episode_id, e.instruction, len(e)) for e in dataset]
    assert found[:2] == [("1.0", INSTRUCTIONS[0], 8), ("2.0", INSTRUCTIONS[1], 6)]
    assert dataset.dt_s == pytest.approx(0.2) and dataset.views == ("primary",)


def test_episodes_bear_the_name_that_their_folder_has_now_whatever_the_cache_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bag(tmp_path / "monday" / "001")
    assert survey(BagDataset(tmp_path / "monday")).keys == (("monday/001", "1.0"),)
    (tmp_path / "monday").rename(tmp_path / "tuesday")
    dataset = BagDataset(tmp_path / "tuesday")
    found = survey(dataset)
    assert found.name == "tuesday" and found.keys == (("tuesday/001", "1.0"),) == (_key(dataset[0]),)


@pytest.mark.parametrize(("within", "named"), [("", "."), ("001", ".."), ("001", "../001/..")])
def test_a_folder_of_bags_has_its_name_however_it_is_named(tmp_path, monkeypatch, within, named):
    bag(tmp_path / "monday" / "001")
    monkeypatch.chdir(tmp_path / "monday" / within)
    dataset = BagDataset(Path(named))
    assert dataset.name == "monday" and _key(dataset[0]) == ("monday/001", "1.0")
    assert fingerprint(dataset) == fingerprint(BagDataset(tmp_path / "monday"))


def _key(episode):
    return episode.file_path, episode.episode_id


def test_a_step_has_the_newest_image_and_the_state_at_its_beginning(recorded):
    episode = BagDataset(recorded)[0]
    assert [which(image) for image in episode.images["primary"]] == list(range(8))
    assert which(episode.images["primary"][5]) == 5
    for step in (0, 3, 7):  # a step begins half-way between its two samples of the joints
        assert np.allclose(episode.state_TS[step], state_vector(NEUTRAL_RAD + 0.02 * step + 0.005, 0.03), atol=1e-5)
    assert np.allclose(episode.action_TA[3], [0.03, 0, 0, 0, 0, 0.1, 1.0])
    assert episode.time_s == pytest.approx(0.2 * np.arange(8))


def test_raw_images_are_read_in_the_order_of_their_channels(tmp_path):
    bag(tmp_path / "raw", raw=True)
    assert np.array_equal(BagDataset(tmp_path)[0].images["primary"][2], picture(2))


def test_actions_can_be_the_differences_of_states(recorded):
    reached = BagDataset(recorded, actions="states")[0]
    assert reached.time_s == pytest.approx(0.2 * np.arange(len(reached)))
    assert np.allclose(reached.action_TA[:-1, :3], np.diff(reached.state_TS[:, :3], axis=0), atol=1e-6)
    assert np.allclose(reached.action_TA[:-1, 6], reached.state_TS[1:, 7])


def test_a_recording_of_a_driven_arm_is_one_episode_with_the_text_beside_it(tmp_path):
    bag(tmp_path / "driven", ((0, "", 9),), executed=False)
    with pytest.raises(DataError, match="no instruction"):
        BagDataset(tmp_path)
    (tmp_path / "driven" / "instruction.txt").write_text("\ufeffstack the cubes\n", encoding="utf-8")
    (episode,) = BagDataset(tmp_path)
    assert episode.instruction == "stack the cubes" and len(episode) >= 6
    assert np.allclose(episode.action_TA[:-1, :3], np.diff(episode.state_TS[:, :3], axis=0), atol=1e-6)
    assert BagDataset(tmp_path, instruction="another")[0].instruction == "another"


def test_the_text_beside_a_recording_does_not_replace_what_it_says_itself(tmp_path):
    bag(tmp_path / "run", RUNS[:2])
    (tmp_path / "run" / "instruction.txt").write_text("stack the cubes\n")
    assert [e.instruction for e in BagDataset(tmp_path)] == [*INSTRUCTIONS]
    assert [e.instruction for e in BagDataset(tmp_path, instruction="another")] == ["another"] * 2


def test_joint_states_of_no_known_arm_are_named(tmp_path):
    bag(tmp_path / "other", joint_names=["shoulder", "elbow"], executed=False)
    with pytest.raises(DataError, match=r"shoulder, elbow.*wx250s"):
        BagDataset(tmp_path)


def test_the_robot_is_the_arm_whose_joints_were_recorded_and_one_alone(tmp_path):
    bag(tmp_path / "widowx" / "a")
    bag(tmp_path / "franka" / "b", **FRANKA)
    assert BagDataset(tmp_path / "widowx").robot == "wx250s" and BagDataset(tmp_path / "franka").robot == "fr3"
    with pytest.raises(DataError, match="found arms fr3, wx250s, expected one; take the bags apart"):
        BagDataset(tmp_path)


def test_a_pause_of_an_instruction_makes_two_episodes(tmp_path):
    bag(tmp_path / "paused", ((4, "go on", 5), (4, "go on", 6)))
    assert [(e.episode_id, len(e)) for e in BagDataset(tmp_path)] == [("4.0", 5), ("4.1", 6)]


def test_a_folder_without_bags_and_one_without_steps_are_named(tmp_path):
    with pytest.raises(DataError, match="instructvla record"):
        BagDataset(tmp_path)
    bag(tmp_path / "idle", ((1, "nothing", 1),))
    with pytest.raises(DataError, match="found no episode of at least 4 steps"):
        BagDataset(tmp_path)


def test_a_bag_of_which_nothing_can_be_read_is_told_and_the_others_are_used(tmp_path):
    bag(tmp_path / "good")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "torn_0.mcap").write_bytes(b"no mcap at all")
    dataset = BagDataset(tmp_path)
    assert len(dataset) == 1 and len(dataset.problems) == 2
    assert any("does not begin with the MCAP magic" in text for found in dataset.problems.values() for text in found)


def test_the_step_of_executed_steps_is_their_own(tmp_path):
    bag(tmp_path / "run")
    with pytest.raises(DataError, match=r"executed steps of 0.2 s, expected 0.1 s.*--actions states"):
        BagDataset(tmp_path, dt_s=0.1)
    assert BagDataset(tmp_path, actions="states", dt_s=0.1).dt_s == 0.1
    with pytest.raises(DataError, match=r"step of 0\.0 s"):
        BagDataset(tmp_path, dt_s=0.0)
