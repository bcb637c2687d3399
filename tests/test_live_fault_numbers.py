"""The numbers of the fault list, measured in the running graph at its default parameters.

Every node in its own process, over DDS; times are those of this listener's steady clock. For a machine that does
nothing else meanwhile; `SLACK_S` is what the wire, a control tick and the listener may add.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from interbotix_xs_msgs.srv import Reboot  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from instructvla_msgs.msg import ActionChunk, Reasoning, SafetyState  # noqa: E402
from instructvla_ros.cli.soak_stats import CommandJudge  # noqa: E402
from instructvla_ros.control import ActionChunk as Chunk  # noqa: E402
from instructvla_ros.control import kinematics  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402
from instructvla_ros.nodes.codecs import chunk_to_message, time_to_s  # noqa: E402

if TYPE_CHECKING:
    from live_graph import LiveGraph

SLACK_S = 0.15
TICK_S = 0.02
INSTRUCTION = "put the carrot on the plate"
CONTROLLER, EXPERT = "widowx_controller_node", "action_expert_node"
HOLDING = SafetyState.MODE_HOLDING


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """The graph with the fault relay at its default parameters, active."""
    yield from started(tmp_path_factory, new_ros_domain)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """The same on the relay's clock, with a checkpoint that was trained on an arm that worked two metres higher."""
    yield from started(tmp_path_factory, new_ros_domain, height_m=2.0, faulty_clock="true")


def started(
    folders: pytest.TempPathFactory, new_ros_domain: Callable[[], int], height_m: float = 0.0, **given: str
) -> "Iterator[LiveGraph]":
    import live_graph

    with live_graph.with_relay(folders.mktemp("numbers"), new_ros_domain(), {}, height_m, **given) as made:
        made.moves(INSTRUCTION)
        yield made


@pytest.fixture
def graph(running: "LiveGraph") -> "Iterator[LiveGraph]":
    """The arm moves before the fault, and again after it."""
    running.moves(INSTRUCTION)
    yield running
    for stream in ("image", "joint_states", "latent_action", "action_chunk"):
        running.disturb(stream, "none")
    if running.safety().mode in (SafetyState.MODE_STOPPED, SafetyState.MODE_FAULT):
        assert running.until(lambda: running.trigger("reset").success)
    running.moves(INSTRUCTION)


def held_s(graph: "LiveGraph", fault_id: str, since_s: float) -> float:
    """How long after a time the controller first said that it holds because of this fault."""
    return graph.when("safety_state", since_s, lambda m: (m.fault_id, m.mode) == (fault_id, HOLDING)) - since_s


def latched(graph: "LiveGraph", fault_id: str, since_s: float) -> float:
    """When the controller first said after a time that this fault is latched."""
    fault = (fault_id, SafetyState.MODE_FAULT)
    return graph.when("safety_state", since_s, lambda m: (m.fault_id, m.mode) == fault)


def goals_since(graph: "LiveGraph", since_s: float) -> np.ndarray:
    """Joint goals (n, 6)."""
    return np.array([message.cmd for _, message in graph.since("/wx250s/commands/joint_group", since_s)])


def says_error(graph: "LiveGraph", node: str) -> bool:
    """Whether /diagnostics calls a node's state an error."""
    return bool(graph.diagnostics(node).level == DiagnosticStatus.ERROR)


def unsafe(goals: np.ndarray) -> list[str]:
    """What an onlooker finds wrong with joint goals."""
    judge = CommandJudge()
    for goal in goals:
        judge.goal(0.0, goal)
    return judge.unsafe


class Planner:
    """Chunks by hand on the topic of the expert's, which is inactive meanwhile. They pass the relay as its own do, so
    the controller hears one publisher."""

    def __init__(self, graph: "LiveGraph") -> None:
        self._graph, self._seq = graph, 0
        self.publisher = graph.client.node.create_publisher(ActionChunk, "action_chunk", qos.ACTION_CHUNK)
        assert graph.until(lambda: self.publisher.get_subscription_count() > 1), "this listener and the relay"
        answer = graph.say(INSTRUCTION, think=False)
        assert answer.accepted, answer.message
        assert graph.until(lambda: graph.safety().instruction_id == answer.instruction_id)

    def send(
        self,
        xyz: Sequence[float] = (0, 0, 0),
        rpy: Sequence[float] = (0, 0, 0),
        gripper: float = 1.0,
        dt_s: float = 0.2,
    ) -> None:
        """Eight equal steps."""
        self._seq += 1
        stamp_s = self._graph.client.node.get_clock().now().nanoseconds * 1e-9
        number = self._graph.safety().instruction_id
        made = Chunk(
            np.tile(xyz, (8, 1)), np.tile(rpy, (8, 1)), np.full(8, gripper), dt_s, stamp_s, number, self._seq
        )
        self.publisher.publish(chunk_to_message(made, "wx250s/base_link", 0.0))

    def push(self, until: Callable[[], bool], *chunks: Mapping[str, Any]) -> float:
        """Such chunks in turn, five times a second, until something is so; the time of the first."""
        began_s, turn = time.monotonic(), cycle(chunks)

        def done() -> bool:
            self.send(**next(turn))
            return self._graph.until(until, 0.2)

        assert self._graph.until(done), self._graph.safety()
        return began_s


