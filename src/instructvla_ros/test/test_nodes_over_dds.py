"""The nodes over real DDS in one process: a fake driver and camera, a fake model, real topics, services, lifecycle."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
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

from action_msgs.msg import GoalStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from instructvla_msgs.action import ExecuteInstruction  # noqa: E402
from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, Reasoning, SafetyState  # noqa: E402
from instructvla_msgs.srv import SetInstruction  # noqa: E402
from instructvla_ros.cli import main as cli  # noqa: E402
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
LIMIT_S = 60.0
"""Longest wait for anything: a machine that runs other tests beside this one is slow."""


def load_fake(settings: Any, parts: tuple[str, ...]) -> Any:
    return fakes.FakeRuntime(
        clock=time.monotonic,
        words=tuple(f"word{i}" for i in range(8)),
        make_latents=lambda: torch.ones(2, 4),
    )


def load_broken(settings: Any, parts: tuple[str, ...]) -> Any:
    raise SetupError("checkpoint /nowhere does not exist or is no folder; give the folder of a trained checkpoint")


def given(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


class Graph:
    """Nodes in one process and one executor, and a client node that listens and asks."""

    def __init__(
        self,
        domain: int,
        load: Callable[..., Any] = load_fake,
        robot_name: str = "wx250s",
        driver_timeout_s: float = LIMIT_S,
        namespace: str = "/instructvla",
        **robot: Any,
    ) -> None:
        environment.apply_defaults(os.environ)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        common: dict[str, Any] = {"namespace": namespace, "context": self.context}
        robot = {"driver": "wx250s", "camera": CAMERA, **robot}
        remap = ["--ros-args", "-r", f"camera/image_raw:={robot['camera']}"]
        stop = ["-r", f"~/stop:={namespace}/stop", "-r", f"~/reset:={namespace}/reset"]
        # On a busy machine only those faults should show that a test makes.
        driving = {
            "robot_name": robot_name,
            "service_timeout_s": driver_timeout_s,
            "gripper.dwell_s": 0.0,
            "safety.max_joint_state_age_s": 1.0,
            "safety.max_joint_silence_s": 20.0,
            "safety.max_image_age_s": 1.0,
            "safety.abort_image_age_s": 60.0,
            "watch.silence_s": 20.0,
            "watch.clock_stop_s": 20.0,
        }
        heard = f"/{robot_name}/joint_states"
        acting = {"joint_states_topic": heard, "max_image_age_s": 1.0, "max_skew_s": 0.5, "latent.max_age_s": 20.0}
        acting["controller_silence_s"] = 20.0
        thinking = {"latent_period_s": 0.2, "reasoning_period": 5, "max_image_age_s": 1.0}
        self.robot = fake_robot.FakeRobot(context=self.context, **robot)
        self.controller = WidowXControllerNode(parameter_overrides=given(**driving), cli_args=[*remap, *stop], **common)
        self.reasoning = ReasoningNode(load, parameter_overrides=given(**thinking), cli_args=remap, **common)
        self.expert = ActionExpertNode(load, parameter_overrides=given(**acting), cli_args=remap, **common)
        self.manager = LifecycleManagerNode(parameter_overrides=given(retry_period_s=0.1, attempts=100), **common)
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
        assert client.wait_for_service(LIMIT_S), name
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        assert answered.wait(LIMIT_S), name
        return future.result()

    def say(self, text: str, think: bool = True) -> Any:
        return self.call(SetInstruction, "set_instruction", SetInstruction.Request(instruction=text, think=think))

    def trigger(self, name: str) -> Any:
        return self.call(Trigger, name, Trigger.Request())

    def mode(self) -> int:
        states = self.heard[SafetyState]
        return int(states[-1].mode) if states else -1

    def until(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> bool:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if condition():
                return True
            threading.Event().wait(0.02)
        return False

    def goals(self, count: int) -> np.ndarray:
        """The next joint goals that the robot is given, (count, 6)."""
        seen = len(self.robot.goals)
        assert self.until(lambda: len(self.robot.goals) >= seen + count), "no joint goals"
        return np.array(self.robot.goals[seen : seen + count])

    def active(self) -> bool:
        return all(n.state_label == "active" for n in (self.reasoning, self.expert, self.controller))


@pytest.fixture(scope="module")
def running(new_ros_domain: Callable[[], int]) -> Iterator[Graph]:
    graph = Graph(new_ros_domain())
    assert graph.until(graph.active), graph.manager._summary()
    yield graph
    graph.close()


@pytest.fixture
def graph(running: Graph) -> Graph:
    """The running graph, at rest and listened to afresh."""
    running.robot.camera_on = True

    def rests() -> bool:
        """Stopped and reset; an instruction of the test before may still be on its way and start it again."""
        running.trigger("stop")
        assert running.until(lambda: running.mode() == SafetyState.MODE_STOPPED)
        running.trigger("reset")
        return running.until(lambda: running.mode() in (SafetyState.MODE_HOLDING, SafetyState.MODE_IDLE), 5.0)

    assert running.until(rests)
    for heard in running.heard.values():
        heard.clear()
    return running


def test_the_manager_brings_all_nodes_up_and_says_so(graph: Graph) -> None:
    assert graph.until(lambda: graph.trigger("lifecycle_manager_node/is_active").success)
    assert "widowx_controller_node active" in graph.trigger("lifecycle_manager_node/is_active").message


def test_the_driver_is_set_up_once_with_the_profile_of_the_training_data(graph: Graph) -> None:
    modes = [r for r in graph.robot.requests if hasattr(r, "profile_type")]
    assert [(r.cmd_type, r.name, r.mode) for r in modes] == [
        ("group", "arm", "position"),
        ("single", "gripper", "pwm"),
    ]
    assert (modes[0].profile_type, modes[0].profile_velocity, modes[0].profile_acceleration) == ("time", 250, 100)
    torque = [r for r in graph.robot.requests if hasattr(r, "enable")]
    assert all(r.enable for r in torque) and len(torque) == 2


def test_after_an_activation_only_a_new_instruction_moves_the_arm_and_no_mode_is_set_twice(graph: Graph) -> None:
    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call(ChangeState, "widowx_controller_node/change_state", request).success

    graph.say("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    seen = len(graph.robot.requests)
    change(Transition.TRANSITION_DEACTIVATE)
    assert graph.until(lambda: "not active" in graph.say("pick up the lemon").message)
    change(Transition.TRANSITION_ACTIVATE)
    assert graph.until(lambda: graph.mode() in (SafetyState.MODE_HOLDING, SafetyState.MODE_IDLE))
    assert np.ptp(graph.goals(30), axis=0).max() < 1e-6
    again = graph.robot.requests[seen:]
    assert not [r for r in again if hasattr(r, "profile_type")], "the modes were right already"
    written = [(r.name, r.reg, r.value) for r in again if hasattr(r, "reg")]
    assert written[:2] == [("arm", "Profile_Velocity", 250), ("arm", "Profile_Acceleration", 100)]
    assert graph.until(lambda: graph.say("pick up the lemon").accepted)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)


def test_an_instruction_streams_text_and_moves_the_arm(graph: Graph) -> None:
    start = kinematics.forward(graph.robot.q)[1]
    response = graph.say("pick up the carrot")
    assert response.accepted, response.message

    def steps() -> list[Any]:  # those of the instruction before may still come
        return [m for m in graph.heard[EndEffectorDelta] if m.instruction_id == response.instruction_id]

    assert graph.until(lambda: len(steps()) >= 5)
    assert graph.until(lambda: any(m.final and m.n_tokens for m in graph.heard[Reasoning]))
    texts = [m for m in graph.heard[Reasoning] if m.instruction_id == response.instruction_id]
    assert texts[0].text == "" and texts[0].instruction == "pick up the carrot"
    first = [m.text for m in texts if m.seq == texts[0].seq]
    assert first == sorted(first, key=len) and len(first) >= 8
    step = steps()[0]
    assert step.header.frame_id == "wx250s/base_link"
    assert step.delta_xyz_m.x == pytest.approx(0.01)
    assert graph.until(lambda: kinematics.forward(graph.robot.q)[1][0] > start[0] + 0.02)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)


def test_f20_a_bad_instruction_is_refused_and_the_running_one_goes_on(graph: Graph) -> None:
    first = graph.say("pick up the carrot")
    for text in ("", "x" * 10_000, "pick\x07up"):
        response = graph.say(text)
        assert not response.accepted and response.message
    second = graph.say("put the lemon on the plate", think=False)
    assert second.instruction_id == first.instruction_id + 1


@pytest.mark.parametrize("how", ["service", "topic", "best-effort topic"])
def test_f22_stop_latches_until_reset_and_a_new_instruction(graph: Graph, how: str) -> None:
    graph.say("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    if how == "service":
        assert graph.trigger("stop").success
    elif how == "topic":
        graph.estop.publish(Bool(data=True))
    else:
        button = graph.client.create_publisher(Bool, "estop", qos.EMERGENCY_STOP_BEST_EFFORT)
        assert graph.until(lambda: button.get_subscription_count() > 0)
        button.publish(Bool(data=True))
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_STOPPED)
    goals = graph.goals(10)
    # The stop reaches the two nodes by different ways.
    assert graph.until(lambda: "reset" in graph.say("pick up the lemon").message)
    assert np.ptp([*goals[3:], *graph.goals(10)], axis=0).max() < 1e-6
    assert graph.trigger("reset").success
    assert graph.until(lambda: graph.mode() != SafetyState.MODE_STOPPED)
    assert graph.until(lambda: graph.say("pick up the lemon").accepted)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)


def test_a_state_is_said_before_the_goal_of_its_tick(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    order, node = list[str](), graph.controller
    tick, say, send = node._controller.tick, node._publish_state, node._driver.send
    monkeypatch.setattr(node._controller, "tick", lambda now_s: (order.append("tick"), tick(now_s))[1])
    monkeypatch.setattr(node, "_publish_state", lambda *state: (order.append("state"), say(*state)))
    monkeypatch.setattr(node._driver, "send", lambda goal: (order.append("goal"), send(goal)))
    assert graph.until(lambda: len(order) > 40)
    assert order[order.index("tick") :][:30] == ["tick", "state", "goal"] * 10


def test_f01_a_camera_that_stops_holds_the_arm_with_the_reason_and_resumes(graph: Graph) -> None:
    graph.say("pick up the carrot", think=False)
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    graph.robot.camera_on = False
    assert graph.until(lambda: graph.heard[SafetyState][-1].fault_id == "F01")
    assert "camera" in next(m.reason for m in reversed(graph.heard[SafetyState]) if m.fault_id == "F01")
    assert graph.until(lambda: graph.controller.report().fault), "an ERROR in /diagnostics"
    graph.robot.camera_on = True
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    assert graph.until(lambda: not graph.controller.report().fault)


class Caller:
    """A client of the action, which waits for its answers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.client = ActionClient(graph.client, ExecuteInstruction, "execute_instruction")
        self.verdicts = graph.client.create_publisher(String, "sim/task_status", qos.TASK_STATUS)
        assert self.client.wait_for_server(LIMIT_S)

    def answer(self, ask: Callable[[], Any]) -> Any:
        """Asks in the thread that spins the client: rclpy loses an answer that arrives before the asking returns."""
        asked: list[Any] = []
        timer = self.graph.client.create_timer(0.01, lambda: asked or asked.append(ask()))
        assert self.graph.until(lambda: asked and asked[0].done()), "no answer"
        self.graph.client.destroy_timer(timer)
        return asked[0].result()

    def follow(self, instruction: str, **goal: Any) -> Any:
        """Sends a goal; feedback is kept in `feedback`."""
        self.feedback: list[Any] = []
        request = ExecuteInstruction.Goal(instruction=instruction, think=True, **goal)
        keep = self.feedback
        return self.answer(lambda: self.client.send_goal_async(request, lambda message: keep.append(message.feedback)))

    def result(self, goal: Any) -> tuple[int, Any]:
        """Final status and result of a goal."""
        answer = self.answer(goal.get_result_async)
        return answer.status, answer.result


