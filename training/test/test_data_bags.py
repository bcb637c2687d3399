"""From recordings to training data and back: what was driven is what is learned, what was learned can be replayed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robot_data import episode

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.replay import ReplayOptions, replay
from instructvla_ros.bags.score import score_chunks
from instructvla_training.cli import main
from instructvla_training.data.formats.bag import BagDataset
from instructvla_training.data.formats.episode import ArrayImages, DataError, Episode, EpisodeDataset, StateLayout
from instructvla_training.data.formats.opening import open_dataset
from instructvla_training.data.to_bag import to_bag
from instructvla_training.language.vla_it import EpisodeAnnotation, QuestionAnswer, read, write


def beside(name: str) -> Any:
    """A helper of the ROS package's tests."""
    full = f"instructvla_ros_{name}"
    if full not in sys.modules:
        path = Path(__file__).parents[2] / "src/instructvla_ros/test" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


factory, fakes = beside("bag_factory"), beside("fakes")


class Few(EpisodeDataset):
    """Episodes in memory, with images large enough for a camera."""

    name, format, dt_s, layout, views = "few", "made", 0.2, StateLayout.RPY, ("primary",)

    def __init__(self, count: int = 2) -> None:
        self.root = Path("few")
        self._episodes = [self._large(episode(n, 8)) for n in range(count)]

    def _large(self, made: Episode) -> Episode:
        frames = np.stack([factory.Factory().picture(0.2 * step) for step in range(len(made))])
        return Episode(
            made.file_path, made.episode_id, made.instruction, made.state_TS, made.action_TA,
            {"primary": ArrayImages(frames)},
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        return self._episodes[index]

    def files(self) -> list[Path]:
        return []


def test_a_recording_becomes_steps_on_the_policys_grid(tmp_path: Path) -> None:
    bag = factory.write(tmp_path / "run", factory.recording(4.0))
    dataset = BagDataset(bag)
    (found,) = list(dataset)
    assert found.instruction == "put the carrot on the plate" and dataset.views == ("primary", "wrist")
    from instructvla_ros.control.state import state_vector

    begin_s = 0.1  # the first image after the instruction
    for step in (0, 7):
        arm = np.array(factory.arm_at(begin_s + 0.2 * step))
        assert found.state_TS[step] == pytest.approx(state_vector(arm, 0.037), abs=1e-4)
    moved = np.cumsum(found.action_TA[:-1, :3], axis=0)
    assert found.state_TS[0, :3] + moved == pytest.approx(found.state_TS[1:, :3], abs=1e-4)
    images = list(found.images["primary"])
    assert len(images) == len(found) and np.array_equal(images[3], factory.Factory().picture(0.7))
    assert np.array_equal(found.images["primary"][3], images[3])
    (account,) = dataset.accounts
    assert account.steps == len(found) and account.longest_camera_gap_s == pytest.approx(0.1, abs=1e-6)
    assert account.largest_skew_s == pytest.approx(0.1, abs=0.01), "the wrist camera has 5 Hz"


def test_a_hole_divides_an_episode_and_is_accounted_for(tmp_path: Path) -> None:
    messages = [
        m for m in factory.recording(6.0)
        if not ("image" in m.topic and 2.0 < (m.stamp_ns - factory.START_NS) * 1e-9 < 3.5)
    ]  # fmt: skip
    dataset = BagDataset(factory.write(tmp_path / "run", messages))
    (account,) = dataset.accounts
    assert account.longest_camera_gap_s == pytest.approx(1.5, abs=0.11) and account.left_out >= 5
    assert [episode.episode_id for episode in dataset] == ["1.0", "1.1"] and account.runs == 2
    assert sum(map(len, dataset)) == account.steps
    assert account.largest_skew_s <= 0.5 + 1e-6, "an image that is older than the limit goes into no step"


def test_images_whose_stamps_run_backwards_are_left_out_and_told(tmp_path: Path) -> None:
    made = factory.Factory()
    odd = made.image(factory.PRIMARY, 0.2)
    late = factory.Message(odd.topic, odd.type_name, factory.START_NS + 1_550_000_000, odd.data)
    messages = sorted([*factory.recording(4.0), late], key=lambda m: m.stamp_ns)
    dataset = BagDataset(factory.write(tmp_path / "run", messages))
    assert any("run backwards" in text for text in dataset.problems["run"]) and len(dataset) == 1


def test_a_camera_that_only_some_bags_have_is_left_out_and_told(tmp_path: Path) -> None:
    both = factory.write(tmp_path / "both", factory.recording(2.0))
    one = factory.write(tmp_path / "one", factory.recording(2.0, wrist=False))
    dataset = BagDataset([both, one])
    assert dataset.views == ("primary",) and all(set(e.images) == {"primary"} for e in dataset)
    assert any("no wrist camera" in text for text in dataset.problems["both"])


def test_a_recording_without_a_usable_episode_says_so(tmp_path: Path) -> None:
    short = factory.write(tmp_path / "short", factory.recording(0.7))
    with pytest.raises(DataError, match="found no episode of at least 4 steps"):
        BagDataset(short)
    numb = factory.write(tmp_path / "numb", [m for m in factory.recording(2.0) if "joint" not in m.topic])
    with pytest.raises(DataError, match="no joint states"):
        BagDataset(numb)
    with pytest.raises(DataError, match="no recorded steps; it has states"):
        BagDataset(factory.write(tmp_path / "driven", factory.recording(2.0)), actions="steps")


def test_from_bag_writes_lerobot_with_its_account_and_to_bag_brings_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = factory.write(tmp_path / "run", factory.recording(3.0, wrist=False))
    target, back = tmp_path / "lerobot", tmp_path / "back"
    assert main(["data", "from-bag", str(bag), str(target), "--codec", "h264"]) == 0
    assert "skew up to" in capsys.readouterr().out
    account = json.loads((target / "meta/recordings.json").read_text())
    assert account["episodes"][0]["instruction"] == "put the carrot on the plate"
    dataset = open_dataset(target)
    assert dataset.robot == "wx250s"
    original = BagDataset(bag)[0]
    assert dataset[0].action_TA == pytest.approx(original.action_TA, abs=1e-6)
    assert main(["data", "to-bag", str(target), str(back)]) == 0
    with Bag(back) as read:
        assert read.problems == ()
        result = replay(read, {"fake": fakes.FakeRuntime()}, ReplayOptions())
    assert result.truth.source == "steps" and len(result.runs[0].predictions) == len(original)
    recorded = score_chunks(result, result.runs[0]).recorded[:, 0]
    assert recorded == pytest.approx(original.action_TA, abs=1e-6)


def test_annotated_recordings_are_converted_with_their_account_and_their_words(tmp_path: Path) -> None:
    factory.write(tmp_path / "all" / "run", factory.recording(3.0, wrist=False))
    words = tmp_path / "words.json"
    write(words, [EpisodeAnnotation("all/run", "1.0", (), "a table")])
    target = tmp_path / "new"
    assert main(["data", "convert", str(tmp_path / "all"), str(target), "--annotations", str(words)]) == 0
    (told,) = json.loads((target / "meta/recordings.json").read_text())["episodes"]
    assert told["bag"] == "all/run" and told["steps"] == len(open_dataset(target)[0])
    (found,) = read(target / "meta/vla_it.json")
    assert (found.file_path, found.episode_id, found.caption) == ("new", "0", "a table")


def test_a_policy_is_fed_the_states_and_images_of_a_dataset_episode(tmp_path: Path) -> None:
    data = Few()
    assert to_bag(data, tmp_path / "bag") == 2
    runtime = fakes.FakeRuntime()
    with Bag(tmp_path / "bag") as bag:
        result = replay(bag, {"fake": runtime}, ReplayOptions())
    acts = [call for kind, call in runtime.calls if kind == "act"]
    assert [e.instruction for e in result.episodes] == [data[0].instruction, data[1].instruction]
    assert np.array([call["state"] for call in acts]) == pytest.approx(
        np.concatenate([data[0].state_TS, data[1].state_TS]), abs=1e-6
    )


def test_an_annotation_becomes_the_text_that_a_replay_is_compared_with(tmp_path: Path) -> None:
    data, pair = Few(2), QuestionAnswer("where to?", "into the bowl")
    said = EpisodeAnnotation("made", "1", (), "a table", cc=(pair,))
    object.__setattr__(data[1], "annotation", said)
    object.__setattr__(data[0], "annotation", EpisodeAnnotation("made", "0", (), "a table"))
    to_bag(data, tmp_path / "bag")
    with Bag(tmp_path / "bag") as bag:
        result = replay(bag, {"fake": fakes.FakeRuntime()}, ReplayOptions())
    assert [e.annotation for e in result.episodes] == ["", "into the bowl"]


@pytest.mark.parametrize("layout", StateLayout)
def test_states_come_back_from_a_bag_as_what_they_are_and_of_whom(tmp_path: Path, layout: StateLayout) -> None:
    data = Few(1)
    data.layout, data.robot = layout, "panda"
    to_bag(data, tmp_path / "bag")
    back = BagDataset(tmp_path / "bag")
    assert (back.layout, back.robot) == (layout, "panda") and layout.name in back.reading
    assert back[0].state_TS == pytest.approx(data[0].state_TS, abs=1e-6)


def test_bags_of_states_of_several_kinds_are_not_read_as_one(tmp_path: Path) -> None:
    data = Few(1)
    to_bag(data, tmp_path / "all" / "one")
    data.layout = StateLayout.QUATERNION
    to_bag(data, tmp_path / "all" / "two")
    with pytest.raises(DataError, match="found state layouts QUATERNION, RPY, expected one"):
        BagDataset(tmp_path / "all")


def test_the_same_dataset_gives_the_same_bag(tmp_path: Path) -> None:
    for name in ("a", "b"):
        to_bag(Few(1), tmp_path / name)
    a, b = ([(r.stamp_ns, r.topic, r.data) for r in Bag(tmp_path / name).messages()] for name in ("a", "b"))
    assert a == b


def test_an_episode_without_an_instruction_is_refused(tmp_path: Path) -> None:
    data = Few(1)
    object.__setattr__(data[0], "instruction", "")
    with pytest.raises(DataError, match="found no instruction"):
        to_bag(data, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_wrong_numbers_and_a_folder_that_is_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="numbers from 0 to 0"):
        to_bag(Few(1), tmp_path / "bag", [3])
    (tmp_path / "bag").mkdir()
    with pytest.raises(DataError, match="never written over"):
        to_bag(Few(1), tmp_path / "bag")
    assert (tmp_path / "bag").is_dir()


def jumped(shift_s: float) -> list[Any]:
    """The factory's recording in which the robot's clock jumps at two seconds."""
    made, found = factory.Factory(), []
    for message in factory.recording(4.0, wrist=False):
        time_s = (message.stamp_ns - factory.START_NS) * 1e-9
        data = message.data
        if time_s >= 2.0 and message.topic == factory.JOINTS:
            data = made.joints(time_s + shift_s, factory.arm_at(time_s), factory.finger_at(time_s)).data
        elif time_s >= 2.0 and message.topic == factory.PRIMARY:
            data = made.image(factory.PRIMARY, time_s + shift_s, pixels=made.picture(time_s)).data
        found.append(factory.Message(message.topic, message.type_name, message.stamp_ns, data))
    return found


@pytest.mark.parametrize("shift_s", [-2.0, -10.0, 5.0])
def test_a_clock_that_jumps_divides_an_episode_and_teaches_no_wrong_motion(tmp_path: Path, shift_s: float) -> None:
    steady = BagDataset(factory.write(tmp_path / "steady", jumped(0.0)))[0]
    dataset = BagDataset(factory.write(tmp_path / "jumped", jumped(shift_s)))
    before, after = dataset
    assert (before.episode_id, after.episode_id) == ("1.0", "1.1")
    assert len(before) + len(after) >= len(steady) - 3
    assert before.state_TS == pytest.approx(steady.state_TS[: len(before)], abs=1e-5)
    assert before.action_TA == pytest.approx(steady.action_TA[: len(before)], abs=1e-5)
    moved = np.linalg.norm(after.action_TA[:, :3], axis=1)
    assert moved.max() < 2 * np.linalg.norm(steady.action_TA[:, :3], axis=1).max()
    assert after.state_TS[1:, :3] - after.state_TS[:-1, :3] == pytest.approx(after.action_TA[:-1, :3], abs=1e-5)
    assert any("the clock of the stamps jumps" in text for text in dataset.problems["jumped"])


def test_a_constant_offset_of_the_stamps_changes_no_step(tmp_path: Path) -> None:
    made = factory.Factory()
    moved = [
        factory.Message(m.topic, m.type_name, m.stamp_ns - 10 * 10**9 * (m.topic != factory.REASONING), m.data)
        for m in factory.recording(4.0, wrist=False, offset_s=10.0)
        if m.topic != factory.REASONING
    ] + [made.reasoning(0.05, 1, "put the carrot on the plate")]  # fmt: skip
    off = BagDataset(factory.write(tmp_path / "off", sorted(moved, key=lambda m: m.stamp_ns)))
    (one,), (other,) = off, BagDataset(factory.write(tmp_path / "as_ever", factory.recording(4.0, wrist=False)))
    assert one.action_TA == pytest.approx(other.action_TA, abs=1e-5)
    assert any("begin 10.0 s ahead of the recorder's clock" in text for text in off.problems["off"])


def marked(*marks: tuple[float, dict[str, Any]]) -> list[Any]:
    """The factory's recording with marks instead of the reasoning."""
    made = factory.Factory()
    found = [m for m in factory.recording(5.0, wrist=False) if m.topic != factory.REASONING]
    for time_s, mark in marks:
        text = made.make("std_msgs/msg/String", data=json.dumps(mark))
        found.append(made.pack("/instructvla/episode", time_s, text))
    return sorted(found, key=lambda m: m.stamp_ns)


def test_failures_are_left_out_and_told_unless_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = factory.write(tmp_path / "run", marked(
        (0.1, {"mark": "begin", "instruction": "pick up the can"}), (2.0, {"mark": "end", "success": False}),
        (2.4, {"mark": "begin", "instruction": "pick up the can"}), (4.6, {"mark": "end", "success": True}),
    ))  # fmt: skip
    dataset = BagDataset(bag)
    assert [e.episode_id for e in dataset] == ["2.0"] and [a.success for a in dataset.accounts] == [True]
    assert any("marked a failure were left out; --keep-failures" in text for text in dataset.problems["run"])
    assert main(["data", "from-bag", str(bag), str(tmp_path / "out"), "--keep-failures"]) == 0
    assert "2 episodes" in capsys.readouterr().out


def test_an_episode_without_an_instruction_teaches_nothing(tmp_path: Path) -> None:
    bag = factory.write(tmp_path / "run", marked(
        (0.1, {"mark": "begin", "instruction": " "}), (2.0, {"mark": "end"}),
        (2.4, {"mark": "begin", "instruction": "pick up the can"}), (4.6, {"mark": "end"}),
    ))  # fmt: skip
    dataset = BagDataset(bag)
    assert [e.instruction for e in dataset] == ["pick up the can"]
    assert any("without saying what is shown" in text for text in dataset.problems["run"])


@pytest.mark.parametrize("compression", ["none", "file"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bags_whose_metadata_is_lost_are_found_whatever_their_storage(
    tmp_path: Path, storage: str, compression: str
) -> None:
    bag = factory.write(
        tmp_path / "all" / "run", factory.recording(2.0, wrist=False), storage=storage, compression=compression
    )
    (bag / "metadata.yaml").unlink()
    (file,) = bag.iterdir()
    assert len(BagDataset(tmp_path / "all")) == len(BagDataset(file)) == 1
