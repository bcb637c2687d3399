"""The nodes over real DDS in one process: a fake driver and camera, a fake model, real topics, services, lifecycle."""

from __future__ import annotations

import importlib.util
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")
torch = pytest.importorskip("torch")
pytest.importorskip("instructvla_model.types")

from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, Reasoning, SafetyState  # noqa: E402
from instructvla_msgs.srv import SetInstruction  # noqa: E402
from instructvla_ros.control import kinematics  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402
from instructvla_ros.nodes.action_expert_node import ActionExpertNode  # noqa: E402
from instructvla_ros.nodes.lifecycle_manager_node import LifecycleManagerNode  # noqa: E402
from instructvla_ros.nodes.managed import SetupError, make_executor  # noqa: E402
from instructvla_ros.nodes.reasoning_node import ReasoningNode  # noqa: E402
from instructvla_ros.nodes.widowx_controller_node import WidowXControllerNode  # noqa: E402

_spec = importlib.util.spec_from_file_location("fake_robot", Path(__file__).with_name("fake_robot.py"))
assert _spec is not None and _spec.loader is not None
fake_robot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_robot)

CAMERA = "/camera/camera/color/image_raw"


def load_fake(settings: Any, parts: tuple[str, ...]) -> Any:
    return fakes.FakeRuntime(
        clock=time.monotonic,
        words=tuple(f"word{i}" for i in range(8)),
        make_latents=lambda: torch.ones(2, 4),
    )


def load_broken(settings: Any, parts: tuple[str, ...]) -> Any:
    raise SetupError("checkpoint /nowhere does not exist or is no folder; give the folder of a trained checkpoint")


class Graph:
    """Nodes in one process and one executor, and a client node that listens and asks."""

    def __init__(self, load: Callable[..., Any] = load_fake, robot_name: str = "wx250s", **robot: Any) -> None:
        environment.apply_defaults(os.environ)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=random.SystemRandom().randint(20, 100))
        common: dict[str, Any] = {"namespace": "/instructvla", "context": self.context}
        remap = ["--ros-args", "-r", f"camera/image_raw:={CAMERA}"]
        stop = ["-r", "~/stop:=/instructvla/stop", "-r", "~/reset:=/instructvla/reset"]
        named = [Parameter("robot_name", value=robot_name)]
        quick = [*named, Parameter("service_timeout_s", value=1.0), Parameter("gripper.dwell_s", value=0.0)]
        self.robot = fake_robot.FakeRobot(context=self.context, **robot)
        self.controller = WidowXControllerNode(parameter_overrides=quick, cli_args=[*remap, *stop], **common)
        schedule = [Parameter("latent_period_s", value=0.2), Parameter("reasoning_period", value=5)]
        self.reasoning = ReasoningNode(load, parameter_overrides=schedule, cli_args=remap, **common)
        self.expert = ActionExpertNode(load, parameter_overrides=named, cli_args=remap, **common)
        bring_up = [Parameter("retry_period_s", value=0.1), Parameter("attempts", value=2)]
        self.manager = LifecycleManagerNode(parameter_overrides=bring_up, **common)
        self.client = rclpy.create_node("client", **common)
        self.heard: dict[type, list[Any]] = {}
        for kind, topic, profile in (
            (Reasoning, "reasoning", qos.REASONING),
            (ActionChunk, "action_chunk", qos.ACTION_CHUNK),
            (EndEffectorDelta, "ee_delta", qos.EE_DELTA),
            (SafetyState, "safety_state", qos.SAFETY_STATE),
        ):
            self.heard[kind] = []
            self.client.create_subscription(kind, topic, self.heard[kind].append, profile)
        self.estop = self.client.create_publisher(Bool, "estop", qos.EMERGENCY_STOP)
        self.nodes = [self.robot, self.controller, self.reasoning, self.expert, self.manager, self.client]
        # As in life, the driver runs beside the graph: a transition blocks its executor while it asks the driver.
        self.ending = threading.Event()
        self.threads = []
        for group in ([self.robot], [self.client], [self.controller], [self.reasoning, self.expert], [self.manager]):
            executor = make_executor(self.context)
            for node in group:
                executor.add_node(node)
            self.threads.append(threading.Thread(target=self.spin, args=(executor,), daemon=True))
            self.threads[-1].start()

    def spin(self, executor: Any) -> None:
        while not self.ending.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()

    def close(self) -> None:
        for node in (self.reasoning, self.expert, self.controller):
            node.halt()
        self.manager._thread.stop()  # type: ignore[union-attr]
        self.ending.set()
        for thread in self.threads:
            thread.join(5.0)
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.client.create_client(kind, name)
        assert client.wait_for_service(5.0), name
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        assert answered.wait(5.0), name
        return future.result()

    def say(self, text: str, think: bool = True) -> Any:
        return self.call(SetInstruction, "set_instruction", SetInstruction.Request(instruction=text, think=think))

    def trigger(self, name: str) -> Any:
        return self.call(Trigger, name, Trigger.Request())

    def mode(self) -> int:
        states = self.heard[SafetyState]
        return int(states[-1].mode) if states else -1

    def until(self, condition: Callable[[], Any], limit_s: float = 20.0) -> bool:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if condition():
                return True
            threading.Event().wait(0.02)
        return False

    def active(self) -> bool:
        return all(n.state_label == "active" for n in (self.reasoning, self.expert, self.controller))


@pytest.fixture(scope="module")
def running() -> Iterator[Graph]:
    graph = Graph()
    assert graph.until(graph.active), graph.manager._summary()
    yield graph
    graph.close()