@pytest.fixture
def planner(graph: "LiveGraph") -> Iterator[Planner]:
    """In place of the expert, which goes on with its heartbeat."""
    assert graph.transition(EXPERT, Transition.TRANSITION_DEACTIVATE)
    made = Planner(graph)
    yield made
    graph.client.node.destroy_publisher(made.publisher)
    assert graph.transition(EXPERT, Transition.TRANSITION_ACTIVATE)


def test_f01_without_pictures_the_arm_holds_after_half_a_second_and_diagnostics_say_error(graph: "LiveGraph") -> None:
    before_s, after_s = graph.disturb("image", "drop")
    assert held_s(graph, "F01", after_s) <= 0.5 + SLACK_S
    assert held_s(graph, "F01", before_s) >= 0.5 - 0.1 - SLACK_S  # the last picture came up to 0.1 s before
    assert graph.until(lambda: says_error(graph, CONTROLLER), 2.0), graph.diagnosis(CONTROLLER)
    graph.disturb("image", "none")
    assert graph.until(lambda: not says_error(graph, CONTROLLER)), graph.diagnosis(CONTROLLER)


def test_f01_after_five_seconds_without_pictures_a_fault_is_latched(graph: "LiveGraph") -> None:
    before_s, after_s = graph.disturb("image", "drop")
    latched_s = latched(graph, "F01", after_s)
    assert 5.0 - (after_s - before_s) - 0.1 - SLACK_S <= latched_s - after_s <= 5.0 + SLACK_S


def test_f04_pictures_a_twentieth_of_a_second_off_are_paired_and_four_tenths_are_not(graph: "LiveGraph") -> None:
    graph.disturb("image", "shift 0.05")
    graph.news("action_chunk", 5)
    _, after_s = graph.disturb("image", "shift 0.4")
    assert graph.until(lambda: graph.quiet("action_chunk", 1.0))
    assert graph.times["action_chunk"][-1] - after_s <= 0.1 + SLACK_S  # made from the last picture that was right


def test_f05_without_joint_states_the_arm_holds_after_a_tenth_of_a_second(graph: "LiveGraph") -> None:
    _, after_s = graph.disturb("joint_states", "drop")
    assert held_s(graph, "F05", after_s) <= 0.1 + SLACK_S


def test_f06_the_third_chunk_in_a_row_that_is_not_finite_latches_a_fault(graph: "LiveGraph", planner: Planner) -> None:
    before = graph.safety().chunks_rejected
    for count in (1, 2, 3):
        planner.send(xyz=(math.nan, 0, 0))
        assert graph.until(lambda c=count: graph.safety().chunks_rejected == before + c)
        assert (graph.safety().mode == SafetyState.MODE_FAULT) == (count == 3)


def test_f07_a_step_is_clamped_to_five_centimetres_and_refused_beyond_five_times_that(
    graph: "LiveGraph", planner: Planner
) -> None:
    began_s = planner.push(lambda: graph.heard["ee_delta"][-1].clamped, {"xyz": (0, 0, 0.06)})
    step = next(m for _, m in graph.since("ee_delta", began_s) if m.clamped)
    assert step.delta_xyz_m.z == pytest.approx(0.05)
    planner.push(lambda: graph.safety().mode == HOLDING and graph.safety().fault_id == "F07", {"xyz": (0, 0, 0.26)})


def test_f08_a_push_at_the_table_ends_a_centimetre_above_it_and_is_refused_in_the_end(
    graph: "LiveGraph", planner: Planner
) -> None:
    began_s = planner.push(
        lambda: graph.safety().mode == HOLDING and graph.safety().fault_id == "F08", {"xyz": (0, 0, -0.03)}
    )
    goals = goals_since(graph, began_s)
    assert unsafe(goals) == []
    assert min(kinematics.forward(goal)[1][2] for goal in goals) == pytest.approx(0.01, abs=0.002)


def test_f09_a_turn_that_no_posture_reaches_is_refused_and_no_joint_jumps(graph: "LiveGraph", planner: Planner) -> None:
    began_s = planner.push(
        lambda: graph.safety().mode == HOLDING and graph.safety().fault_id == "F09", {"rpy": (0, 0.2, 0)}
    )
    goals = goals_since(graph, began_s)
    assert unsafe(goals) == []
    assert np.abs(np.diff(goals, axis=0)).max() < 0.3


