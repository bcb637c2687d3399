"""The recorder over DDS, in one process: every message of every topic, JPEG for cameras, marks, parameters; and what
the live nodes' callbacks and workers make of what is heard against what is read from the bag, bit for bit."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from instructvla_ros_fakes import FakeRuntime

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

from instructvla_msgs.msg import ActionChunk, Reasoning  # noqa: E402
from instructvla_msgs.srv import SetInstruction  # noqa: E402
from instructvla_ros.bags.bag import Bag  # noqa: E402
from instructvla_ros.bags.decode import Decoder  # noqa: E402
from instructvla_ros.bags.episodes import find_episodes  # noqa: E402
from instructvla_ros.bags.events import EventReader, ImageEvent  # noqa: E402
from instructvla_ros.bags.parameters import parameter_values  # noqa: E402
from instructvla_ros.bags.recorder import Recorder, RecordingPlan  # noqa: E402
from instructvla_ros.bags.replay import ReplayOptions, replay  # noqa: E402
from instructvla_ros.bags.roles import find_roles, recorder_note  # noqa: E402
from instructvla_ros.bags.writer import BagWriter  # noqa: E402
from instructvla_ros.control.state import JointStateReader  # noqa: E402
from instructvla_ros.control.wx250s import WX250S  # noqa: E402
from instructvla_ros.nodes import action_expert_node, qos, reasoning_node  # noqa: E402
from instructvla_ros.nodes.action_expert_node import ActionExpertNode  # noqa: E402
from instructvla_ros.nodes.reasoning_node import ReasoningNode  # noqa: E402
from instructvla_ros.nodes.settings import expert_config, reasoning_config  # noqa: E402
from instructvla_ros.policy.expert_worker import ExpertWorker  # noqa: E402
from instructvla_ros.policy.ingest import raw_stamp_s, time_to_s  # noqa: E402
from instructvla_ros.policy.instructions import Instruction  # noqa: E402
from instructvla_ros.policy.reasoning_worker import ReasoningWorker  # noqa: E402

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
    stage.until(lambda: not stage.recorder._graph.asked, "the end of asking")
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


def drawn(*parts: bytes) -> np.random.Generator:
    """Numbers that change with every bit of the parts."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(b"|".join(parts)).digest()[:8], "big"))


class Sensitive(FakeRuntime):
    """Its latents and chunks depend on every bit of what it is given."""

    def latents(self, image: np.ndarray, instruction: str, thought: Any, **options: Any) -> Any:
        plan = super().latents(image, instruction, thought, **options)
        plan.latents = drawn(image.tobytes(), instruction.encode(), plan.text.encode()).normal(size=(2, 4))
        return plan

    def act(self, observation: Any, plan: Any, *, seed: int | None, seq: int) -> Any:
        chunk = super().act(observation, plan, seed=seed, seq=seq)
        seen = [image.tobytes() for _, image in sorted(observation.images.items())]
        noise = drawn(*seen, observation.state.tobytes(), plan.latents.tobytes(), str(seed).encode())
        chunk.delta_xyz_m[:] = noise.normal(size=(8, 3))
        return chunk


