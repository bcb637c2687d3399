"""The genuine `ros2 bag` opens, plays and records the same messages as this project, both ways, byte for byte.

Runs where a ROS 2 distribution with rosbag2 is installed, such as the container ros:jazzy; there is no wheel of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from instructvla_ros_bag_factory import Message, qos, recording

pytestmark = [
    pytest.mark.ros,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("ros2") is None, reason="no genuine ros2 bag on this machine"),
]
rclpy = pytest.importorskip("rclpy")
rosbag2_py = pytest.importorskip("rosbag2_py")

from rclpy.event_handler import SubscriptionEventCallbacks  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rosbag2_interfaces.srv import Resume  # noqa: E402

from instructvla_ros.bags.bag import Bag  # noqa: E402
from instructvla_ros.bags.recorder import message_class  # noqa: E402
from instructvla_ros.bags.writer import CLOSED, BagWriter  # noqa: E402

LIMIT_S = 120.0
STORAGES = ("mcap", "sqlite3")
Line = tuple[str, int, bytes]


def lines(messages: Sequence[Message]) -> list[Line]:
    return sorted((m.topic, m.stamp_ns, m.data) for m in messages)


def ours(folder: Path) -> list[Line]:
    with Bag(folder) as bag:
        found = sorted((r.topic, r.stamp_ns, r.data) for r in bag.messages())
        assert bag.problems == ()
    return found


def genuine(folder: Path) -> list[Line]:
    reader = rosbag2_py.SequentialReader()
    reader.open(rosbag2_py.StorageOptions(uri=str(folder)), rosbag2_py.ConverterOptions("", ""))
    found: list[Line] = []
    while reader.has_next():
        topic, data, stamp_ns = reader.read_next()
        found.append((topic, stamp_ns, bytes(data)))
    assert reader.get_metadata().message_count == len(found)
    return sorted(found)


def write(folder: Path, storage: str, messages: Sequence[Message]) -> Path:
    writer = BagWriter(folder, storage=storage)
    for message in messages:
        writer.add_topic(message.topic, message.type_name, [qos()])
        assert writer.put(message.topic, message.stamp_ns, message.data)
    assert writer.close().ended == CLOSED
    return folder


def ros2(*words: str) -> str:
    done = subprocess.run(["ros2", "bag", *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def messages() -> list[Message]:
    """No topic has more than the ten messages that a player keeps for a slow listener."""
    found = recording(2.0, image_hz=4.0)
    joints = [m for m in found if "joint" in m.topic][::12]
    return sorted([m for m in found if "joint" not in m.topic] + joints, key=lambda m: m.stamp_ns)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_genuine_reader_finds_every_byte_of_ours(storage: str, messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", storage, messages)
    assert genuine(folder) == lines(messages)
    told = ros2("info", str(folder))
    assert f"{len(messages)}" in next(line for line in told.splitlines() if line.startswith("Messages:"))


@pytest.mark.parametrize("storage", STORAGES)
def test_ours_finds_every_byte_of_the_genuine_writer(storage: str, messages: list[Message], tmp_path: Path) -> None:
    writer = rosbag2_py.SequentialWriter()
    options = rosbag2_py.StorageOptions(uri=str(tmp_path / "bag"), storage_id=storage)
    writer.open(options, rosbag2_py.ConverterOptions("cdr", "cdr"))
    for number, (topic, kind) in enumerate({m.topic: m.type_name for m in messages}.items()):
        writer.create_topic(rosbag2_py.TopicMetadata(id=number, name=topic, type=kind, serialization_format="cdr"))
    for message in messages:
        writer.write(message.topic, message.data, message.stamp_ns)
    del writer  # closes the bag
    assert ours(tmp_path / "bag") == lines(messages)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", ["file", "message"])
def test_what_ros2_bag_convert_has_compressed_is_read(
    storage: str, mode: str, messages: list[Message], tmp_path: Path
) -> None:
    source, target = write(tmp_path / "bag", storage, messages), tmp_path / "converted"
    (tmp_path / "options.yaml").write_text(
        f"output_bags:\n- uri: {target}\n  storage_id: {storage}\n  all: true\n  all_topics: true\n"
        f"  compression_mode: {mode}\n  compression_format: zstd\n"
    )
    ros2("convert", "-i", str(source), "-o", str(tmp_path / "options.yaml"))
    assert ours(target) == lines(messages)


class Site:
    """A node that spins in a thread, and genuine commands beside it on the same domain."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("site", context=self.context)
        self._environment = os.environ | {"ROS_DOMAIN_ID": str(domain)}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self._started: list[subprocess.Popen[bytes]] = []

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.node)
        while not self._ending.is_set():
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["ros2", "bag", *words, "--disable-keyboard-controls"], env=self._environment, stdin=subprocess.DEVNULL
        )
        self._started.append(process)
        return process

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain for {what}"
            time.sleep(0.02)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._ending.set()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def site(new_ros_domain: Callable[[], int]) -> Iterator[Site]:
    made = Site(new_ros_domain())
    yield made
    made.end()


@pytest.mark.parametrize("storage", STORAGES)
def test_ros2_bag_play_sends_every_message_of_ours(
    storage: str, messages: list[Message], site: Site, tmp_path: Path
) -> None:
    folder = write(tmp_path / "bag", storage, messages)
    heard: list[tuple[str, bytes]] = []
    matched: set[str] = set()
    topics = {m.topic: m.type_name for m in messages}
    for topic, kind in topics.items():
        events = SubscriptionEventCallbacks(matched=lambda _, t=topic: matched.add(t), use_default_callbacks=False)
        site.node.create_subscription(
            message_class(kind), topic, lambda data, t=topic: heard.append((t, bytes(data))), QoSProfile(depth=50),
            raw=True, event_callbacks=events,
        )  # fmt: skip
    player = site.start("play", str(folder), "--start-paused")
    site.until(lambda: matched == set(topics), "the player's topics")
    resume = site.node.create_client(Resume, "/rosbag2_player/resume")
    site.until(resume.service_is_ready, "the player's service")
    answer = resume.call_async(Resume.Request())
    site.until(answer.done, "the player's answer")
    assert player.wait(LIMIT_S) == 0
    site.until(lambda: len(heard) >= len(messages), f"{len(messages)} messages, not {len(heard)}")
    assert sorted(heard) == sorted((m.topic, m.data) for m in messages)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_ros2_bag_record_has_heard_is_read_here(
    storage: str, messages: list[Message], site: Site, tmp_path: Path
) -> None:
    topics = {m.topic: m.type_name for m in messages}
    publishers = {t: site.node.create_publisher(message_class(k), t, QoSProfile(depth=50)) for t, k in topics.items()}
    recorder = site.start("record", "-s", storage, "-o", str(tmp_path / "bag"), "--topics", *topics)
    site.until(lambda: all(p.get_subscription_count() for p in publishers.values()), "the recorder")
    for message in messages:
        publishers[message.topic].publish(message.data)
    for publisher in publishers.values():
        assert publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=LIMIT_S))
    recorder.send_signal(signal.SIGINT)
    recorder.wait(LIMIT_S)
    assert sorted((t, d) for t, _, d in ours(tmp_path / "bag")) == sorted((m.topic, m.data) for m in messages)