@pytest.fixture
def caller(graph: Graph) -> Iterator[Caller]:
    made = Caller(graph)
    yield made
    graph.client.destroy_publisher(made.verdicts)
    made.client.destroy()


def test_an_action_ends_when_the_success_check_says_so_and_the_arm_rests(graph: Graph, caller: Caller) -> None:
    goal = caller.follow("pick up the carrot")
    assert goal.accepted
    assert graph.until(lambda: caller.feedback and caller.feedback[-1].chunk_seq > 0 and caller.feedback[-1].reasoning)
    number = caller.feedback[-1].instruction_id
    for judged in (number - 1, number):
        caller.verdicts.publish(String(data=json.dumps({"success": True, "instruction_id": judged})))
    status, result = caller.result(goal)
    assert status == GoalStatus.STATUS_SUCCEEDED and result.outcome == result.OUTCOME_SUCCEEDED
    assert result.instruction_id == number and result.duration_s > 0.0
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_IDLE)
    assert np.ptp(graph.goals(10)[3:], axis=0).max() < 1e-6


def test_cancelling_an_action_makes_the_arm_hold(graph: Graph, caller: Caller) -> None:
    goal = caller.follow("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    assert len(caller.answer(goal.cancel_goal_async).goals_canceling) == 1
    status, result = caller.result(goal)
    assert status == GoalStatus.STATUS_CANCELED and result.outcome == result.OUTCOME_CANCELED
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_IDLE)