class Live:
    """The callbacks and workers of the live nodes with their parameters on the recorder's clock; latents go by hand."""

    def __init__(self, runtime: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.chunks: list[Any] = []
        self.frames: list[Any] = []
        clock = lambda: self.now_s  # noqa: E731
        for module in (reasoning_node, action_expert_node):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
        manifest = runtime.manifest
        reasoning = reasoning_config(parameter_values("reasoning_node", {}), manifest.stage)
        values = parameter_values("action_expert_node", {}) | {"seed": seed}
        thread, fail = SimpleNamespace(wake=lambda: None), pytest.fail
        self.expert = SimpleNamespace(_thread=thread, _reader=JointStateReader(), _complain=fail, _input_problems={})
        self.expert._worker = ExpertWorker(
            runtime.act, expert_config(values, manifest.views, True), lambda chunk, _: self.chunks.append(chunk), clock
        )
        self.reasoning = SimpleNamespace(
            _thread=thread, get_logger=lambda: SimpleNamespace(warning=fail), _image_problems={}
        )
        self.reasoning._worker = ReasoningWorker(
            runtime, reasoning, lambda _: None, lambda plan, *_: self.expert._worker.offer_latent(plan), clock
        )
        offer = self.reasoning._worker.offer_image
        self.reasoning._worker.offer_image = lambda view, frame: (self.frames.append(frame), offer(view, frame))

    def instruct(self, text: str, now_s: float) -> None:
        self.now_s = now_s
        self.reasoning._worker.accept(Instruction(text, 1, True))
        ActionExpertNode._on_reasoning(self.expert, Reasoning(instruction_id=1))
        self.work()

    def hear(self, topic: str, message: Any, now_s: float) -> None:
        self.now_s = now_s
        if topic == JOINTS:
            ActionExpertNode._on_joint_state(self.expert, message)
            return
        ActionExpertNode._on_image(self.expert, "primary", message)
        ReasoningNode._on_image(self.reasoning, "primary", message)
        self.work()

    def work(self) -> None:
        for node in (self.reasoning, self.expert):
            while node._worker.step() <= 0.0:
                pass


def test_what_is_heard_live_and_what_is_in_the_bag_are_the_same_frames_stamps_and_chunks_bit_for_bit(
    tmp_path: Path, new_ros_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "bag", new_ros_domain(), RecordingPlan(jpeg_quality=0))
    heard: dict[tuple[str, float], Any] = {}
    try:
        for kind, topic in ((Image, CAMERA), (JointState, JOINTS)):
            stage.listener.create_subscription(
                kind, topic, lambda m, t=topic: heard.__setitem__((t, time_to_s(m.header.stamp)), m), 50
            )
        said = stage.publisher(Reasoning, "reasoning", qos.REASONING)
        camera, joints = stage.publisher(Image, CAMERA, 10), stage.publisher(JointState, JOINTS, 10)
        for publisher in (camera, joints):
            stage.until(lambda p=publisher: p.get_subscription_count() == 2, "both listeners")
        said.publish(Reasoning(instruction_id=1, seq=1, instruction="pick up the can"))
        stage.until(lambda: stage.recorder.received.get("/instructvla/reasoning", 0) == 1, "the instruction")
        names = [*WX250S.joint_names, WX250S.fingers.joint]
        for number in range(12):
            stage.later_s = 0.1 * number  # at least so much between the times of reception
            state = JointState(name=names, position=[0.01 * number, -0.4, 0.3, 0.05, 1.5, -0.1, 0.03])
            picture = image(number)
            for message in (state, picture):
                message.header.stamp.sec, message.header.stamp.nanosec = 1000 + number // 10, number % 10 * 10**8
            joints.publish(state)
            stage.until(lambda n=number: stage.recorder.received.get(JOINTS, 0) > n, "joint states")
            camera.publish(picture)
            stage.until(lambda n=number: stage.recorder.received.get(CAMERA, 0) > n, "the camera")
        stage.until(lambda: len(heard) == 24, "the other listener")
    finally:
        stage.end()
    with Bag(tmp_path / "bag") as bag:
        result = replay(bag, {"bag": Sensitive()}, ReplayOptions(seed=3))
        (episode,) = result.episodes
        live = Live(Sensitive(), 3, monkeypatch)
        live.instruct(episode.instruction, episode.start_ns * 1e-9)
        for record in bag.messages([CAMERA, JOINTS], episode.start_ns):
            live.hear(record.topic, heard.pop((record.topic, raw_stamp_s(record.data))), record.stamp_ns * 1e-9)
        stored = EventReader(bag, Decoder(bag), find_roles(bag)).read()
        read = [event.frame for event in stored if isinstance(event, ImageEvent)]
    assert heard == {}
    assert [(f.stamp_s, f.image.tobytes()) for f in live.frames] == [(f.stamp_s, f.image.tobytes()) for f in read]
    chunks = [
        (c.stamp_s, c.seq, c.latent_seq, np.column_stack([c.delta_xyz_m, c.delta_rpy_rad, c.gripper]).astype("f4"))
        for c in live.chunks
    ]
    replayed = [(p.stamp_s, p.seq, p.latent_seq, p.actions.tobytes()) for p in result.runs[0].predictions]
    assert [(*rest, actions.tobytes()) for *rest, actions in chunks] == replayed and len(replayed) > 3
    assert len({actions for *_, actions in replayed}) == len(replayed), "the policy ignored its input"