def test_f10_no_joint_is_sent_faster_than_half_its_limit(graph: "LiveGraph", planner: Planner) -> None:
    left, right = (
        {"xyz": (0, side * 0.05, 0), "rpy": (0, 0, -side * 0.25), "dt_s": 0.1} for side in (1.0, -1.0)
    )
    end_s = time.monotonic() + 4.0
    began_s = planner.push(lambda: time.monotonic() > end_s, left, left, right, right)
    goals = goals_since(graph, began_s)
    assert unsafe(goals) == []
    speeds = np.abs(goals[10:] - goals[:-10]).max(axis=1) / (10 * TICK_S)
    assert 0.4 * math.pi < speeds.max() <= 0.5 * math.pi * 1.1  # ticks are not all of one length


def test_f11_no_chunk_is_made_from_a_latent_older_than_four_seconds_and_the_arm_holds(graph: "LiveGraph") -> None:
    _, after_s = graph.disturb("latent_action", "drop")
    assert graph.until(lambda: graph.quiet("action_chunk", 1.5))
    last_s = graph.times["action_chunk"][-1]
    assert last_s - after_s <= 4.0 + SLACK_S
    holds_s = graph.when("safety_state", last_s, lambda m: m.mode == HOLDING) - last_s
    assert holds_s <= 0.8 + SLACK_S  # what is left of the last chunk's four steps


@pytest.mark.parametrize("node", [EXPERT, "reasoning_node"])
def test_f12_a_crash_holds_the_arm_within_four_seconds_and_the_node_is_active_again_within_ten(
    graph: "LiveGraph", node: str
) -> None:
    assert graph.until(lambda: graph.supervisor._spare.ready), "no spare process"
    graph.moves(INSTRUCTION)
    began_s = graph.send_signal(node, "KILL")

    def active_again() -> bool:
        held = any(m.mode == HOLDING for _, m in graph.since("safety_state", began_s))
        return held and bool(graph.trigger("lifecycle_manager_node/is_active").success)

    assert graph.until(active_again)
    took_s = time.monotonic() - began_s
    assert graph.when("safety_state", began_s, lambda m: m.mode == HOLDING) - began_s <= 4.0 + SLACK_S
    assert took_s <= 10.0


def test_f13_no_chunk_is_made_half_a_second_after_the_controller_fell_silent(graph: "LiveGraph") -> None:
    with graph.frozen(CONTROLLER) as began_s:
        assert graph.until(lambda: "(F13)" in graph.diagnosis(EXPERT), 3.0), graph.diagnosis(EXPERT)
        assert says_error(graph, EXPERT)
        assert graph.quiet("action_chunk", 1.0)
        assert graph.times["action_chunk"][-1] - began_s <= 0.5 + SLACK_S


def test_f13_f24_no_goal_is_sent_half_a_second_after_the_driver_fell_silent(graph: "LiveGraph") -> None:
    with graph.frozen("sim_node") as began_s:
        assert held_s(graph, "F05", began_s) <= 0.1 + SLACK_S
        latched_s = latched(graph, "F24", began_s)
        assert latched_s - began_s <= 0.5 + SLACK_S
        assert graph.quiet("/wx250s/commands/joint_group", 1.0)
        assert graph.times["/wx250s/commands/joint_group"][-1] <= latched_s + TICK_S


def test_f14_without_a_word_of_the_expert_the_arm_holds_after_two_policy_steps(graph: "LiveGraph") -> None:
    with graph.frozen(EXPERT) as began_s:
        assert 0.4 - 0.2 - SLACK_S <= held_s(graph, "F14", began_s) <= 0.4 + SLACK_S  # a chunk or heartbeat came before
        assert "neither chunk nor heartbeat" in graph.safety().reason
        assert graph.until(graph.still)


def test_f15_a_quality_of_service_that_does_not_fit_is_named_within_two_seconds(graph: "LiveGraph") -> None:
    profile = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    began_s = time.monotonic()
    publisher = graph.client.node.create_publisher(Reasoning, "reasoning", profile)
    assert graph.until(lambda: "(F15)" in graph.diagnosis(CONTROLLER), 5.0), graph.diagnosis(CONTROLLER)
    assert time.monotonic() - began_s <= 2.0
    graph.client.node.destroy_publisher(publisher)


