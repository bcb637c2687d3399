"""The model nodes one by one: what they refuse, and that they say so in one line. Nothing spins unless a test does."""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("torch")
pytest.importorskip("instructvla_model.types")

from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import Float32, Header  # noqa: E402

from instructvla_model.prompts import PromptError  # noqa: E402
from instructvla_msgs.msg import LatentAction, SafetyState  # noqa: E402
from instructvla_ros.control import FR3  # noqa: E402
from instructvla_ros.control.state import state_of  # noqa: E402
from instructvla_ros.control.wx250s import WX250S  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.nodes import managed, qos  # noqa: E402
from instructvla_ros.nodes.action_expert_node import ActionExpertNode  # noqa: E402
from instructvla_ros.nodes.checkpoints import check_robot, load_runtime  # noqa: E402
from instructvla_ros.nodes.managed import Report, SetupError, make_executor  # noqa: E402
from instructvla_ros.nodes.reasoning_node import ReasoningNode  # noqa: E402
from instructvla_ros.nodes.settings import ModelSettings  # noqa: E402
from instructvla_ros.policy import Frame, InstructionError  # noqa: E402
from instructvla_ros.policy.execution import Ending, Execution, Outcome  # noqa: E402
from instructvla_ros.policy.views import IMAGE_TOPICS  # noqa: E402
from instructvla_ros.robots import arm_named  # noqa: E402

CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"


class Unreadable(fakes.FakeRuntime):
    """A model that cannot read what its node has accepted."""

    def think(self, image: np.ndarray, instruction: str, **options: Any) -> Any:
        raise PromptError("prompt has 600 tokens; expected at most 512; shorten the instruction")


