"""Faults in the running graph: every node in its own process, over DDS, disturbed from outside.

One graph with the fault relay and a random checkpoint; each test begins and ends with an arm that moves.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")

from interbotix_xs_msgs.msg import JointGroupCommand  # noqa: E402
from interbotix_xs_msgs.srv import Reboot  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from instructvla_msgs.msg import ActionChunk, Reasoning, SafetyState  # noqa: E402
from instructvla_ros.cli import main as cli  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402

if TYPE_CHECKING:
    from live_graph import LiveGraph

INSTRUCTION = "put the carrot on the plate"
EXECUTING, HOLDING = SafetyState.MODE_EXECUTING, SafetyState.MODE_HOLDING


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """The graph with the fault relay, active."""
    import live_graph

    with live_graph.with_relay(tmp_path_factory.mktemp("faults"), new_ros_domain()) as made:
        yield made


@pytest.fixture
def graph(running: "LiveGraph") -> "Iterator[LiveGraph]":
    """The arm moves before the fault, and again after it."""
    running.moves(INSTRUCTION)
    yield running
    for stream in ("image", "joint_states", "latent_action", "action_chunk"):
        assert cli.main(["fault", "stream", stream, "none"]) == 0
    if running.safety().mode in (SafetyState.MODE_STOPPED, SafetyState.MODE_FAULT):
        assert cli.main(["reset"]) == 0
    running.moves(INSTRUCTION)


def disturb(stream: str, *fault: str) -> None:
    assert cli.main(["fault", "stream", stream, *fault]) == 0


@pytest.mark.parametrize("fault", ["drop", "delay 30"])
def test_f01_a_camera_that_stops_makes_the_arm_hold(graph: "LiveGraph", fault: str) -> None:
    disturb("image", *fault.split())
    assert "image" in graph.holds("F01").reason
    assert graph.until(graph.still)


def test_f02_spoiled_pictures_are_refused_with_the_reason_and_no_node_ends(graph: "LiveGraph") -> None:
    pids = dict(graph.supervisor.pids)
    disturb("image", "corrupt")  # black, of an unknown encoding, of another size than it says, cut short, in turn
    assert "chunk" in graph.holds("F11").reason  # the controller looks at stamps only; the expert refuses the pictures
    assert graph.until(graph.still)
    assert graph.until(lambda: "encoding" in graph.log())
    assert graph.supervisor.pids == pids


def test_f03_a_frozen_picture_under_new_stamps_makes_the_moving_arm_hold(graph: "LiveGraph") -> None:
    disturb("image", "freeze")
    assert "picture" in graph.holds("F03").reason
    assert graph.until(graph.still)


def test_f04_pictures_with_stamps_of_another_clock_are_not_paired_and_the_arm_holds(graph: "LiveGraph") -> None:
    disturb("image", "shift", "5")
    seen = len(graph.heard["action_chunk"])
    assert "chunk" in graph.holds("F11").reason
    chunks = graph.heard["action_chunk"][seen:]
    assert all(chunk.seq < graph.heard["action_chunk"][-1].seq + 1 for chunk in chunks)
    assert graph.quiet("action_chunk", 1.0)


def test_f05_a_spoiled_joint_state_makes_the_arm_hold(graph: "LiveGraph") -> None:
    disturb("joint_states", "corrupt")
    graph.holds("F05")
    assert graph.until(graph.still)
    assert np.isfinite(graph.goals(5)).all()


def test_f06_f07_f19_spoiled_chunks_are_never_followed(graph: "LiveGraph") -> None:
    before = graph.safety().chunks_rejected
    disturb("action_chunk", "corrupt")
    assert graph.until(lambda: graph.safety().chunks_rejected >= before + 3)
    assert graph.until(lambda: graph.safety().mode != EXECUTING)
    assert graph.until(graph.still)
    assert np.isfinite(graph.goals(5)).all()


def test_f11_without_latents_the_arm_holds_once_the_last_is_too_old(graph: "LiveGraph") -> None:
    disturb("latent_action", "drop")
    graph.holds("F11")
    assert graph.until(graph.still)


@pytest.fixture
def ticking(tmp_path: Path, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """A graph on a clock that can be disturbed, moving."""
    import live_graph

    with live_graph.with_relay(tmp_path, new_ros_domain(), faulty_clock="true") as made:
        made.moves(INSTRUCTION)
        yield made


def test_f16_a_clock_that_stands_still_holds_the_arm_and_one_that_jumps_does_not_make_it_leap(
    ticking: "LiveGraph",
) -> None:
    disturb("clock", "drop")
    assert "stood still" in ticking.holds("F16").reason
    assert ticking.until(ticking.still)
    disturb("clock", "none")
    ticking.moves(INSTRUCTION)
    seen = len(ticking.heard["/wx250s/commands/joint_group"])
    for jump in ("5", "-5"):
        disturb("clock", "shift", jump)
        ticking.goals(25)
        ticking.moves(INSTRUCTION)
    goals = np.array([message.cmd for message in ticking.heard["/wx250s/commands/joint_group"][seen:]])
    assert np.abs(np.diff(goals, axis=0)).max() < 0.1


@pytest.mark.parametrize("node", ["action_expert_node", "reasoning_node"])
def test_f12_a_policy_node_that_is_killed_comes_back_and_moves_nothing_before_it_is_asked(
    graph: "LiveGraph", node: str
) -> None:
    pid = graph.supervisor.pids[node]
    assert cli.main(["fault", "kill", node]) == 0
    assert graph.until(lambda: graph.safety().mode == HOLDING and graph.still()), graph.safety()
    assert graph.until(lambda: graph.supervisor.pids[node] != pid), graph.log()
    from live_graph import START_LIMIT_S

    assert graph.until(lambda: graph.trigger("lifecycle_manager_node/is_active").success, START_LIMIT_S), graph.log()


def test_f13_without_a_living_controller_the_expert_makes_no_chunks(graph: "LiveGraph") -> None:
    with graph.frozen("widowx_controller_node"):
        assert graph.until(lambda: "(F13)" in graph.diagnosis("action_expert_node"))
        assert graph.quiet("action_chunk", 1.0)
    graph.news("action_chunk")


def test_f14_when_nothing_is_heard_of_the_expert_the_arm_holds(graph: "LiveGraph") -> None:
    with graph.frozen("action_expert_node"):
        assert "neither chunk nor heartbeat" in graph.holds("F14").reason
        assert graph.until(graph.still)


@pytest.mark.parametrize(
    ("kind", "topic"),
    [(JointGroupCommand, "/wx250s/commands/joint_group"), (ActionChunk, "/faulty/instructvla/action_chunk")],
)
def test_f14_a_second_publisher_makes_the_arm_hold_until_it_is_gone(graph: "LiveGraph", kind: Any, topic: str) -> None:
    publisher = graph.client.node.create_publisher(kind, topic, qos.ACTION_CHUNK)
    assert "publisher" in graph.holds("F14").reason
    goals = "/wx250s/commands/joint_group"  # no goal is sent against another commander's
    assert graph.until(lambda: graph.quiet(goals, 1.0) if topic == goals else graph.still())
    graph.client.node.destroy_publisher(publisher)
    assert graph.until(lambda: graph.safety().fault_id != "F14")


def test_f15_a_publisher_whose_quality_of_service_does_not_fit_is_named_with_a_hint(graph: "LiveGraph") -> None:
    latched = DurabilityPolicy.TRANSIENT_LOCAL  # as the nodes ask for; only the reliability does not fit
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=latched)
    publisher = graph.client.node.create_publisher(Reasoning, "reasoning", best_effort)
    assert graph.until(lambda: "(F15)" in graph.diagnosis("widowx_controller_node"))
    said = graph.diagnosis("widowx_controller_node")
    assert "reasoning" in said and "RELIABILITY" in said and "ros2 topic info" in said
    graph.client.node.destroy_publisher(publisher)


def test_f21_text_without_an_end_is_cut_and_the_chunks_go_on_meanwhile(graph: "LiveGraph") -> None:
    from live_graph import CHEAP

    assert graph.say(INSTRUCTION, think=True).accepted  # random weights never end by themselves
    seen = len(graph.heard["reasoning"])
    assert graph.until(lambda: any(m.final and m.n_tokens for m in graph.heard["reasoning"][seen:]))
    longest = max(message.n_tokens for message in graph.heard["reasoning"][seen:])
    assert longest == CHEAP["reasoning_node"]["max_new_tokens"]
    graph.news("action_chunk", 3)


def test_f24_a_servo_fault_latches_until_the_servo_was_rebooted(graph: "LiveGraph") -> None:
    graph.set("sim/sim_node", fault="servo_overload")
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_STOPPED)
    assert graph.safety().fault_id == "F24" and "overload" in graph.safety().reason
    graph.set("sim/sim_node", fault="none")
    assert cli.main(["reset"]) == 1, "the servo is still in its fault"
    request = Reboot.Request(cmd_type="group", name="arm", enable=True, smart_reboot=True)
    graph.client.call(Reboot, "/wx250s/reboot_motors", request, 60.0)
    assert graph.until(lambda: cli.main(["reset"]) == 0)


def test_f22_the_estop_topic_latches_and_moves_nothing_before_reset_and_a_new_instruction(graph: "LiveGraph") -> None:
    publisher = graph.client.node.create_publisher(Bool, "estop", qos.EMERGENCY_STOP)
    assert graph.until(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(Bool(data=True))
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_STOPPED)
    assert graph.safety().fault_id == "F22"
    graph.goals(2)
    assert graph.still()
    assert cli.main(["reset"]) == 0
    assert graph.until(lambda: graph.safety().mode in (SafetyState.MODE_IDLE, HOLDING))
    assert graph.still()
    graph.client.node.destroy_publisher(publisher)


def test_a_fault_that_nobody_knows_is_refused_and_a_graph_without_relay_is_named(
    running: "LiveGraph", capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["fault", "stream", "image", "drop", "7"]) == 1
    assert "expected 0..1" in capsys.readouterr().err
    assert cli.main(["fault", "kill", "no_such_node"]) == 1
    assert "no heartbeat" in capsys.readouterr().err
    assert cli.main(["fault", "disk", str(tmp_path), "--leave-mb", "1", "--most-mb", "1"]) == 1
    assert "take a smaller disk" in capsys.readouterr().err


def test_told_to_end_all_at_once_as_by_ros2_launch_every_node_ends_by_itself_and_no_goal_follows(
    running: "LiveGraph",
) -> None:
    running.moves(INSTRUCTION)
    processes = dict(running.supervisor._running)
    told_s = time.monotonic()
    for process in processes.values():
        process.send_signal(signal.SIGINT)
    ended = {name: process.wait(5.0) for name, process in processes.items()}  # then ros2 launch sends SIGTERM
    assert ended == dict.fromkeys(processes, 0), running.log()
    assert not running.since("/wx250s/commands/joint_group", told_s + 1.0)
    assert abs(running.heard["/wx250s/commands/joint_single"][-1].cmd) <= 200.0  # the relieved force
    assert "Traceback" not in running.log(), running.log()