def test_f20_from_the_tick_after_a_new_instruction_no_step_of_the_old_one_begins(graph: "LiveGraph") -> None:
    old = graph.safety().instruction_id
    for later_s in (0.0, 0.05, 0.1, 0.15):  # of the 0.2 s from step to step
        graph.when("ee_delta", time.monotonic(), lambda m, old=old: m.instruction_id == old)
        time.sleep(later_s)
        began_s = time.monotonic()
        new = graph.say(INSTRUCTION, think=False).instruction_id
        graph.when("ee_delta", began_s, lambda m, new=new: m.instruction_id == new)
        told = next(m for _, m in graph.since("reasoning", began_s) if m.instruction_id == new)
        steps = [m for _, m in graph.since("ee_delta", began_s - 1.0) if m.instruction_id == old]
        last_s, told_s = max(time_to_s(m.header.stamp) for m in steps), time_to_s(told.header.stamp)
        assert told_s - 0.4 < last_s <= told_s + 3 * TICK_S  # one, and two for the way there
        old = new


def test_f21_text_without_an_end_is_cut_after_fifty_tokens(graph: "LiveGraph") -> None:
    began_s = time.monotonic()
    number = graph.say(INSTRUCTION, think=True).instruction_id  # random weights never end by themselves
    graph.when("reasoning", began_s, lambda m: m.final and m.n_tokens and m.instruction_id == number)
    assert max(m.n_tokens for _, m in graph.since("reasoning", began_s)) == 50


def test_f22_the_tick_after_the_emergency_stop_moves_nothing(graph: "LiveGraph") -> None:
    publisher = graph.client.node.create_publisher(Bool, "estop", qos.EMERGENCY_STOP)
    assert graph.until(lambda: publisher.get_subscription_count() > 1)  # for reliable buttons and for others
    began_s = time.monotonic()
    publisher.publish(Bool(data=True))
    stopped_s = graph.when("safety_state", began_s, lambda m: m.mode == SafetyState.MODE_STOPPED)
    assert stopped_s - began_s <= TICK_S + SLACK_S
    graph.goals(10)
    goals = goals_since(graph, stopped_s + TICK_S)
    assert np.ptp(goals, axis=0).max() == 0.0
    assert graph.until(lambda: says_error(graph, CONTROLLER), 2.0), graph.diagnosis(CONTROLLER)
    graph.client.node.destroy_publisher(publisher)


def test_f23_a_gripper_command_that_chatters_turns_every_four_tenths_of_a_second_at_the_most(
    graph: "LiveGraph", planner: Planner
) -> None:
    end_s = time.monotonic() + 4.0
    began_s = planner.push(lambda: time.monotonic() > end_s, {"gripper": 0.0}, {"gripper": 1.0})
    told = graph.since("/wx250s/commands/joint_single", began_s)
    pushes = [(at_s, m.cmd > 0.0) for at_s, m in told if abs(m.cmd) > 200.0]  # less where the finger has come near
    turns = [at_s for (_, before), (at_s, now) in pairwise(pushes) if before != now]
    assert len(turns) > 2 and np.diff(turns).min() >= 0.4 - 2 * TICK_S


def test_f24_a_servo_fault_stops_the_arm_within_a_second(graph: "LiveGraph") -> None:
    began_s = time.monotonic()
    assert graph.set("sim/sim_node", fault="servo_overload")[0].successful
    stopped_s = graph.when("safety_state", began_s, lambda m: m.mode == SafetyState.MODE_STOPPED)
    assert graph.safety().fault_id == "F24"
    assert stopped_s - began_s <= 1.0 + SLACK_S
    graph.set("sim/sim_node", fault="none")
    request = Reboot.Request(cmd_type="group", name="arm", enable=True, smart_reboot=True)
    graph.client.call(Reboot, "/wx250s/reboot_motors", request, 60.0)


def test_f16_a_clock_that_stands_still_holds_the_arm_after_half_a_second(strange: "LiveGraph") -> None:
    before_s, after_s = strange.disturb("clock", "drop")
    assert held_s(strange, "F16", after_s) <= 0.5 + SLACK_S
    assert held_s(strange, "F16", before_s) >= 0.5 - SLACK_S
    strange.disturb("clock", "none")
    strange.moves(INSTRUCTION)


@pytest.mark.parametrize("jump", [1.5, -0.1])
def test_f16_a_clock_that_jumps_makes_no_goal_leap(strange: "LiveGraph", jump: float) -> None:
    strange.moves(INSTRUCTION)
    began_s, _ = strange.disturb("clock", f"shift {jump}")
    strange.goals(50)
    goals = goals_since(strange, began_s)
    assert np.abs(np.diff(goals, axis=0)).max() < 0.1
    strange.disturb("clock", "none")


def test_f18_states_unlike_those_of_the_training_data_are_named_in_diagnostics(strange: "LiveGraph") -> None:
    strange.moves(INSTRUCTION)
    assert strange.until(lambda: "(F18)" in strange.diagnosis(EXPERT)), strange.diagnosis(EXPERT)
    said = strange.diagnosis(EXPERT)
    assert said.startswith("100%") and "dimension 2" in said
    assert strange.diagnostics(EXPERT).level == DiagnosticStatus.WARN