def test_at_the_time_limit_an_action_ends_without_success(graph: Graph, caller: Caller) -> None:
    status, result = caller.result(caller.follow("pick up the carrot", time_limit_s=0.5))
    assert status == GoalStatus.STATUS_ABORTED and result.outcome == result.OUTCOME_TIME_LIMIT
    assert "no success check judged it" in result.reason
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_IDLE)


def test_a_newer_goal_or_instruction_supersedes_and_a_stop_ends_an_action(graph: Graph, caller: Caller) -> None:
    first, second = caller.follow("pick up the carrot"), caller.follow("pick up the lemon")
    assert caller.result(first)[1].outcome == ExecuteInstruction.Result.OUTCOME_SUPERSEDED
    assert graph.say("pick up the can").accepted
    assert caller.result(second)[1].outcome == ExecuteInstruction.Result.OUTCOME_SUPERSEDED
    third = caller.follow("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    assert graph.trigger("stop").success
    status, result = caller.result(third)
    assert status == GoalStatus.STATUS_ABORTED and result.outcome == result.OUTCOME_STOPPED
    assert "stop service" in result.reason


def test_f01_an_action_whose_camera_is_gone_for_long_ends_in_a_fault(
    graph: Graph, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = caller.follow("pick up the carrot")
    assert graph.until(lambda: graph.mode() == SafetyState.MODE_EXECUTING)
    camera = graph.controller._controller._camera  # type: ignore[union-attr]
    monkeypatch.setattr(camera, "_safety", dataclasses.replace(camera._safety, abort_image_age_s=1.5))
    graph.robot.camera_on = False
    status, result = caller.result(goal)
    assert status == GoalStatus.STATUS_ABORTED and result.outcome == result.OUTCOME_FAULT
    assert "camera" in result.reason and "over" in result.reason
    graph.robot.camera_on = True
    assert np.ptp(graph.goals(30), axis=0).max() < 1e-6, "a camera that is there again starts nothing"
    assert graph.mode() == SafetyState.MODE_FAULT


@pytest.mark.parametrize(("goal", "said"), [({}, "empty"), ({"instruction": "go", "time_limit_s": -1.0}, "time limit")])
def test_f20_a_goal_that_makes_no_sense_is_answered_with_the_reason(
    caller: Caller, goal: dict[str, Any], said: str
) -> None:
    status, result = caller.result(caller.follow(**{"instruction": "", **goal}))
    assert status == GoalStatus.STATUS_ABORTED and result.outcome == result.OUTCOME_REJECTED
    assert said in result.reason and result.instruction_id == 0


def test_f17_without_a_checkpoint_the_model_nodes_stay_unconfigured_with_the_message(
    new_ros_domain: Callable[[], int],
) -> None:
    graph = Graph(new_ros_domain(), load_broken)
    try:
        assert graph.until(lambda: "does not exist" in graph.reasoning.problem)
        assert graph.until(lambda: "does not exist" in graph.expert.problem)
        assert graph.until(lambda: graph.reasoning.state_label == "unconfigured")
        response = graph.say("pick up the carrot")
        assert not response.accepted
        assert "unconfigured" in response.message and "does not exist" in response.message
        assert graph.until(lambda: "does not exist" in graph.trigger("lifecycle_manager_node/is_active").message)
        assert graph.mode() in (-1, SafetyState.MODE_INACTIVE)
        assert graph.robot.goals == []
    finally:
        graph.close()


def test_a_wrong_robot_name_keeps_the_controller_unconfigured_and_names_what_there_is(
    new_ros_domain: Callable[[], int],
) -> None:
    graph = Graph(new_ros_domain(), robot_name="wx200", driver_timeout_s=1.0)
    try:
        assert graph.until(lambda: "/wx250s/joint_states" in graph.controller.problem)
        assert "/wx200/get_robot_info" in graph.controller.problem
        assert graph.until(lambda: graph.controller.state_label == "unconfigured")
    finally:
        graph.close()


def test_a_driver_of_another_arm_is_refused(new_ros_domain: Callable[[], int]) -> None:
    graph = Graph(new_ros_domain(), joints=("waist", "shoulder", "elbow", "wrist_angle", "wrist_rotate"))
    try:
        assert graph.until(lambda: "this controller is for a wx250s" in graph.controller.problem)
        assert graph.until(lambda: graph.controller.state_label == "unconfigured")
    finally:
        graph.close()


def test_several_robots_run_by_namespace_and_each_command_reaches_only_one(
    new_ros_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = new_ros_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    left, right = (
        Graph(domain, robot_name=name, namespace=f"/{name}", driver=name, camera=f"/{name}/image")
        for name in ("left", "right")
    )

    def shows(*words: str) -> str:
        assert cli.main(words) == 0
        return capsys.readouterr().out

    try:
        assert left.until(lambda: left.active() and right.active())
        assert cli.main(["say", "pick up the carrot", "--namespace", "/left"]) == 0
        assert left.until(lambda: left.mode() == SafetyState.MODE_EXECUTING)
        assert left.until(lambda: "left/widowx_controller_node" in shows("--namespace", "left", "status"))
        assert "right/" not in shows("status", "namespace:=/left")
        assert left.until(lambda: "pick up the carrot" in shows("watch", "--seconds", "1", "namespace:=/left"))
        assert cli.main(["stop", "namespace:=/left"]) == 0
        assert left.until(lambda: left.mode() == SafetyState.MODE_STOPPED)
        assert right.mode() == SafetyState.MODE_IDLE and not right.heard[Reasoning]
        assert cli.main(["reset", "namespace:=/left"]) == 0
        assert left.until(lambda: left.mode() == SafetyState.MODE_IDLE)
    finally:
        left.close()
        right.close()
