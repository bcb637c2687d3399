"""Statistics of a dataset, their cache, and the linter."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from robot_data import bridge, episode, lerobot_v2, lerobot_v3, write_json, write_lines

from instructvla_training import cli
from instructvla_training.data.convert import convert
from instructvla_training.data.formats.episode import ArrayImages, DataError, EpisodeDataset, StateLayout
from instructvla_training.data.formats.lerobot import LeRobotDataset
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.formats.rlds import RldsDataset
from instructvla_training.data.lint import lint, lint_text
from instructvla_training.data.report import statistics_table
from instructvla_training.data.survey import (
    _write,
    action_statistics,
    cache_entry,
    file_mark,
    fingerprint,
    read_published,
    survey,
    write_published,
)


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
    assert fingerprint(LeRobotDataset(root, invert_gripper="both")) != first.fingerprint
    info = json.loads((root / "meta/info.json").read_text())
    write_json(root / "meta/info.json", info | {"robot_type": "another"})
    assert fingerprint(LeRobotDataset(root)) != first.fingerprint


def test_the_hash_does_not_depend_on_where_the_data_lies(tmp_path):
    here = lerobot_v3(tmp_path / "made", episodes=1)
    there = shutil.copytree(here, tmp_path / "elsewhere")
    assert fingerprint(LeRobotDataset(here)) == fingerprint(LeRobotDataset(there))


def _long(root: Path) -> Path:
    """A dataset whose list of episodes names the second one's task more than 64 KiB from both ends."""
    path = lerobot_v2(root) / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [row if number == 1 else row | {"note": "x" * 70_000} for number, row in enumerate(rows)])
    return path


def test_words_that_are_mended_in_the_middle_of_a_file_are_another_dataset(tmp_path):
    path = _long(tmp_path / "made")
    first = survey(LeRobotDataset(tmp_path / "made"))
    path.write_text(path.read_text().replace("pick up the can", "pick up the cup"))
    second = survey(LeRobotDataset(tmp_path / "made"))
    assert (first.instructions[1], second.instructions[1]) == ("pick up the can", "pick up the cup")
    assert first.fingerprint != second.fingerprint


def test_a_large_file_that_was_written_again_is_surveyed_again_and_stays_the_same_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla_training.data.survey.WHOLE_TEXT_BYTES", 100_000)
    path = _long(tmp_path / "made")
    first, before = survey(LeRobotDataset(tmp_path / "made")), path.stat()
    path.write_text(path.read_text().replace("pick up the can", "pick up the cup"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = survey(LeRobotDataset(tmp_path / "made"))
    assert second.instructions[1] == "pick up the cup" and second.fingerprint == first.fingerprint


def test_the_hash_of_a_file_is_of_all_of_it_unless_it_is_large_or_a_video(tmp_path):
    size = 3 * (1 << 20) + 5
    for name, counts in (("talk.json", True), ("numbers.tfrecord", True), ("front.mp4", False)):
        path, marks = tmp_path / name, set()
        for place in (None, 70_000, size // 2, size - 70_000):
            content = bytearray(size)
            if place is not None:
                content[place] = 1
            path.write_bytes(content)
            marks.add(file_mark(path))
        assert len(marks) == (4 if counts else 1), name


def test_the_hash_of_a_file_whose_ends_are_all_of_it_is_the_one_that_it_always_was(tmp_path):
    path = tmp_path / "talk.json"
    for size in (0, 70_000, 1 << 17):
        content = np.random.default_rng(0).bytes(size)
        path.write_bytes(content)
        known = hashlib.sha256(f"{size}\n".encode() + content[: 1 << 16] + content[-(1 << 16) :])
        assert file_mark(path) == known.hexdigest()[:24]


def test_a_damaged_cache_is_made_anew(tmp_path, caplog):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=1))
    first = survey(dataset)
    np.save(cache_entry(dataset, first.fingerprint) / "action_XA.npy", np.zeros((2, 7), np.float32))
    assert survey(dataset) == first and "made anew" in caplog.text


def test_a_survey_that_another_process_has_made_meanwhile_is_left_as_it_is(tmp_path):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=1))
    first = survey(dataset)
    entry = cache_entry(dataset, first.fingerprint)
    before = (entry / "action_XA.npy").stat().st_ino
    _write(entry, first)
    assert (entry / "action_XA.npy").stat().st_ino == before and len(list(entry.parent.iterdir())) == 1


