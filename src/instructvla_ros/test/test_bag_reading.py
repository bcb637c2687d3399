"""Bags of every storage and compression are read alike; broken ones as far as they go, with an account of the rest."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
from instructvla_ros_bag_factory import (
    JOINTS,
    PRIMARY,
    REASONING,
    START_NS,
    Factory,
    Message,
    cut,
    recording,
    write,
    write_genuine_mcap,
)  # fmt: skip
from rosbags.rosbag2 import Reader

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder, ahead
from instructvla_ros.bags.types import BagError, Record


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return recording(2.0)


def same(read: list[Record], written: list[Message]) -> bool:
    """Same bytes, topics, types and times; messages of one instant in any order."""
    left = sorted((r.stamp_ns, r.topic, r.type_name, r.data) for r in read)
    return left == sorted((m.stamp_ns, m.topic, m.type_name, m.data) for m in written)


def said(bag: Bag) -> str:
    return " | ".join(str(problem) for problem in bag.problems)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", ["none", "storage", "file", "message"])
def test_every_storage_and_compression_gives_the_same_messages(
    storage: str, compression: str, messages: list[Message], tmp_path: Path
) -> None:
    if (storage, compression) == ("sqlite3", "storage"):
        pytest.skip("chunks are compressed in MCAP only")
    with Bag(write(tmp_path / "bag", messages, storage=storage, compression=compression)) as bag:
        read = list(bag.messages())
        assert same(read, messages) and [r.stamp_ns for r in read] == sorted(r.stamp_ns for r in read)
        assert bag.problems == () and bag.info.message_count == len(messages)
        assert bag.topics[JOINTS].count == 100 and 49 < bag.topics[JOINTS].rate_hz < 51
        assert bag.start_ns == START_NS and 1.9 < bag.duration_s < 2.0


@pytest.mark.parametrize(
    "layout", [{}, {"chunked": False}, {"compression": "lz4"}, {"compression": "zstd", "split": 3}]
)
def test_bags_laid_out_as_jazzy_writes_them_are_read(layout: dict, messages: list[Message], tmp_path: Path) -> None:
    with Bag(write_genuine_mcap(tmp_path / "run", messages, **layout)) as bag:
        assert same(list(bag.messages()), messages) and bag.problems == ()
        assert bag.info.distribution == "jazzy" and bag.info.version == 9


def test_a_bag_that_is_read_by_the_rosbags_library_says_the_same_there(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", messages, compression="storage")
    with Bag(folder) as ours, Reader(folder) as theirs:
        read = [Record(c.topic, c.msgtype, stamp, bytes(data)) for c, stamp, data in theirs.messages()]
        key = lambda r: (r.stamp_ns, r.topic, r.data)  # noqa: E731
        assert sorted(read, key=key) == sorted(ours.messages(), key=key)


def test_a_single_file_without_its_folder_is_a_bag_too(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", messages)
    with Bag(folder / "bag.mcap") as bag:
        assert same(list(bag.messages()), messages) and bag.problems == ()


def test_topics_and_times_narrow_what_is_read(messages: list[Message], tmp_path: Path) -> None:
    for storage in ("mcap", "sqlite3"):
        with Bag(write(tmp_path / storage, messages, storage=storage)) as bag:
            some = list(bag.messages([JOINTS], START_NS + 500_000_000, START_NS + 1_000_000_000))
            assert len(some) == 25 and {r.topic for r in some} == {JOINTS}
            assert list(bag.messages(["/nobody"])) == []


def test_decoding_gives_the_fields_that_were_stored(messages: list[Message], tmp_path: Path) -> None:
    with Bag(write(tmp_path / "bag", messages)) as bag:
        decoder = Decoder(bag)
        decoded = [decoder.decode(r) for r in bag.messages([REASONING])]
        assert [m.instruction for m in decoded] == ["put the carrot on the plate"] * 2 and decoded[1].final
        image = decoder.decode(next(bag.messages([PRIMARY])))
        assert (image.height, image.width, image.encoding) == (96, 128, "rgb8")
        assert np.array_equal(image.data.reshape(96, 128, 3), Factory().picture(0.0))


def test_f25_a_file_that_was_cut_off_is_read_up_to_the_cut(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", messages, compression="storage")
    (folder / "metadata.yaml").unlink()
    cut(folder / "bag.mcap", 0.6)
    with Bag(folder) as bag:
        read = list(bag.messages())
        assert 0 < len(read) < len(messages) and same(read, sorted(messages, key=lambda m: m.stamp_ns)[: len(read)])
        assert "cut off" in said(bag) and "metadata.yaml: is missing" in said(bag)


def test_f25_a_cut_file_without_chunks_loses_only_its_last_message(messages: list[Message], tmp_path: Path) -> None:
    folder = write_genuine_mcap(tmp_path / "run", messages, chunked=False)
    cut(folder / "run_0.mcap", 0.5)
    with Bag(folder) as bag:
        read = list(bag.messages())
        assert same(read, messages[: len(read)]) and len(read) > 0.4 * len(messages)
        assert f"says {len(messages)} messages, {len(read)} were found" in said(bag)


def test_f25_a_damaged_chunk_is_left_out_and_named(messages: list[Message], tmp_path: Path) -> None:
    folder = write_genuine_mcap(tmp_path / "bag", messages, compression="zstd")
    file = folder / "bag_0.mcap"
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 500] = bytes(500)
    file.write_bytes(data)
    with Bag(folder) as bag:
        read = list(bag.messages())
        assert 0 < len(read) < bag.info.message_count and "damaged and was left out" in said(bag)


def test_f25_a_damaged_database_is_read_as_far_as_it_goes(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", messages, storage="sqlite3")
    file = folder / "bag.db3"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = bytes(40_000)
    file.write_bytes(data)
    with Bag(folder) as bag:
        read = list(bag.messages())
        assert 0 < len(read) < len(messages) and bag.problems
    cut(file, 0.4)
    try:
        with Bag(folder) as bag:
            assert len(list(bag.messages())) < len(messages) and bag.problems
    except BagError as error:
        assert "bag.db3" in str(error)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + bytes(range(256)) * 4])
def test_f25_what_is_no_mcap_file_is_named_and_never_raises_anything_else(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.mcap"
    file.write_bytes(content)
    try:
        with Bag(file) as bag:
            assert list(bag.messages()) == [] and "holds no messages" in said(bag)
    except BagError as error:
        assert "x.mcap" in str(error) and "expected" in str(error)


def test_f25_random_damage_never_raises(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    whole = {s: write(tmp_path / s, recording(0.6, wrist=False), storage=s, compression=c)
             for s, c in (("mcap", "storage"), ("sqlite3", "none"))}  # fmt: skip
    for number in range(30):
        storage = ("mcap", "sqlite3")[number % 2]
        folder = tmp_path / f"copy_{number}"
        shutil.copytree(whole[storage], folder)
        file = next(p for p in folder.iterdir() if p.suffix in (".mcap", ".db3"))
        data = bytearray(file.read_bytes())
        for place in random.integers(0, len(data), 12):
            data[place] = random.integers(0, 256)
        file.write_bytes(data)
        try:
            with Bag(folder) as bag:
                decoder = Decoder(bag)
                for record in bag.messages():
                    decoder.decode(record)
        except BagError:
            continue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("rosbag2_bagfile_information: {version: x}", "cannot be read"),
        ("rosbag2_bagfile_information: {version: 12, storage_identifier: mcap, message_count: 116}", "newer than 9"),
        ("rosbag2_bagfile_information: {version: 9, storage_identifier: mcap, message_count: 3}", "says 3 messages"),
        (
            "rosbag2_bagfile_information: {version: 9, storage_identifier: mcap, message_count: 1, "
            "relative_file_paths: [gone.mcap]}",
            "gone.mcap: is named by metadata.yaml but is not there",
        ),
    ],
)
def test_f25_metadata_that_is_wrong_does_not_hide_the_messages(
    text: str, expected: str, messages: list[Message], tmp_path: Path
) -> None:
    folder = write(tmp_path / "bag", messages)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    with Bag(folder) as bag:
        assert same(list(bag.messages()), messages) and expected in said(bag)


def test_f25_a_type_that_nobody_knows_is_named_and_the_rest_is_read(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", messages, storage="sqlite3")
    database = sqlite3.connect(folder / "bag.db3")
    database.execute("UPDATE topics SET type = 'vendor_msgs/msg/Secret' WHERE name = ?", (JOINTS,))
    database.execute("DELETE FROM message_definitions")
    database.commit()
    database.close()
    with Bag(folder) as bag:
        decoder = Decoder(bag)
        decoded = [(r.topic, decoder.decode(r)) for r in bag.messages()]
        assert all((message is None) == (topic == JOINTS) for topic, message in decoded)
        assert f"{JOINTS}: type vendor_msgs/msg/Secret has no definition" in said(bag)


@pytest.mark.parametrize(("field", "told"), [(b" width", "Image.width"), (b" stamp\n", "Header.stamp")])
def test_f25_a_definition_that_lacks_fields_is_named_and_its_messages_are_left_out(
    field: bytes, told: str, tmp_path: Path
) -> None:
    images = [m for m in recording(1.0) if m.topic == PRIMARY]
    folder = write_genuine_mcap(tmp_path / "run", images, chunked=False)
    file = folder / "run_0.mcap"
    data = file.read_bytes()
    assert field in data
    file.write_bytes(data.replace(field, field.replace(b"t", b"q")))
    with Bag(folder) as bag:
        decoder = Decoder(bag)
        assert {decoder.decode(record) for record in bag.messages()} == {None}
        assert f"defines sensor_msgs/msg/Image without {told}" in said(bag)


def test_an_empty_bag_and_an_empty_folder_say_so(tmp_path: Path) -> None:
    with Bag(write(tmp_path / "bag", [])) as bag:
        assert list(bag.messages()) == [] and "holds no messages" in said(bag) and bag.duration_s == 0.0
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagError, match=r"holds no \.mcap or \.db3 file"):
        Bag(tmp_path / "folder")
    with pytest.raises(BagError, match="does not exist"):
        Bag(tmp_path / "nowhere")


def test_work_done_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(ahead(range(100), lambda n: n * n)) == [n * n for n in range(100)]
    with pytest.raises(ZeroDivisionError):
        list(ahead([1, 0], lambda n: 1 / n))


def test_f25_a_message_of_an_impossible_time_is_left_out_and_the_others_are_read(
    messages: list[Message], tmp_path: Path
) -> None:
    folder = write_genuine_mcap(tmp_path / "run", messages, chunked=False)
    file = folder / "run_0.mcap"
    data = bytearray(file.read_bytes())
    place = data.index(struct.pack("<Q", messages[40].stamp_ns))
    data[place : place + 8] = b"\xff" * 8
    file.write_bytes(data)
    with Bag(folder) as bag:
        assert len(list(bag.messages())) == len(messages) - 1
        assert "messages with impossible times were left out" in said(bag)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("UPDATE messages SET timestamp = NULL WHERE id = 7", "rows without number, topic or time were left out"),
        ("UPDATE messages SET topic_id = 'x' WHERE id = 7", "rows without number, topic or time were left out"),
        ("UPDATE messages SET data = 'text' WHERE id = 7", "rows whose message is no bytes were left out"),
        ("INSERT INTO topics SELECT 99, NULL, type, serialization_format, offered_qos_profiles, type_description_hash"
         " FROM topics LIMIT 1", "topics without name or type were left out"),
    ],
)  # fmt: skip
def test_f25_rows_of_a_database_that_hold_nonsense_are_left_out_one_by_one(
    spoil: str, told: str, messages: list[Message], tmp_path: Path
) -> None:
    folder = write(tmp_path / "run", messages, storage="sqlite3")
    (file,) = folder.glob("*.db3")
    with sqlite3.connect(file) as database:  # a table that allows what a damaged page can hold
        for table in ("messages", "topics"):
            database.execute(f"CREATE TABLE spoilt AS SELECT * FROM {table}")
            database.execute(f"DROP TABLE {table}")
            database.execute(f"ALTER TABLE spoilt RENAME TO {table}")
        database.execute(spoil)
    database.close()
    with Bag(folder) as bag:
        assert len(list(bag.messages())) == len(messages) - (not spoil.startswith("INSERT")) and told in said(bag)
