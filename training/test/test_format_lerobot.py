"""LeRobot datasets: v2.1 and v3.0 are read, v3.0 is written as LeRobot reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robot_data import INSTRUCTIONS, episode, lerobot_v2, lerobot_v3, picture, which

from instructvla_training.data.formats.episode import DataError, StateLayout, choose_cameras
from instructvla_training.data.formats.lerobot import LeRobotDataset
from instructvla_training.data.formats.lerobot_writer import LeRobotWriter, write_lerobot
from instructvla_training.data.formats.video import VideoImages

JOINTS = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"]


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    return lerobot_v3(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    return lerobot_v2(tmp_path_factory.mktemp("data") / "old")


def test_what_was_written_as_v3_is_read_back(v3):
    dataset = LeRobotDataset(v3)
    assert [len(e) for e in dataset] == [10, 11, 12] and dataset.dt_s == 0.2
    for number, found in enumerate(dataset):
        made = episode(number, 10 + number)
        assert np.array_equal(found.state_TS, made.state_TS) and np.array_equal(found.action_TA, made.action_TA)
        assert found.instruction == INSTRUCTIONS[number % 2]
        assert [which(image) for image in found.images["primary"]] == list(range(10 + number))


def test_any_frame_of_a_joined_video_can_be_read_alone(v3):
    images = LeRobotDataset(v3)[2].images["primary"]
    assert [which(images[step]) for step in (11, 0, 7)] == [11, 0, 7]
    assert np.abs(images[3].astype(int) - picture(3)).mean() < 6
    with pytest.raises(IndexError):
        images[12]


def test_the_tables_of_v3_are_those_that_lerobot_reads(v3):
    info = json.loads((v3 / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and (info["total_episodes"], info["total_frames"]) == (3, 33)
    assert info["features"]["observation.images.primary"]["shape"] == [48, 64, 3]
    data = pq.read_table(v3 / "data/chunk-000/file-000.parquet")
    assert data["index"].to_pylist() == list(range(33)) and data["frame_index"].to_pylist()[10:12] == [0, 1]
    rows = pq.read_table(v3 / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [(0, 10), (10, 21), (21, 33)]
    assert rows[1]["videos/observation.images.primary/from_timestamp"] == pytest.approx(2.0)
    tasks = pq.read_table(v3 / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert dict(zip(tasks["task"].to_pylist(), tasks["task_index"].to_pylist(), strict=True)) == {
        text: n for n, text in enumerate(INSTRUCTIONS)
    }


def test_the_statistics_of_v3_are_those_of_all_rows(v3):
    stats = json.loads((v3 / "meta/stats.json").read_text())
    actions = np.concatenate([e.action_TA for e in LeRobotDataset(v3)])
    assert np.allclose(stats["action"]["mean"], actions.mean(0)) and np.allclose(stats["action"]["max"], actions.max(0))
    assert np.allclose(stats["action"]["std"], actions.std(0), atol=1e-6) and stats["action"]["count"] == [33]
    assert np.array(stats["observation.images.primary"]["mean"]).shape == (3, 1, 1)


def test_version_2_1_is_read_with_video_and_images_in_the_parquet(v2):
    dataset = LeRobotDataset(v2)
    assert dataset.views == ("primary", "wrist") and dataset.layout is StateLayout.RPY
    found = dataset[1]
    assert np.array_equal(found.state_TS, episode(1, 11).state_TS)
    assert [which(image) for image in found.images["primary"]] == list(range(11))
    assert np.array_equal(found.images["wrist"][4], picture(5))
    assert found.time_s == pytest.approx(np.arange(11) / 5)


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), LeRobotWriter(tmp_path / "half", fps=5, codec="h264") as writer:
        writer.add(episode(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_folder_never_mix_and_the_second_to_end_is_told(tmp_path, caplog):
    one = LeRobotWriter(tmp_path / "made", fps=5.0)
    other = LeRobotWriter(tmp_path / "made", fps=5.0)
    assert "another conversion is at work, or was killed" in caplog.text
    one.add(episode(1))
    other.add(episode(2))
    one.close()
    with pytest.raises(DataError, match="another conversion has written it meanwhile"):
        other.close()
    (found,) = LeRobotDataset(tmp_path / "made")
    assert np.array_equal(found.action_TA, episode(1).action_TA)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_existing_folder_is_not_written_over(v3):
    with pytest.raises(DataError, match="expected a new folder"):
        LeRobotWriter(v3, fps=5)


def test_an_inverted_gripper_is_turned_round(v3):
    plain, turned = LeRobotDataset(v3)[0], LeRobotDataset(v3, invert_gripper="action")[0]
    assert np.allclose(plain.action_TA[:, 6] + turned.action_TA[:, 6], 1.0)
    assert np.array_equal(plain.state_TS, turned.state_TS)
    with pytest.raises(DataError, match="expected one of action, state, both"):
        LeRobotDataset(v3, invert_gripper="hand")


def test_a_wrong_camera_is_answered_with_the_right_ones(v3):
    with pytest.raises(DataError, match=r"observation\.images\.primary"):
        LeRobotDataset(v3, cameras={"primary": "observation.images.top"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v1.6"}, "expected v2.x or v3.x"),
        ({"features": {"action": {"dtype": "float32", "shape": [6], "names": ["joint"]}}}, "end-effector deltas"),
        ({"features": {"action": {"dtype": "float32", "shape": [7], "names": JOINTS}}}, "end-effector deltas"),
        ({"fps": None}, r"info\.json: found .*expected the description"),
        ({"features": None}, r"info\.json: found .*copy or export"),
    ],
)
def test_what_cannot_be_used_is_said(v3, tmp_path, change, message):
    info = json.loads((v3 / "meta/info.json").read_text())
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps(info | change))
    with pytest.raises(DataError, match=message):
        LeRobotDataset(tmp_path)


def test_states_of_unknown_layout_are_refused_and_can_be_named(v3, tmp_path):
    copy = tmp_path / "copy"
    lerobot_v3(copy, episodes=1)
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = None
    (copy / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="--state rpy"):
        LeRobotDataset(copy)
    assert LeRobotDataset(copy, layout=StateLayout.RPY)[0].state_TS.shape == (10, 8)


def test_a_video_that_is_too_short_is_named(v3):
    path = v3 / "videos/observation.images.primary/chunk-000/file-000.mp4"
    with pytest.raises(DataError, match=r"frame 33 .* is not in it"):
        list(VideoImages(path, 5.0, 12, 5.0))


def test_joints_in_the_state_are_refused_even_when_called_a_pose(tmp_path):
    copy = lerobot_v3(tmp_path / "copy", episodes=1)
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = {"motors": [*JOINTS[:6], "pad", "gripper"]}
    (copy / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="which are joints"):
        LeRobotDataset(copy, layout=StateLayout.RPY)


def _rewritten(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def _null_row(table):
    rows = table["action"].to_pylist()
    rows[3] = None
    column = pa.array(rows, pa.list_(pa.float32()))
    return table.set_column(table.schema.get_field_index("action"), "action", column)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("meta/episodes", lambda path: path.write_bytes(path.read_bytes()[:300])),
        ("meta/episodes", lambda path: _rewritten(path, lambda table: table.drop(["tasks"]))),
        ("data", lambda path: path.write_bytes(path.read_bytes()[:-200])),
        ("data", lambda path: _rewritten(path, lambda table: table.drop(["action"]))),
        ("data", lambda path: _rewritten(path, lambda table: table.drop(["episode_index"]))),
        ("data", lambda path: _rewritten(path, _null_row)),
        ("data", lambda path: path.unlink()),
    ],
)
def test_damaged_tables_are_named_with_what_to_do(tmp_path, part, change):
    copy = lerobot_v3(tmp_path / "copy", episodes=2)
    change(next((copy / part).rglob("*.parquet")))
    with pytest.raises(DataError, match=r"copy.*(expected|copy|cut)"):
        list(LeRobotDataset(copy))


def test_a_missing_table_is_said_to_be_missing(tmp_path):
    copy = lerobot_v3(tmp_path / "copy", episodes=1)
    next((copy / "data").rglob("*.parquet")).unlink()
    with pytest.raises(DataError, match=r"file-000\.parquet: found no .*expected 10 rows"):
        LeRobotDataset(copy)[0]


def test_a_table_of_version_2_without_tasks_is_named(tmp_path):
    root = lerobot_v2(tmp_path / "old")
    (root / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": 10}\n')
    with pytest.raises(DataError, match="found no 'tasks'"):
        LeRobotDataset(root)


def test_a_dataset_has_the_name_of_its_folder_however_it_is_reached(v3, monkeypatch):
    monkeypatch.chdir(v3)
    assert LeRobotDataset(Path(".")).name == "made" and LeRobotDataset(Path("."))[0].file_path == "made"


def test_a_task_of_blanks_is_none_and_names_may_be_told_by_their_places(v3, tmp_path):
    root = tmp_path / "other"
    write_lerobot(root, [episode(0, instruction="  "), episode(1, instruction=" pick the cup ")], fps=5.0)
    info = json.loads((root / "meta/info.json").read_text())
    names = info["features"]["observation.state"]["names"]
    info["features"]["observation.state"]["names"] = {name: place for place, name in reversed([*enumerate(names)])}
    (root / "meta/info.json").write_text(json.dumps(info))
    dataset = LeRobotDataset(root)
    assert dataset.layout is StateLayout.RPY
    assert [found.instruction for found in dataset] == ["", "pick the cup"]


def test_of_two_cameras_at_wrists_one_must_be_named(tmp_path):
    keys = ["front", "left_wrist", "right_wrist"]
    with pytest.raises(DataError, match=r"left_wrist.*right_wrist.*--camera wrist=left_wrist"):
        choose_cameras(keys, {}, tmp_path)
    assert choose_cameras(keys, {"wrist": "right_wrist"}, tmp_path) == {"primary": "front", "wrist": "right_wrist"}
