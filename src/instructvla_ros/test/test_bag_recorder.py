"""The recorder over DDS, in one process: every message of every topic, JPEG for cameras, marks, parameters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

from instructvla_msgs.msg import ActionChunk  # noqa: E402
from instructvla_msgs.srv import SetInstruction  # noqa: E402
from instructvla_ros.bags.bag import Bag  # noqa: E402
from instructvla_ros.bags.decode import Decoder  # noqa: E402
from instructvla_ros.bags.episodes import find_episodes  # noqa: E402
from instructvla_ros.bags.recorder import Recorder, RecordingPlan  # noqa: E402
from instructvla_ros.bags.roles import find_roles, recorder_note  # noqa: E402
from instructvla_ros.bags.writer import BagWriter  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402

LIMIT_S = 120.0
CAMERA, JOINTS = "/camera/camera/color/image_raw", "/wx250s/joint_states"


class Stage:
    """Two nodes with an executor each: one publishes, one records."""

    def __init__(self, folder: Path, domain: int, plan: RecordingPlan | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.talker = rclpy.create_node("talker", namespace="/instructvla", context=self.context)
        self.listener = rclpy.create_node("listener", namespace="/instructvla", context=self.context)
        self.talker.declare_parameter("checkpoint", "somewhere")
        self.jpegs: list[bytes] = []
        self.writer = BagWriter(folder)
        self.later_s = 0.0
        """Added to the recorder's clock."""
        self.recorder = Recorder(
            self.listener,
            self.writer,
            plan,
            on_jpeg=lambda topic, jpeg, ns: self.jpegs.append(jpeg),
            clock_ns=lambda: time.time_ns() + round(self.later_s * 1e9),
        )
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._spin, args=(node,)) for node in (self.talker, self.listener)]
        for thread in self._threads:
            thread.start()

    def _spin(self, node: Any) -> None:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        while not self._ending.is_set():
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain for {what}: {dict(self.recorder.received)}"
            time.sleep(0.01)

    def publisher(self, kind: Any, topic: str, profile: Any) -> Any:
        """A publisher that the recorder hears already."""
        made = self.talker.create_publisher(kind, topic, profile)
        self.until(lambda: made.get_subscription_count() > 0, f"a subscription to {topic}")
        return made

    def call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.talker.create_client(kind, service)
        assert client.wait_for_service(LIMIT_S)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        return future.result()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self.recorder.close()
        self.talker.destroy_node()
        self.listener.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def stage(tmp_path: Path, new_ros_domain: Callable[[], int]) -> Iterator[Stage]:
    made = Stage(tmp_path / "bag", new_ros_domain())
    yield made
    made.end()


def image(number: int, encoding: str = "rgb8") -> Image:
    pixels = np.full((64, 80, 3), (number % 200, 30, 90), np.uint8)
    message = Image(height=64, width=80, encoding=encoding, step=240, data=pixels.tobytes())
    message.header.stamp.sec = 1000 + number
    return message


def test_every_message_of_reliable_topics_is_recorded_however_fast_they_come(stage: Stage, tmp_path: Path) -> None:
    chunks = stage.publisher(ActionChunk, "action_chunk", qos.ACTION_CHUNK)
    joints = stage.publisher(JointState, JOINTS, 10)
    count = 400
    for number in range(count):
        chunks.publish(ActionChunk(seq=number, horizon=0))
        joints.publish(JointState(name=["waist"], position=[float(number)]))
        if number % 2 == 0:  # a publisher keeps only its own depth for a slow listener: leave the other thread time
            stage.until(lambda n=number: stage.recorder.received.get(JOINTS, 0) >= n - 4, "joint states")
    stage.until(lambda: stage.recorder.received.get(JOINTS, 0) == count, "the last joint state")
    stage.until(lambda: stage.recorder.received.get("/instructvla/action_chunk", 0) == count, "the last chunk")
    stage.recorder.close()
    assert stage.recorder.lost == 0 and stage.writer.state.dropped == 0
    with Bag(tmp_path / "bag") as bag:
        decoder = Decoder(bag)
        assert [decoder.decode(r).seq for r in bag.messages(["/instructvla/action_chunk"])] == list(range(count))
        assert [decoder.decode(r).position[0] for r in bag.messages([JOINTS])] == list(range(count))
        assert bag.problems == ()


def test_cameras_become_jpeg_and_other_pictures_stay_as_they_are(
    tmp_path: Path, new_ros_domain: Callable[[], int]
) -> None:
    stage = Stage(tmp_path / "bag", new_ros_domain(), RecordingPlan(further=("/depth",)))
    try:
        camera = stage.publisher(Image, CAMERA, 10)
        depth = stage.publisher(Image, "/depth", 10)
        for number in range(5):
            camera.publish(image(number))
            depth.publish(Image(height=64, width=80, encoding="16UC1", step=160, data=bytes(64 * 160)))
            stage.until(lambda n=number: stage.recorder.received.get(CAMERA, 0) > n, "the camera")
            stage.until(lambda n=number: stage.recorder.received.get("/depth", 0) > n, "the depth camera")
    finally:
        stage.end()
    with Bag(tmp_path / "bag") as bag:
        assert {name: (t.type_name, t.count) for name, t in bag.topics.items() if t.count} == {
            f"{CAMERA}/compressed": ("sensor_msgs/msg/CompressedImage", 5),
            "/depth": ("sensor_msgs/msg/Image", 5),
        }
        assert find_roles(bag).primary == f"{CAMERA}/compressed" and len(stage.jpegs) == 5
        decoder = Decoder(bag)
        stamps = [decoder.decode(r).header.stamp.sec for r in bag.messages([f"{CAMERA}/compressed"])]
        assert stamps == [1000, 1001, 1002, 1003, 1004]


def test_marks_parameters_and_what_came_too_late_are_in_the_bag(stage: Stage, tmp_path: Path) -> None:
    camera = stage.publisher(Image, CAMERA, 10)
    camera.publish(image(0))
    answer = stage.call(SetInstruction, "recorder/begin_episode", SetInstruction.Request(instruction="pick up the can"))
    assert answer.accepted
    refused = stage.call(SetInstruction, "recorder/begin_episode", SetInstruction.Request(instruction=" "))
    assert not refused.accepted and "empty" in refused.message
    stage.until(lambda: stage.recorder.received.get("/instructvla/episode", 0) == 1, "the first mark")
    stage.later_s = 5.0  # an episode of less than half a second is none
    assert stage.call(SetBool, "recorder/end_episode", SetBool.Request(data=True)).success
    stage.until(lambda: stage.recorder.received.get("/instructvla/episode", 0) == 2, "the second mark")
    stage.until(lambda: stage.recorder._graph.parameters.get("/instructvla/talker"), "the parameters of the other node")
    stage.recorder.close()
    camera.publish(image(1))  # after the end: ignored
    with Bag(tmp_path / "bag") as bag:
        episodes = find_episodes(bag, Decoder(bag), find_roles(bag))
        assert [(e.instruction, e.success) for e in episodes] == [("pick up the can", True)]
        note = recorder_note(bag)
        assert note["parameters"]["/instructvla/talker"]["checkpoint"] == "somewhere"
        assert (note["lost"], note["dropped"], note["images"]) == (0, 0, "jpeg 90")
        assert json.loads(bag.info.custom["instructvla"]) == note
        assert bag.topics[f"{CAMERA}/compressed"].count == 1