def test_published_statistics_come_back(tmp_path):
    made = survey(LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=2)))
    write_published(tmp_path / "s.json", [made])
    table = json.loads((tmp_path / "s.json").read_text())
    assert table["made"]["num_transitions"] == 21 and set(table["made"]) >= {"action", "proprio", "num_trajectories"}
    assert read_published(tmp_path / "s.json") == {"made": made.statistics}


def test_statistics_of_two_datasets_of_one_name_are_not_written_over_each_other(tmp_path):
    days = [str(lerobot_v3(tmp_path / day / "robot", episodes=count)) for day, count in (("a", 1), ("b", 2))]
    file = tmp_path / "out" / "s.json"
    with pytest.raises(SystemExit, match=r"found datasets robot, robot, expected different names.*rename a folder"):
        cli.main(["data", "stats", *days, "--output", str(file)])
    assert not file.parent.exists()


def test_values_that_are_not_finite_stop_the_survey_with_the_way_to_find_them(tmp_path):
    bad = episode(0)
    bad.action_TA[2, 1] = np.nan
    with pytest.raises(DataError, match="data lint"):
        survey(Made([bad]))


def test_a_video_that_is_missing_is_named_before_anything_is_read(tmp_path):
    root = lerobot_v3(tmp_path / "made", episodes=1)
    next(root.rglob("*.mp4")).unlink()
    with pytest.raises(DataError, match=r"mp4 is missing.*copy the dataset again"):
        survey(LeRobotDataset(root))


def test_least_spans_are_for_a_fifth_of_a_second_and_go_with_the_step(tmp_path):
    still = np.zeros((50, 7), np.float32)
    still[:, 0] = np.linspace(0, 1e-4, 50)
    states = np.zeros((50, 8), np.float32)
    found = [action_statistics(still, states, **rate).action for rate in ({}, {"dt_s": 0.2}, {"dt_s": 0.02})]
    spans = [np.subtract(each.q99, each.q01)[:6] for each in found]
    assert np.array_equal(spans[0], spans[1]) and np.allclose(spans[0], [0.01] * 3 + [0.1] * 3)
    assert np.allclose(spans[2], spans[0] / 10)
    fast = LeRobotDataset(lerobot_v3(tmp_path / "fast", fps=50.0))
    assert "least spans of an action in 0.020 s: x 0.001" in "\n".join(statistics_table(fast, survey(fast)))


def test_what_a_killed_process_of_the_same_number_left_does_not_stop_a_survey(tmp_path):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=2))
    entry = cache_entry(dataset, fingerprint(dataset))
    entry.with_name(f"{entry.name}.{os.getpid()}").mkdir(parents=True)
    assert survey(dataset).n_steps == 21 and entry.is_dir()


def test_statistics_of_a_tfds_dataset_are_those_of_all_its_splits(tmp_path):
    whole, other = RldsDataset(bridge(tmp_path / "whole", episodes=2)), bridge(tmp_path / "other", episodes=4)
    folder, more = whole.root, other / "1.0.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    val = json.loads((more / "dataset_info.json").read_text())["splits"][0] | {"name": "val"}
    write_json(folder / "dataset_info.json", info | {"splits": [*info["splits"], val]})
    for path in more.glob("*.tfrecord-*"):
        shutil.copy(path, folder / path.name.replace("-train.", "-val."))
    made = survey(RldsDataset(folder))
    every = [e for root in (folder, more) for e in RldsDataset(root)]
    assert len(made.lengths) == 2 and len(every) == 6
    assert np.allclose(made.statistics.state.mean, np.concatenate([e.state_TS for e in every]).mean(0))
    for path in folder.glob("*-val.*"):
        path.unlink()
    assert survey(RldsDataset(folder)).statistics != made.statistics  # of those that are there


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
    assert found["gripper-polarity"].error and "--source" not in found["gripper-polarity"].text
    lerobot = type("Turned", (Made,), {"format": "lerobot"})(turned)
    texts = {finding.code: finding.text for finding in lint(lerobot)}
    assert "--invert-gripper action" in texts["gripper-polarity"]
    rlds = type("Turned", (Made,), {"format": "rlds"})(turned)
    assert "--source" in {finding.code: finding.text for finding in lint(rlds)}["gripper-polarity"]


def _with(number, length=20, state=None, action=None):
    made = episode(number, length)
    states, actions = made.state_TS.copy(), made.action_TA.copy()
    if state:
        state(states)
    if action:
        action(actions, states)
    return dataclasses.replace(made, state_TS=states, action_TA=actions)