@pytest.fixture
def graph(running: Graph) -> Graph:
    """The running graph, reset and listened to afresh."""
    running.robot.camera_on = True
    running.trigger("reset")
    assert running.until(lambda: running.mode() in (SafetyState.MODE_HOLDING, SafetyState.MODE_IDLE))
    for heard in running.heard.values():
        heard.clear()
    return running


def test_the_manager_brings_all_nodes_up_and_says_so(graph: Graph) -> None:
    answer = graph.trigger("lifecycle_manager_node/is_active")
    assert answer.success
    assert "widowx_controller_node active" in answer.message


def test_the_driver_is_set_up_once_with_the_profile_of_the_training_data(graph: Graph) -> None:
    modes = [r for r in graph.robot.requests if hasattr(r, "profile_type")]
    assert [(r.cmd_type, r.name, r.mode) for r in modes] == [
        ("group", "arm", "position"),
        ("single", "gripper", "pwm"),
    ]
    assert (modes[0].profile_type, modes[0].profile_velocity, modes[0].profile_acceleration) == ("time", 250, 100)
    torque = [r for r in graph.robot.requests if hasattr(r, "enable")]
    assert all(r.enable for r in torque) and len(torque) == 2


def test_an_instruction_streams_text_and_moves_the_arm(graph: Graph) -> None:
    start = kinematics.forward(graph.robot.q)[1]
    response = graph.say("pick up the carrot")
    assert response.accepted, response.message
    assert graph.until(lambda: len(graph.heard[EndEffectorDelta]) >= 5)
    texts = [m for m in graph.heard[Reasoning] if m.instruction_id == response.instruction_id]
    assert texts[0].text == "" and texts[0].instruction == "pick up the carrot"
    first = [m.text for m in texts if m.seq == texts[0].seq]
    assert first == sorted(first, key=len) and len(first) >= 8
    step = graph.heard[EndEffectorDelta][0]
    assert step.header.frame_id == "wx250s/base_link"
    assert step.delta_xyz_m.x == pytest.approx(0.01)
    assert step.instruction_id == response.instruction_id
    assert graph.until(lambda: kinematics.forward(graph.robot.q)[1][0] > start[0] + 0.02)
    assert graph.mode() == SafetyState.MODE_EXECUTING


def test_f20_a_bad_instruction_is_refused_and_the_running_one_goes_on(graph: Graph) -> None:
    first = graph.say("pick up the carrot")
    for text in ("", "x" * 10_000, "pick\x07up"):
        response = graph.say(text)
        assert not response.accepted and response.message
    second = graph.say("put the lemon on the plate", think=False)
    assert second.instruction_id == first.instruction_id + 1


@pytest.mark.parametrize("how", ["service", "topic"])
def test_f22_stop_latches_until_reset_and_a_new_instruction(graph: Graph, how: str) -> None:
    graph.say("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    if how == "service":
        assert graph.trigger("stop").success
    else:
        graph.estop.publish(Bool(data=True))
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_STOPPED, 2.0)
    graph.until(lambda: False, 0.5)
    goal = graph.robot.goal.copy()
    refused = graph.say("pick up the lemon")
    assert not refused.accepted and "reset" in refused.message
    graph.until(lambda: False, 0.5)
    np.testing.assert_allclose(graph.robot.goal, goal, atol=1e-6)
    assert graph.trigger("reset").success
    assert graph.until(lambda: graph.mode() != SafetyState.MODE_STOPPED)
    assert graph.until(lambda: graph.say("pick up the lemon").accepted, 2.0)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)


def test_f01_a_camera_that_stops_holds_the_arm_with_the_reason_and_resumes(graph: Graph) -> None:
    graph.say("pick up the carrot", think=False)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    graph.robot.camera_on = False
    assert graph.until(lambda: graph.heard[SafetyState][-1].fault_id == "F01", 3.0)
    assert "camera" in graph.heard[SafetyState][-1].reason
    graph.robot.camera_on = True
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)


def test_f17_without_a_checkpoint_the_model_nodes_stay_unconfigured_with_the_message() -> None:
    graph = Graph(load_broken)
    try:
        assert graph.until(lambda: "does not exist" in graph.reasoning.problem)
        assert graph.until(lambda: "giving up" in str(graph.manager._summary()) or graph.expert.problem)
        assert graph.until(lambda: graph.reasoning.state_label == "unconfigured", 3.0)
        response = graph.say("pick up the carrot")
        assert not response.accepted
        assert "unconfigured" in response.message and "does not exist" in response.message
        assert graph.until(lambda: "does not exist" in graph.trigger("lifecycle_manager_node/is_active").message, 5.0)
        assert graph.mode() in (-1, SafetyState.MODE_INACTIVE)
        assert graph.robot.goal_times == []
    finally:
        graph.close()


def test_a_wrong_robot_name_keeps_the_controller_unconfigured_and_names_what_there_is() -> None:
    graph = Graph(robot_name="wx200")
    try:
        assert graph.until(lambda: graph.controller.problem)
        assert "/wx200/get_robot_info" in graph.controller.problem
        assert "/wx250s/joint_states" in graph.controller.problem
        assert graph.until(lambda: graph.controller.state_label == "unconfigured", 3.0)
    finally:
        graph.close()


def test_a_driver_of_another_arm_is_refused() -> None:
    graph = Graph(joints=("waist", "shoulder", "elbow", "wrist_angle", "wrist_rotate"))
    try:
        assert graph.until(lambda: "this controller is for a wx250s" in graph.controller.problem)
        assert graph.until(lambda: graph.controller.state_label == "unconfigured", 3.0)
    finally:
        graph.close()

