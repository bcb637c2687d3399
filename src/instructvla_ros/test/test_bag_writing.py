"""What the writer leaves: definitions, hashes and metadata as rosbag2's own, and an end that is always clean."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from instructvla_ros_bag_factory import JOINTS, PRIMARY, START_NS, Factory, Message, genuine_qos, qos, recording
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from instructvla_ros.bags import pictures
from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.definitions import DefinitionError, definition_of, typestore_of
from instructvla_ros.bags.disk import DiskGuard, DiskLimits, Space
from instructvla_ros.bags.writer import BagWriter
from instructvla_ros.policy.ingest import compressed_to_rgb

GENUINE_FIELDS = {
    "version", "storage_identifier", "duration", "starting_time", "message_count", "topics_with_message_count",
    "compression_format", "compression_mode", "relative_file_paths", "files", "custom_data", "ros_distro",
}  # fmt: skip
"""Fields of metadata.yaml of version 9 (rosbag2 of Jazzy)."""


class Disk:
    """Free bytes of a disk that fills while it is looked at."""

    def __init__(self, *free: int) -> None:
        self.free = list(free)

    def __call__(self, folder: Path) -> int:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]


def store(writer: BagWriter, messages: list[Message]) -> None:
    for message in messages:
        writer.add_topic(message.topic, message.type_name, [qos()])
        writer.put(message.topic, message.stamp_ns, message.data)


def guard(folder: Path, *free: int) -> DiskGuard:
    return DiskGuard(folder, DiskLimits(check_every_bytes=1), Disk(*free))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_was_put_is_in_the_bag_byte_for_byte(storage: str, tmp_path: Path) -> None:
    messages = recording(1.0)
    writer = BagWriter(tmp_path / "bag", storage=storage)
    store(writer, messages)
    writer.note("instructvla", json.dumps({"roles": {"primary": PRIMARY}}))
    state = writer.close()
    assert (state.messages, state.dropped, state.ended) == (len(messages), 0, "closed")
    written = sorted((m.stamp_ns, m.topic, m.data) for m in messages)
    with Bag(tmp_path / "bag") as bag:
        assert sorted((r.stamp_ns, r.topic, r.data) for r in bag.messages()) == written
        assert bag.problems == () and json.loads(bag.info.custom["instructvla"])["roles"] == {"primary": PRIMARY}
    with Reader(tmp_path / "bag") as reader:
        assert sorted((stamp, c.topic, bytes(data)) for c, stamp, data in reader.messages()) == written


def test_metadata_has_the_fields_of_jazzy_and_profiles_in_its_words(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag")
    store(writer, recording(0.3))
    writer.close()
    about = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert set(about) == GENUINE_FIELDS and about["version"] == 9 and about["storage_identifier"] == "mcap"
    assert about["compression_mode"] == "" and about["relative_file_paths"] == ["bag.mcap"]
    joints = next(t for t in about["topics_with_message_count"] if t["topic_metadata"]["name"] == JOINTS)
    assert set(joints["topic_metadata"]) == {
        "name", "type", "serialization_format", "offered_qos_profiles", "type_description_hash",
    }  # fmt: skip
    assert joints["topic_metadata"]["offered_qos_profiles"] == [genuine_qos()]
    assert joints["topic_metadata"]["type_description_hash"].startswith("RIHS01_")


def test_the_mcap_file_is_compressed_indexed_and_described_as_rosbag2_does(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag")
    store(writer, recording(1.0))
    writer.close()
    with open(tmp_path / "bag/bag.mcap", "rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert summary is not None and {c.compression for c in summary.chunk_indexes} == {"zstd"}
        for channel in summary.channels.values():
            schema = summary.schemas[channel.schema_id]
            assert channel.message_encoding == "cdr" and schema.encoding == "ros2msg"
            assert schema.data.decode() == definition_of(schema.name)[0]
            assert yaml.safe_load(channel.metadata["offered_qos_profiles"]) == [genuine_qos()]
        (found,) = reader.iter_metadata()
        assert found.name == "rosbag2" and "message_count" in found.metadata["serialized_metadata"]


def test_definitions_hold_the_installed_files_word_for_word_with_their_comments() -> None:
    text, _ = definition_of("instructvla_msgs/msg/Reasoning")
    parts = re.split(r"\n={80}\n", text)
    assert parts[0].startswith("# What the vision-language model says") and "uint32 instruction_id" in parts[0]
    assert [part.partition("\n")[0] for part in parts[1:]] == ["MSG: std_msgs/Header", "MSG: builtin_interfaces/Time"]


@pytest.mark.parametrize(
    "name", ["sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage", "diagnostic_msgs/msg/DiagnosticArray"]
)
def test_hashes_equal_those_of_the_distribution(name: str) -> None:
    from rosbags.typesys import Stores, get_typestore

    assert definition_of(name)[1] == get_typestore(Stores.ROS2_JAZZY).hash_rihs01(name)


def test_hashes_of_our_messages_equal_those_that_the_generators_computed() -> None:
    import sys

    folder = Path(sys.prefix) / "share" / "instructvla_msgs" / "msg"
    described = sorted(folder.glob("*.json"))
    if not described:
        pytest.skip("the interfaces are not installed beside this Python")
    for path in described:
        name = f"instructvla_msgs/msg/{path.stem}"
        hashes = {h["type_name"]: h["hash_string"] for h in json.loads(path.read_text())["type_hashes"]}
        assert definition_of(name)[1] == hashes[name]


def test_a_type_that_is_not_installed_is_named() -> None:
    with pytest.raises(DefinitionError, match="install the package vendor_msgs"):
        definition_of("vendor_msgs/msg/Secret")
    with pytest.raises(DefinitionError, match="no message type"):
        definition_of("nonsense")
    with pytest.raises(DefinitionError, match="cannot be understood"):
        typestore_of({"a_msgs/msg/B": ("float32 [", "ros2msg")})


def test_a_bag_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(FileExistsError, match="never written over"):
        BagWriter(tmp_path / "bag")


def test_f25_the_recorder_warns_below_two_gigabytes_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = BagWriter(tmp_path / "bag", guard=guard(tmp_path, 3_000_000_000, 1_900_000_000))
    store(writer, recording(0.3))
    state = writer.close()
    assert state.low_space and state.ended == "closed" and state.messages == len(recording(0.3))
    assert caplog.text.count("only 1.9 GB are free") == 1, "said once"


def test_f25_the_recorder_stops_cleanly_below_five_hundred_megabytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = recording(1.0)
    writer = BagWriter(tmp_path / "bag", guard=guard(tmp_path, *[10**10] * 10, 499_000_000))
    store(writer, messages)
    state = writer.close()
    assert "only 499 MB are free (F25)" in state.ended and 0 < state.messages < len(messages)
    assert not writer.put(messages[0].topic, 0, b"") and "recording ended" in caplog.text
    with Bag(tmp_path / "bag") as bag:
        assert bag.problems == () and bag.info.message_count == state.messages == len(list(bag.messages()))


def test_f25_recording_does_not_begin_on_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="only 400 MB are free"):
        BagWriter(tmp_path / "bag", guard=guard(tmp_path, 400_000_000))
    assert not (tmp_path / "bag").exists()


def test_f25_a_disk_that_refuses_ends_the_recording_and_what_was_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = recording(4.0)
    writer = BagWriter(tmp_path / "bag")
    real, calls = writer._writer.write, iter(range(10**6))

    def refusing(*arguments: Any) -> None:
        if next(calls) >= 150:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(writer._writer, "write", refusing)
    store(writer, messages)
    state = writer.close()
    assert state.messages == 150 and "No space left on device" in state.ended
    with Bag(tmp_path / "bag") as bag:
        assert len(list(bag.messages())) == 150


def test_space_is_looked_at_after_so_many_bytes_and_not_at_every_message(tmp_path: Path) -> None:
    disk = Disk(10**10, 10**10, 1)
    watched = DiskGuard(tmp_path, DiskLimits(check_every_bytes=100), disk)
    assert [watched.wrote(40) for _ in range(6)] == [Space.ENOUGH] * 6 and watched.wrote(300) is Space.FULL


def test_a_queue_that_is_full_drops_and_counts_and_never_blocks(tmp_path: Path) -> None:
    message = recording(0.1)[0]
    hold = threading.Event()
    writer = BagWriter(tmp_path / "bag", queue_bytes=1000)
    writer.add_topic(message.topic, message.type_name)

    def slow() -> bytes:
        hold.wait(60.0)
        return message.data

    assert writer.put_later(message.topic, 1, slow, 600)
    assert writer.put(message.topic, 2, message.data[:300]) and not writer.put(message.topic, 3, bytes(300))
    hold.set()
    state = writer.close()
    assert (state.messages, state.dropped) == (2, 1)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_pictures_are_compressed_with_their_colours_and_stamps(encoding: str) -> None:
    factory = Factory()
    pixels = factory.picture(0.5)
    shown = pixels
    if encoding == "mono8":
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
        shown = pixels
    data = {"rgb8": pixels, "bgr8": pixels[..., ::-1], "mono8": pixels[..., :1]}[encoding]
    channels = data.shape[2]
    message = factory.make(
        "sensor_msgs/msg/Image", header=factory.header(0.5, "cam"), height=96, width=128, encoding=encoding,
        is_bigendian=0, step=128 * channels, data=np.ascontiguousarray(data).reshape(-1),
    )  # fmt: skip
    raw = factory.pack(PRIMARY, 0.5, message).data
    image = pictures.read_image(raw)
    assert pictures.can_compress(image)
    packed, jpeg = pictures.compress(image)
    back = factory.store.deserialize_cdr(packed, pictures.COMPRESSED)
    assert bytes(back.data) == jpeg and back.header.frame_id == "cam" and back.format.startswith(encoding)
    assert back.header.stamp == message.header.stamp
    assert np.abs(compressed_to_rgb(back).astype(int) - shown).mean() < 6.0


def test_depth_images_are_no_jpeg() -> None:
    factory = Factory()
    message = factory.make(
        "sensor_msgs/msg/Image", header=factory.header(0.0), height=64, width=64, encoding="16UC1", is_bigendian=0,
        step=128, data=np.zeros(64 * 128, np.uint8),
    )  # fmt: skip
    assert not pictures.can_compress(message)


def test_every_message_that_is_not_written_is_counted_whatever_it_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = recording(0.1)[0]
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic(message.topic, message.type_name)

    def no_picture() -> bytes:
        return cv2.imencode(".jpg", np.zeros((5, 0, 3), np.uint8))[1].tobytes()

    def odd() -> bytes:
        raise ImportError("what nobody thought of")

    for make in (no_picture, odd, lambda: message.data):
        assert writer.put_later(message.topic, message.stamp_ns, make, 1000)
    writer.put("/never_announced", 1, b"\0\1\0\0")
    writer.wait_below(0)
    state = writer.close()
    assert (state.messages, state.dropped, state.ended) == (1, 3, "closed") and "was left out" in caplog.text


def test_f25_messages_that_wait_when_the_disk_is_full_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BagWriter(tmp_path / "bag", storage="sqlite3")

    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(writer._writer, "add_connection", full)
    writer.add_topic("/x", "std_msgs/msg/String")
    taken = sum(writer.put("/x", number, b"\0" * 100) for number in range(5))
    state = writer.close()
    assert state.dropped == taken and "disk is full" in state.ended


def test_f25_what_a_power_cut_leaves_is_read_up_to_the_last_second(tmp_path: Path) -> None:
    factory, clock_s = Factory(), [0.0]
    writer = BagWriter(tmp_path / "bag", clock=lambda: clock_s[0])
    writer.add_topic(JOINTS, "sensor_msgs/msg/JointState")
    message = factory.joints(0.0)
    for number in range(3000):  # 30 s at 100 Hz, of which no block becomes full by itself
        clock_s[0] = number / 100
        writer.put(JOINTS, START_NS + number * 10**7, message.data)
        writer.wait_below(0)
    shutil.copytree(tmp_path / "bag", tmp_path / "left")
    writer.close()
    with Bag(tmp_path / "left") as bag:
        assert bag.duration_s > 28.9 and bag.topics[JOINTS].count == len(list(bag.messages()))
    with Bag(tmp_path / "bag") as bag:
        assert bag.topics[JOINTS].count == 3000 and bag.problems == ()