@pytest.fixture
def make(new_ros_domain: Callable[[], int]) -> Iterator[Callable[..., Any]]:
    """Makes nodes in a ROS domain of their own."""
    environment.apply_defaults(os.environ)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_ros_domain())
    made: list[Any] = []

    def node(kind: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        made.append(kind(*arguments, parameter_overrides=parameters, namespace="/instructvla", context=context))
        return made[-1]

    yield node
    for each in made:
        if isinstance(each, managed.ManagedNode):
            each.halt()
        each.destroy_node()
    rclpy.try_shutdown(context=context)


def loading(runtime: Any) -> Callable[..., Any]:
    return lambda settings, parts: runtime


def active_reasoning(make: Callable[..., Any], runtime: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A reasoning node that is active; its owner thread does nothing by itself."""
    monkeypatch.setattr("instructvla_ros.nodes.reasoning_node.OwnerThread", lambda *_: fakes.FakeThread())
    node = make(ReasoningNode, loading(runtime))
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


def active_expert(make: Callable[..., Any], runtime: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An expert that is active; its owner thread does nothing by itself."""
    monkeypatch.setattr("instructvla_ros.nodes.action_expert_node.OwnerThread", lambda *_: fakes.FakeThread())
    node = make(ActionExpertNode, loading(runtime))
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


def picture(brightness: int = 100, stamp_s: int = 1, frame_id: str = "") -> Image:
    """A grey image; one of brightness 0 is refused as black."""
    header = Header(stamp=Time(sec=stamp_s), frame_id=frame_id)
    data = array("B", bytes([brightness]) * (64 * 64 * 3))
    return Image(header=header, height=64, width=64, encoding="rgb8", step=64 * 3, data=data)


def test_f20_what_the_model_cannot_read_is_refused_before_it_becomes_an_instruction(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(text: str) -> None:
        raise InstructionError(f"too much for this model: {text}")

    monkeypatch.setattr("instructvla_ros.nodes.reasoning_node.prompt_check", lambda runtime, mode: check)
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    with pytest.raises(InstructionError, match="too much for this model: pick up the carrot"):
        node._accept("pick up the carrot", True)
    assert node._last_id == 0 and node._worker.instruction is None


def test_f20_an_instruction_that_turns_out_unreadable_is_dropped_and_the_node_lives_on(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_reasoning(make, Unreadable(), monkeypatch)
    told: list[Any] = []
    monkeypatch.setattr(node, "_publish_text", told.append)
    node._worker._on_text = told.append
    for number in (1, 2, 3, 4):
        node._accept("pick up the carrot", True)
        node._worker.offer_image("primary", Frame(np.zeros((64, 64, 3), np.uint8), number, 1e12))
        assert node._step() == 0.0 and node._step() > 1.0, "nothing more to do, and no spinning"
        assert told[-1].final and told[-1].instruction.instruction_id == number
    assert node._model_failures == 0 and not node.failed
    wrong, values, _ = node.report()
    assert wrong.startswith("instruction 4 was dropped: prompt has 600 tokens") and values["instruction"] == ""
    node._accept("pick up the lemon", True)
    assert "dropped" not in node.report()[0]


def test_f20_a_goal_whose_instruction_was_dropped_ends_with_the_reason(make: Callable[..., Any]) -> None:
    server = make(ReasoningNode, loading(fakes.FakeRuntime()))._executing
    endings: list[Any] = []
    running = SimpleNamespace(
        execution=SimpleNamespace(
            instruction_id=7,
            ending=None,
            elapsed_s=lambda _: 0.0,
            on_time=lambda _: None,
            end=lambda *how: endings.append(how),
        ),
        handle=SimpleNamespace(publish_feedback=lambda _: None),
        feedback=SimpleNamespace(),
    )
    server._running = running
    server.on_dropped(6, "of another")
    server._look()
    assert endings == []
    server.on_dropped(7, "prompt has 600 tokens")
    server._look()
    assert endings == [(Outcome.REJECTED, "prompt has 600 tokens")]
    server._running = None


def follow(node: Any, instruction: str) -> Any:
    """Accepts as the action does; returns the execution that then runs."""
    execution = Execution(node._accept(instruction, True).instruction_id, 60.0, 0.0)
    ended = SimpleNamespace(set_result=lambda _: None)
    node._executing._running = SimpleNamespace(execution=execution, ended=ended, feedback=SimpleNamespace())
    return execution


def test_a_goal_ends_when_the_controller_is_deactivated(make: Callable[..., Any], monkeypatch: Any) -> None:
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    node._on_safety_state(SafetyState(mode=SafetyState.MODE_IDLE))
    execution = follow(node, "pick up the carrot")
    node._on_safety_state(SafetyState(mode=SafetyState.MODE_EXECUTING, instruction_id=1))
    assert execution.ending is None
    node._on_safety_state(SafetyState(mode=SafetyState.MODE_INACTIVE, instruction_id=1))
    assert execution.ending == Ending(Outcome.STOPPED, "the controller is not active")
    assert node._executing._running is None and node._worker.instruction is None


def test_a_goal_given_before_the_controller_is_active_ends_with_its_first_word_and_later_ones_are_refused(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    execution = follow(node, "pick up the carrot")
    node._on_safety_state(SafetyState(mode=SafetyState.MODE_INACTIVE, reason="not configured"))
    assert execution.ending == Ending(Outcome.STOPPED, "the controller is not active")
    with pytest.raises(InstructionError, match="the controller is not active; wait until it is"):
        node._accept("pick up the carrot", True)
    node._on_safety_state(SafetyState(mode=SafetyState.MODE_IDLE))
    assert node._worker.instruction is None, "what was asked for before starts nothing now"
    assert node._accept("pick up the carrot", True).instruction_id == 2


def test_the_problem_of_an_input_is_told_until_that_very_input_is_good_again(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_expert(make, fakes.FakeRuntime(views=("primary", "wrist")), monkeypatch)
    node._on_image("wrist", picture(0))
    node._on_joint_state(JointState(name=["waist"], position=[0.0]))
    node._on_latent(LatentAction(checkpoint_id="another"))
    node._on_image("primary", picture())
    assert "wrist: image is black" in node.report()[0], "the first of three"
    node._on_image("wrist", picture())
    assert "joint" in node.report()[0]
    names = [*WX250S.joint_names, WX250S.fingers.joint]
    node._on_joint_state(JointState(name=names, position=[0.0] * 6 + [0.03]))
    assert "latent action comes from checkpoint another" in node.report()[0]
    zeros = array("B", bytes(8))
    good = LatentAction(checkpoint_id="fake", dtype=LatentAction.FLOAT32, n_queries=1, latent_dim=2, data=zeros)
    node._on_latent(good)
    assert node.report()[0] == ""


@pytest.mark.parametrize(
    ("report", "level"),
    [
        (Report("", {}), DiagnosticStatus.OK),
        (Report("latent action has served 12 chunks", {}), DiagnosticStatus.WARN),
        (Report("no heartbeat of the controller", {}, fault=True), DiagnosticStatus.ERROR),
    ],
)
def test_diagnostics_call_a_fault_an_error_and_the_rest_a_warning(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, report: Report, level: bytes
) -> None:
    node, heard = active_expert(make, fakes.FakeRuntime(), monkeypatch), []
    monkeypatch.setattr(node, "report", lambda: report)
    monkeypatch.setattr(node, "_diagnostics", SimpleNamespace(publish=heard.append))
    node._publish_diagnostics()
    (status,) = heard[0].status
    assert (status.level, status.message) == (level, report.wrong or "active")


def test_f13_a_controller_that_fell_silent_is_a_fault_of_the_expert(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_expert(make, fakes.FakeRuntime(), monkeypatch)
    assert not node.report().fault
    node._controller.heard("1-a", time.monotonic() - 0.6)
    assert node.report().fault and "(F13)" in node.report().wrong


def test_without_a_gripper_the_expert_needs_no_finger_joint_and_its_opening_is_what_was_told_last(
    make: Callable[..., Any],
) -> None:
    message = JointState(name=list(FR3.joint_names), position=FR3.home_rad.tolist())
    openings = []
    for gripper, told in (("measured", None), ("none", None), ("none", 0.25)):
        node = make(ActionExpertNode, loading(fakes.FakeRuntime()), arm="fr3", gripper=gripper)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        hears = {s.topic_name: s.callback for s in node.subscriptions}
        if told is not None:
            hears["/instructvla/gripper_command"](Float32(data=told))
        node._on_joint_state(message)
        openings.append([float(state_of(sample, FR3)[7]) for sample in node._worker._samples])
        assert ("/instructvla/gripper_command" in hears) == (gripper == "none")
    assert openings == [[], [1.0], [0.25]]


@pytest.mark.parametrize(("vlm_input", "views"), [("first_view", ["primary"]), ("side_by_side", ["primary", "wrist"])])
def test_the_reasoning_hears_the_cameras_that_its_vlm_looks_at(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, vlm_input: str, views: list[str]
) -> None:
    node = active_reasoning(make, fakes.FakeRuntime(views=("primary", "wrist"), vlm_input=vlm_input), monkeypatch)
    cameras = {s.topic_name: s.callback for s in node.subscriptions if s.topic_name.endswith("/image_raw")}
    assert [f"/instructvla/{IMAGE_TOPICS[view]}" for view in views] == list(cameras)
    for topic, hear in cameras.items():
        hear(picture(frame_id=topic))
    assert sorted(node._worker._frames) == views and node._frame_id == "/instructvla/camera/image_raw"


def test_a_black_view_of_two_is_told_until_that_view_is_good_again(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = fakes.FakeRuntime(views=("primary", "wrist"), vlm_input="side_by_side")
    node = active_reasoning(make, runtime, monkeypatch)
    node._on_image("wrist", picture(0))
    node._on_image("primary", picture())
    assert node.report()[0].startswith("wrist: image is black")
    node._on_image("wrist", picture())
    assert node.report()[0] == ""


@pytest.mark.parametrize("kind", [ReasoningNode, ActionExpertNode])
def test_a_view_that_no_topic_shows_keeps_a_model_node_unconfigured(make: Callable[..., Any], kind: Any) -> None:
    node = make(kind, loading(fakes.FakeRuntime(views=("primary", "ceiling"), vlm_input="side_by_side")))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "wants the views ('primary', 'ceiling'); this node has ('primary', 'wrist')" in node.problem


def test_a_reasoning_is_closed_when_the_node_is_deactivated(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    told: list[Any] = []
    node._worker._on_text = told.append
    node._accept("pick up the carrot", True)
    node._step()
    assert [update.final for update in told] == [False]
    node.halt()
    assert [update.final for update in told] == [False, True]


def test_f12_after_a_restart_no_instruction_is_taken_before_the_controller_has_said_which_ids_it_knows(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make(rclpy.create_node, "controller")
    publisher = controller.create_publisher(SafetyState, "safety_state", qos.SAFETY_STATE)
    publisher.publish(SafetyState(mode=SafetyState.MODE_IDLE, instruction_id=7))
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    executor = make_executor(node.context)
    while node.count_publishers("safety_state") == 0:
        executor.spin_once(timeout_sec=0.05)
    with pytest.raises(InstructionError, match="not heard of the controller yet; say it again"):
        node._accept("pick up the carrot", True)
    executor.add_node(node)
    while not node._heard_controller:
        executor.spin_once(timeout_sec=0.05)
    assert node._accept("pick up the carrot", True).instruction_id == 8
    executor.shutdown()


def test_without_a_controller_as_in_a_replay_instructions_are_taken(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = active_reasoning(make, fakes.FakeRuntime(), monkeypatch)
    assert node._accept("pick up the carrot", True).instruction_id == 1


@pytest.mark.parametrize(
    ("trained", "arm"), [("fr3", "fr3"), ("fr3", "panda"), ("panda", "fr3"), ("wx250s", "wx250s"), (None, "ur5e")]
)
def test_a_checkpoint_of_this_arm_of_its_kin_or_of_nobody_is_taken(trained: str | None, arm: str) -> None:
    training = {} if trained is None else {"robot": trained}
    check_robot(SimpleNamespace(training=training, checkpoint_id="c"), arm_named(arm))


@pytest.mark.parametrize(
    ("trained", "arm"), [("fr3", "wx250s"), ("wx250s", "panda"), ("wx250s", "ur5e"), ("mine", "fr3")]
)
def test_f19_a_checkpoint_of_another_robot_keeps_the_expert_unconfigured_and_names_both(
    make: Callable[..., Any], trained: str, arm: str
) -> None:
    manifest = fakes.FakeRuntime().manifest
    manifest.training = {"robot": trained}
    node = make(ActionExpertNode, loading(SimpleNamespace(manifest=manifest)), arm=arm)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert f"trained on the robot '{trained}'; this graph's arm is '{arm}'" in node.problem
    assert "checkpoint:=" in node.problem and "finetune" in node.problem


def test_the_shipped_checkpoints_fit_the_arms_that_they_are_for() -> None:
    from instructvla_model.manifest import read_manifest

    fitting = ("nano-franka", "fr3"), ("nano-franka", "panda"), ("nano-expert", "wx250s"), ("nano-generalist", "wx250s")
    for name, arm in fitting:
        check_robot(read_manifest(CHECKPOINTS / name), arm_named(arm))
    with pytest.raises(SetupError, match="'fr3'; this graph's arm is 'wx250s'"):
        check_robot(read_manifest(CHECKPOINTS / "nano-franka"), arm_named("wx250s"))


def test_a_bad_topic_name_keeps_the_node_unconfigured_with_one_line_and_leaves_nothing_behind(
    make: Callable[..., Any],
) -> None:
    node = make(ActionExpertNode, loading(fakes.FakeRuntime()), joint_states_topic="/a b/joint_states")
    before = len(list(node.subscriptions))
    for _ in range(2):
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.problem.startswith("cannot configure: Invalid topic name: ")
        assert "'/a b/joint_states'; correct the parameter" in node.problem and "\n" not in node.problem
    assert len(list(node.subscriptions)) == before


def test_a_bad_remapping_ends_the_process_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], new_ros_domain: Callable[[], int]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["reasoning_node", "--ros-args", "-r", "camera/image_raw:=bad name"])
    assert managed.run(lambda: rclpy.create_node("reasoning_node")) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot start" in line]
    assert len(said) == 1 and "camera/image_raw:=bad name" in said[0] and "correct the parameter" in said[0]


def test_f25_a_recording_that_is_there_already_ends_the_process_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], new_ros_domain: Callable[[], int]
) -> None:
    def taken() -> None:
        raise FileExistsError("my_run is there already; name another folder")

    monkeypatch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["recorder_node"])
    assert managed.run(taken) == 2
    assert "cannot start: my_run is there already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("weights_sha256",), 7, "weights_sha256|value of a wrong kind"),
        (("config", "language", "n_layers"), -1, "n_layers|layers"),
        (("config", "dt_s"), 0, "dt_s"),
        (("config", "dt_s"), "0.2", "dt_s"),
        (("config", "dt_s"), True, "dt_s"),
        (("config", "language", "max_position"), "512", "max_position"),
        (("training",), 7, "manifest"),
    ],
)
def test_f17_a_garbled_manifest_is_refused_in_one_line(
    tmp_path: Path, where: tuple[str, ...], value: object, said: str
) -> None:
    folder = CHECKPOINTS / "nano-generalist"
    for file in folder.iterdir():
        if file.name != "manifest.json":
            (tmp_path / file.name).symlink_to(file)
    manifest = json.loads((folder / "manifest.json").read_text())
    values = manifest
    for name in where[:-1]:
        values = values[name]
    values[where[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match=said) as caught:
        load_runtime(ModelSettings(str(tmp_path), device="cpu"), ("vlm",))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