def test_closings_in_state_and_action_are_found_and_read_right_with_both_inverted(tmp_path):
    def turned(rows, *_):
        rows[:, -1] = 1.0 - rows[:, -1]

    root = tmp_path / "closings"
    write_lerobot(root, [_with(n, state=turned, action=turned) for n in range(4)], fps=5.0, codec="h264")
    found = {finding.code: finding for finding in lint(LeRobotDataset(root))}
    assert "4 of 4 episodes begin with the hand closed" in found["gripper-polarity"].text
    assert "--invert-gripper both" in found["gripper-polarity"].text
    assert lint(LeRobotDataset(root, invert_gripper="both")) == []
    assert {f.error for f in lint(LeRobotDataset(root, invert_gripper="action"))} == {True}
    right, read = episode(0, 20), LeRobotDataset(root, invert_gripper="both")[0]
    assert np.allclose(read.state_TS, right.state_TS) and np.allclose(read.action_TA, right.action_TA)
    assert cli.main(["data", "lint", str(root), "--invert-gripper", "both"]) == 0


def test_a_gripper_of_the_state_in_metres_or_percent_is_an_error():
    for scale in (0.085, 100.0):
        metres = [_with(n) for n in (0, 1)]
        for each in metres:
            each.state_TS[:, 7] *= scale
        found = _codes(metres)["gripper-range"]
        assert found.error and "gripper of the state" in found.text
    assert "gripper-range" not in _codes([_with(0, state=lambda s: s.__setitem__((3, 7), 1.02))])


def test_positions_in_place_of_ways_are_an_error():
    def absolute(actions, states):
        actions[:, :6] = np.concatenate([states[1:, :6], states[-1:, :6]])

    found = _codes([_with(n, action=absolute) for n in range(4)])
    assert found["absolute-action"].error and "subtract the state" in found["absolute-action"].text
    assert "absolute-action" not in _codes([episode(n) for n in range(4)])


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


def _dark(number):
    return dataclasses.replace(episode(number), images={"primary": ArrayImages(np.zeros((10, 8, 8, 3), np.uint8))})


def _frozen(number):
    same = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 8, 8, 3), dtype=np.uint8), 10, axis=0)
    return dataclasses.replace(episode(number), images={"primary": ArrayImages(same)})


def test_blank_and_frozen_cameras_are_found():
    found = _codes([_dark(0), _frozen(1)])
    assert "made/0" in found["blank-image"].text and "made/1" in found["frozen-camera"].text


def test_an_episode_that_cannot_be_read_does_not_hide_the_others():
    found = _codes([DataError("file x is damaged"), episode(1, instruction="")])
    assert "file x is damaged" in found["unreadable"].text and "no-language" in found


def test_episodes_that_the_linter_calls_errors_are_left_out_of_a_conversion_and_told(tmp_path, caplog):
    torn = episode(3)
    torn.state_TS[4, 1] = np.nan
    made = Made([episode(0), _frozen(1), _dark(2), torn, DataError("file x is damaged"), episode(5, 13)])
    assert sum(found.error for found in lint(made)) == 4
    assert convert(made, tmp_path / "mended", codec="h264", skip_bad=True) == 2
    mended = LeRobotDataset(tmp_path / "mended")
    assert [len(e) for e in mended] == [10, 13] and lint(mended) == []
    told = [record.message for record in caplog.records if record.message.startswith("left out episode")]
    wanted = ("frozen-camera", "blank-image", "not-finite", "file x is damaged")
    numbers = (1, 2, 3, 4)
    assert all(f"episode {n}:" in text and what in text for n, text, what in zip(numbers, told, wanted, strict=True))


def test_a_linted_sample_is_spread_over_the_episodes(tmp_path):
    read, made = [], [episode(n) for n in range(9)]
    dataset = Made(made)
    dataset.__class__ = type("Counted", (Made,), {"__getitem__": lambda self, n: (read.append(n), made[n])[1]})
    assert lint(dataset, episodes=3) == [] and read == [0, 4, 8]


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


def test_a_conversion_leaves_out_the_episodes_that_are_named(tmp_path):
    source, words = lerobot_v3(tmp_path / "made", episodes=4), ["--codec", "h264", "--without"]
    assert cli.main(["data", "convert", str(source), str(tmp_path / "two"), *words, "1", "3"]) == 0
    assert [len(e) for e in LeRobotDataset(tmp_path / "two")] == [10, 12]
    with pytest.raises(SystemExit, match=r"found no episodes \[4\], expected numbers from 0 to 3"):
        cli.main(["data", "convert", str(source), str(tmp_path / "none"), *words, "4"])


def test_a_command_on_no_data_says_what_was_expected(tmp_path):
    with pytest.raises(SystemExit, match="expected LeRobot"):
        cli.main(["data", "lint", str(tmp_path)])
