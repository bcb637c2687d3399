"""What is recorded of which graph, and that an incomplete recording never passes for a complete one; without DDS."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from instructvla_ros_bag_factory import Factory, recording

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from rcl_interfaces.msg import ListParametersResult  # noqa: E402
from rcl_interfaces.srv import GetParameters, ListParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.task import Future  # noqa: E402

from instructvla_ros.bags import recorder as recorder_module  # noqa: E402
from instructvla_ros.bags.bag import Bag  # noqa: E402
from instructvla_ros.bags.recorder import Recorder, RecordingPlan  # noqa: E402
from instructvla_ros.bags.roles import recorder_note  # noqa: E402
from instructvla_ros.bags.writer import BagWriter  # noqa: E402
from instructvla_ros.cli import record, ros_client  # noqa: E402
from instructvla_ros.nodes.recorder_node import RecorderNode  # noqa: E402
from instructvla_ros.nodes.replay_node import ReplayNode  # noqa: E402

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


class Service:
    """A client that nobody answers until the test does."""

    ready = False

    def __init__(self) -> None:
        self.answers: list[Future] = []

    def service_is_ready(self) -> bool:
        return self.ready

    def call_async(self, request: Any) -> Future:
        self.answers.append(Future())
        return self.answers[-1]


class Node:
    """A graph with these topics (name -> type); `heard` has the recorder's callbacks, `nodes` are those there are,
    `clients` those that were not destroyed."""

    def __init__(self, topics: dict[str, str]) -> None:
        self.topics = topics
        self.heard: dict[str, Callable[[bytes], None]] = {}
        self.nodes: list[str] = []
        self.clients: dict[str, Service] = {}

    def resolve_topic_name(self, topic: str) -> str:
        return topic if topic.startswith("/") else f"/instructvla/{topic}"

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [(name, [kind]) for name, kind in reversed(self.topics.items())]

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return [SimpleNamespace(qos_profile=QoSProfile(depth=10))]

    def create_subscription(self, kind: Any, topic: str, callback: Any, *_: Any, **__: Any) -> str:
        self.heard[topic] = callback
        return topic

    def get_namespace(self) -> str:
        return "/instructvla"

    def get_fully_qualified_name(self) -> str:
        return "/instructvla/recorder"

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return [(name, "/instructvla") for name in self.nodes]

    def create_client(self, kind: Any, name: str) -> Service:
        return self.clients.setdefault(name, Service())

    def destroy_client(self, client: Service) -> None:
        del self.clients[next(name for name, one in self.clients.items() if one is client)]

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=lambda *_, **__: None, info=lambda *_, **__: None)

    def create_publisher(self, *_: Any) -> None: ...
    def create_service(self, *_: Any) -> None: ...
    def create_timer(self, *_: Any) -> None: ...
    def destroy_timer(self, *_: Any) -> None: ...
    def destroy_subscription(self, *_: Any) -> None: ...


@pytest.mark.parametrize("first", [["/cam/image_raw"], ["/cam/image_raw/compressed"], []])
def test_the_pictures_of_a_camera_are_recorded_once_though_its_driver_compresses_them_too(
    first: list[str], tmp_path: Path
) -> None:
    kinds = {"/cam/image_raw": IMAGE, "/cam/image_raw/compressed": COMPRESSED, "/depth/image": IMAGE}
    node = Node({name: kinds[name] for name in first or kinds})
    made = Recorder(node, BagWriter(tmp_path / "bag"), RecordingPlan(everything=True, camera_topic="/cam/image_raw"))
    node.topics = kinds
    made.scan()
    factory = Factory()
    for number in range(10):
        for topic in ("/cam/image_raw", "/cam/image_raw/compressed"):
            packed = factory.image(topic, number / 10, compressed=topic.endswith("compressed"))
            node.heard.get(topic, lambda _: None)(packed.data)
    made.close()
    with Bag(tmp_path / "bag") as bag:
        assert {name: topic.count for name, topic in bag.topics.items() if topic.count} == {
            "/cam/image_raw/compressed": 10
        }
        assert recorder_note(bag)["roles"]["primary"] == "/cam/image_raw/compressed"


def test_what_any_arm_is_told_is_recorded(tmp_path: Path) -> None:
    node = Node({
        "/fr3_arm_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
        "/target_pose": "geometry_msgs/msg/PoseStamped", "/goal_pose": "geometry_msgs/msg/PoseStamped",
        "/servo_node/delta_twist_cmds": "geometry_msgs/msg/TwistStamped", "/joint_states": "sensor_msgs/msg/JointState",
    })  # fmt: skip
    Recorder(node, BagWriter(tmp_path / "bag"), RecordingPlan("/joint_states")).close()
    assert sorted(node.heard) == [
        "/fr3_arm_controller/joint_trajectory", "/joint_states", "/servo_node/delta_twist_cmds", "/target_pose"
    ]  # fmt: skip


def test_a_node_is_asked_for_its_parameters_once_and_only_while_it_is_there(tmp_path: Path) -> None:
    node = Node({})
    made = Recorder(node, BagWriter(tmp_path / "bag"))
    node.nodes = ["recorder", "controller", "instructvla_cli_4711"]
    services = [f"/instructvla/controller/{what}" for what in ("list_parameters", "get_parameters")]
    made.scan()
    assert list(node.clients) == services, "a command of a moment and the recorder itself are not asked"
    node.nodes = []
    made.scan()
    assert node.clients == {}, "it ended before it could be asked"
    node.nodes = ["controller"]
    made.scan()
    listing, getting = (node.clients[name] for name in services)
    listing.ready = getting.ready = True
    made.scan()
    made.scan()
    (listed,) = listing.answers
    listed.set_result(ListParameters.Response(result=ListParametersResult(names=["rate_hz"])))
    (values,) = getting.answers
    values.set_result(GetParameters.Response(values=[Parameter("rate_hz", value=5.0).get_parameter_value()]))
    made.scan()
    made.scan()
    assert node.clients == {} and made._graph.asked == {}
    made.close()
    with Bag(tmp_path / "bag") as bag:
        assert recorder_note(bag)["parameters"] == {"/instructvla/controller": {"rate_hz": 5.0}}


def test_f25_a_disk_that_is_full_when_the_bag_is_closed_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def __init__(self, *_: Any) -> None:
            self.node = None

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

    class Ending:
        lost = 0
        received: dict[str, int] = {}  # noqa: RUF012

        def __init__(self, node: Any, writer: BagWriter, plan: RecordingPlan) -> None:
            self.writer = writer

        def close(self) -> Any:
            def full() -> None:
                raise OSError(28, "No space left on device")

            self.writer._writer.close = full  # type: ignore[method-assign]
            return self.writer.close()

    monkeypatch.setattr(ros_client, "RosClient", Client)
    monkeypatch.setattr(recorder_module, "Recorder", Ending)
    arguments = argparse.Namespace(
        output=tmp_path / "bag", joint_states_topic="/j/j", camera_topic="/c/c", wrist_topic="/w/w", topics=[],
        all=False, raw_images=False, storage="mcap", seconds=0.01, namespace="/x",
    )  # fmt: skip
    assert record.record(arguments) == 1
    assert "the end of the bag could not be written" in capsys.readouterr().out


@pytest.mark.parametrize("whole", [True, False])
def test_the_recorder_node_ends_with_an_error_where_the_recording_is_not_complete(
    whole: bool, tmp_path: Path, new_ros_domain: Callable[[], int]
) -> None:
    rclpy.init(args=["--ros-args", "-p", f"output:={tmp_path / 'bag'}"], domain_id=new_ros_domain())
    try:
        node = RecorderNode()
        message = recording(0.1)[0]
        node._writer.add_topic(message.topic, message.type_name)
        node._writer.put(message.topic, message.stamp_ns, message.data)
        if not whole:
            node._writer.put("/never_announced", 1, b"\0\1\0\0")
        node.destroy_node()
        assert node.failed is not whole
    finally:
        rclpy.try_shutdown()


def test_the_replay_node_ends_with_an_error_whatever_its_thread_raised() -> None:
    def raising() -> None:
        raise TypeError("what nobody thought of")

    said: list[str] = []
    node = SimpleNamespace(
        _values={"live": False}, failed=False, _evaluate=raising, _play=raising,
        get_logger=lambda: SimpleNamespace(fatal=said.append),
    )  # fmt: skip
    with pytest.raises(TypeError):
        ReplayNode._run(node)  # type: ignore[arg-type]
    assert node.failed
