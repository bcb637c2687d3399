"""TFRecord files of TFDS: framing, messages, and the rules of Bridge, Fractal and LIBERO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from robot_data import bridge, episode, fractal, libero, picture, which

from instructvla_training.data.formats.episode import DataError, StateLayout
from instructvla_training.data.formats.rlds import (
    RldsDataset,
    _images,
    absolute_gripper,
    binarize_gripper,
    bridge_numbers,
)
from instructvla_training.data.formats.tfds import RawEpisode
from instructvla_training.data.formats.tfrecord import (
    masked_crc,
    parse_example,
    read_record,
    record_offsets,
    serialize_example,
    write_records,
)


def test_the_masked_checksum_is_that_of_the_format():
    # CRC-32C of "123456789" is 0xe3069283; rotated by 15 and shifted by 0xa282ead8
    crc = 0xE3069283
    assert masked_crc(b"123456789") == (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def test_records_are_found_and_read_in_any_order(tmp_path):
    path = tmp_path / "three"
    records = [b"first", b"", b"x" * 1000]
    assert write_records(path, records) == 3
    offsets = record_offsets(path)
    assert [read_record(path, int(offsets[n])) for n in (2, 0, 1)] == [records[2], records[0], records[1]]


@pytest.mark.parametrize(
    ("at", "message"), [(13, "checksum of the record"), (0, "no TFRecord header"), (9, "no TFRecord header")]
)
def test_a_flipped_bit_is_found(tmp_path, at, message):
    path = tmp_path / "damaged"
    write_records(path, [b"some data"])
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_record(path, int(record_offsets(path)[0]))


def test_a_file_that_was_cut_short_is_found(tmp_path):
    path = tmp_path / "short"
    write_records(path, [b"some data", b"more data"])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="before its last record does"):
        record_offsets(path)


def test_an_example_written_by_hand_is_parsed():
    # Example{features{feature{"a": float_list{1.5, packed}}, {"b": bytes_list{"xy"}}, {"c": int64_list{-1, 7}}}}
    floats = bytes([0x12, 0x06, 0x0A, 0x04]) + np.float32(1.5).tobytes()
    octets = bytes([0x0A, 0x04, 0x0A, 0x02]) + b"xy"
    integers = bytes([0x1A, 0x0D, 0x0A, 0x0B]) + b"\xff" * 9 + b"\x01" + b"\x07"
    entries = b""
    for name, value in ((b"a", floats), (b"b", octets), (b"c", integers)):
        entry = b"\x0a\x01" + name + b"\x12" + bytes([len(value)]) + value
        entries += b"\x0a" + bytes([len(entry)]) + entry
    found = parse_example(b"\x0a" + bytes([len(entries)]) + entries, "by hand")
    assert found["a"].tolist() == [1.5] and found["b"] == [b"xy"] and found["c"].tolist() == [-1, 7]
    assert parse_example(serialize_example(found), "again")["c"].tolist() == [-1, 7]


def test_what_is_no_example_is_named():
    with pytest.raises(DataError, match=r"shard 7: .*expected a tf\.train\.Example"):
        parse_example(b"\x0a\xff", "shard 7")


def test_bridge_loses_its_first_and_last_step_and_acts_by_reached_states(tmp_path):
    dataset = RldsDataset(bridge(tmp_path))
    assert len(dataset) == 4 and dataset.layout is StateLayout.RPY and dataset.dt_s == 0.2
    found = dataset[0]
    made = episode(0, 12)
    assert len(found) == 10
    assert np.allclose(found.state_TS[:, :6], made.state_TS[1:11, :6]) and not found.state_TS[:, 6].any()
    assert np.allclose(found.action_TA[:, :6], made.state_TS[2:, :6] - made.state_TS[1:-1, :6], atol=1e-7)
    assert set(found.action_TA[:, 6]) == {0.0, 1.0}
    assert found.action_TA[4, 6] == 0.0  # the value in between takes what follows: closed
    assert [which(image) for image in found.images["primary"]] == list(range(1, 11))


def test_episodes_have_the_key_of_their_annotations(tmp_path):
    dataset = RldsDataset(bridge(tmp_path))
    keys = {(e.file_path, e.episode_id) for e in dataset}
    assert keys == {("/data/raw/traj_group0.npy", str(n)) for n in (100, 101, 102, 103)}


def test_fractal_gets_an_absolute_gripper_and_an_eight_number_state(tmp_path):
    found = RldsDataset(fractal(tmp_path))[1]
    assert found.action_TA[:, 6].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert found.state_TS.shape == (8, 8) and found.state_TS[:, 6].tolist() == [1.0] * 8
    assert found.state_TS[:, 7].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert np.allclose(found.action_TA[:, :3], episode(1, 8).action_TA[:, :3])
    assert found.instruction == "pick up the can"


def test_libero_has_two_views_and_its_gripper_turned_round(tmp_path):
    dataset = RldsDataset(libero(tmp_path))
    found = dataset[0]
    assert dataset.views == ("primary", "wrist")
    assert np.array_equal(found.action_TA[:, 6], episode(0, 6).action_TA[:, 6])
    assert np.allclose(found.state_TS[0, 6:], [0.04, -0.04])
    assert np.array_equal(found.images["wrist"][2], picture(3))


@pytest.mark.parametrize("suite", ["goal", "10", "object", "spatial"])
def test_a_suite_of_libero_bears_the_name_of_its_folder_whatever_it_calls_itself(tmp_path, suite):
    root = libero(tmp_path, suite)
    for path in (root, root / "1.0.0"):
        dataset = RldsDataset(path)
        assert dataset.name == f"libero_{suite}_no_noops" and dataset.layout is StateLayout.AXIS_ANGLE
    moved = root.rename(tmp_path / "mine")
    assert RldsDataset(moved).name == ("liber_o10" if suite == "10" else f"libero_{suite}")


def test_binarizing_looks_ahead_and_leaves_an_open_end():
    assert binarize_gripper(np.array([1.0, 0.6, 0.4, 0.0, 0.5, 1.0])).tolist() == [1, 0, 0, 0, 1, 1]
    assert binarize_gripper(np.array([1.0, 0.5, 0.4], np.float32))[1:] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("commands", "openings"),
    [([0, 1, 0, -1, 0], [1, 0, 0, 1, 1]), ([0, -1, 0], [0, 1, 1]), ([0, 0.05, 0], [1, 1, 1])],
)
def test_relative_gripper_commands_become_openings(commands, openings):
    assert absolute_gripper(np.array(commands, np.float32)).tolist() == openings


def test_a_dataset_of_another_name_is_refused_and_can_be_named(tmp_path):
    root = bridge(tmp_path)
    info = root / "1.0.0" / "dataset_info.json"
    for path in (root / "1.0.0").glob("bridge_dataset-*"):
        path.rename(path.with_name(path.name.replace("bridge_dataset", "kitchen")))
    info.write_text(info.read_text().replace("bridge_dataset", "kitchen"))
    assert RldsDataset(root).name == "bridge_dataset"  # the folder says so
    root = root.rename(tmp_path / "pantry")
    with pytest.raises(DataError, match="--source"):
        RldsDataset(root)
    assert len(RldsDataset(root, source="bridge")) == 4


def test_a_missing_shard_and_a_missing_split_are_named(tmp_path):
    root = bridge(tmp_path)
    with pytest.raises(DataError, match="found splits \\['train'\\]"):
        RldsDataset(root, split="val")
    next((root / "1.0.0").glob("*-00001-of-00002")).unlink()
    with pytest.raises(DataError, match="is missing; expected 2 shards"):
        RldsDataset(root)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("dataset_info.json", "shardLengths", "shard_lengths", "found no 'shardLengths'"),
        ("features.json", '"featuresDict": {"features"', '"featuresDict": {"things"', "expected the schema"),
        ("features.json", '"state"', '"proprio"', "observation/state is missing"),
        ("features.json", '"dimensions": ["7"]', '"dimensions": ["5"]', "expected"),
    ],
)
def test_another_schema_is_named_with_what_to_do(tmp_path, file, old, new, told):
    root = bridge(tmp_path)
    path = root / "1.0.0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=told):
        list(RldsDataset(root))


def test_bridge_numbers_of_another_length_and_openings_that_are_no_number_are_not_hidden():
    made = episode(0, 8)
    action = made.action_TA.copy()
    action[3, 6] = np.nan
    steps = {"observation/state": np.delete(made.state_TS, 6, 1), "action": action}
    opening = bridge_numbers(RawEpisode(steps, {}, Path("x"), 0))[1][:, 6]
    assert np.isnan(opening).sum() == 1
    with pytest.raises(DataError, match="found 4 actions, expected 7"):
        bridge_numbers(RawEpisode(steps | {"action": action[:5]}, {}, Path("x"), 0))


def test_images_that_are_too_few_for_the_steps_are_named():
    raw = RawEpisode({"observation/image": [b""] * 3}, {}, Path("shard"), 0)
    with pytest.raises(DataError, match="found 3 images in steps/observation/image, expected 4; drop"):
        _images(raw, "observation/image", slice(1, 4))
