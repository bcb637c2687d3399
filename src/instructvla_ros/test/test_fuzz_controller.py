"""Random chunks, states, messages and clocks through controller and gate: whatever comes, what goes out is safe.

The checks are written anew here, from the robot's limits, not with the gate's own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructvla_ros.control import (
    FR3,
    WX250S,
    ActionChunk,
    ArmModel,
    Command,
    FrankaController,
    Mode,
    WidowXController,
)

EVENTS_EACH = 50
PERIOD_S = 0.02
MAX_PWM, FULL_WIDTH_M = 350.0, 0.08
ARC_M = 0.011
BRAKED_S = 1.5  # after a stop, by when an arm with limited acceleration has come to rest
BEYOND_RAD = 0.2  # of the limits: farther no joint can be
SILENT_S = 0.5  # without a joint state, until nothing is sent any more
ASTRAY_S = 0.2
LATCHED = (Mode.STOPPED, Mode.FAULT)


@dataclass(frozen=True)
class Subject:
    """An arm, its controller, and its limits: the share of the speed that may be used, the acceleration."""

    arm: ArmModel
    make: Callable[[], Any]
    fingers: dict[str, float]
    start_rad: tuple[float, ...]
    speed_rad_s: np.ndarray
    acceleration_rad_s2: float
    longest_s: float  # a goal moves by no more than in this time
    astray_rad: float  # farther from its goals no arm was led by them
    lower_m: tuple[float, float, float]
    upper_m: tuple[float, float, float]


WIDOWX = Subject(
    WX250S, WidowXController, {"gripper": 0.0, "left_finger": 0.03, "right_finger": -0.03},
    (0.1, -0.4, 0.3, 0.05, 1.5, -0.1), np.full(6, 0.5 * math.pi), math.inf, 0.04, 0.6,
    (0.10, -0.28, 0.01), (0.45, 0.28, 0.40),
)  # fmt: skip
FRANKA = Subject(
    FR3, FrankaController, {"fr3_finger_joint1": 0.03, "fr3_finger_joint2": 0.03},
    tuple(FR3.home_rad), 0.3 * np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26]), 10.0, 0.12, 0.4,
    (0.28, -0.40, 0.01), (0.75, 0.40, 0.60),
)  # fmt: skip
SUBJECTS = pytest.mark.parametrize("subject", [WIDOWX, FRANKA], ids=["widowx", "franka"])

numbers = [0.0, 1e-3, 0.02, 0.05, 0.3, 1e3, 1e38, -0.05, -0.3, -math.pi, math.nan, math.inf, -math.inf]
scale = st.sampled_from(numbers)
tick = st.tuples(st.just("tick"), st.sampled_from([0.02] * 8 + [0.0, 0.001, 0.019, 0.05, 0.3, 1.5, -0.5, -3600.0]))
chunk = st.tuples(
    st.just("chunk"),
    st.tuples(
        st.integers(0, 20),  # steps
        st.tuples(*[scale] * 7),
        st.sampled_from([0.2, 0.2, 0.2, 0.05, 0.0, -1.0, 5.0, math.nan]),  # dt
        st.sampled_from([0.0, 0.0, 0.0, -0.3, -2.0, 0.4, 3600.0, math.nan, math.inf]),  # stamp
        st.integers(0, 6),  # instruction
        st.sampled_from(["", "", "", "xyz", "rpy", "gripper"]),  # which array has another length
    ),
)
joints = st.tuples(st.just("joints"), st.tuples(st.integers(0, 8), scale, st.booleans()))
image = st.tuples(st.just("image"), st.tuples(st.sampled_from([0.0, 0.0, -1.0, 3600.0, math.nan]), st.integers(0, 2)))
other = st.sampled_from(
    ["instruction", "stop", "reset", "reanchor", "hold", "release", "home", "sleep", "blind", "see", "block", "free"]
    + ["bus_fails", "bus_works", "rival", "alone"]
)
ticks = st.tuples(st.just("ticks"), st.integers(5, 40))
event = st.one_of(tick, tick, tick, tick, ticks, chunk, chunk, joints, image, other.map(lambda name: (name, None)))


class Fuzzed:
    """A controller, an arm that follows it unless blocked, and the checks. What is checked against is where the arm is,
    not what the controller was told: a bus that cannot be read tells another posture."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.arm = subject, subject.arm
        self.controller = subject.make()
        self.q = np.array(subject.start_rad)
        self.elapsed_s, self.stopped_s = 0.0, math.inf
        self.velocity: np.ndarray | None = None
        self.now_s, self.seq, self.instruction = 1000.0, 0, 0
        self.ticked_s = self.now_s
        self.blind = self.blocked = self.stopped = self.bus_failed = self.rival = False
        self.last: np.ndarray | None = None
        self.least_m = np.zeros(3)
        self.seen: tuple[np.ndarray, float] | None = None  # where the arm was, and when, as it was told last
        self.astray_from_s: float | None = None
        self.silent_s: float | None = None  # since a joint state told where the arm is; None before the first

    def measured(self) -> dict[str, float]:
        """All joints by name."""
        return dict(zip(self.arm.joint_names, self.q.tolist(), strict=True)) | self.subject.fingers

    def tell(self, positions: dict[str, float]) -> None:
        """A joint state for the controller, and what of it can be believed."""
        told = positions | (dict.fromkeys(self.arm.joint_names, -math.pi) if self.bus_failed else {})
        self.controller.on_joint_state(list(told), list(told.values()), None, self.now_s, self.now_s)
        values = np.array([told.get(name, math.nan) for name in self.arm.joint_names])
        beyond = np.maximum(self.arm.lower_rad - values, values - self.arm.upper_rad) > BEYOND_RAD
        finger_m = told.get(self.arm.fingers.joint, math.nan)
        if not np.isfinite(values).all() or beyond.any() or not math.isfinite(finger_m):
            return
        if self.seen is None or not 0.0 <= self.seen[1] - self.now_s <= 1.0:  # else it is no news
            self.q, self.silent_s, self.seen = values, 0.0, (values, self.now_s)

    def outside_m(self, q_rad: np.ndarray) -> np.ndarray:
        """How far the gripper is outside the workspace box, per axis."""
        tip_m = self.arm.forward(q_rad)[1]
        return np.maximum(np.maximum(self.subject.lower_m - tip_m, tip_m - self.subject.upper_m), 0.0)

    def anchored_anew(self) -> None:
        self.last = self.velocity = self.astray_from_s = None

    def apply(self, name: str, value: Any) -> None:
        getattr(self, f"do_{name}")(value)

    def do_tick(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s
        self.elapsed_s, self.ticked_s = self.now_s - self.ticked_s, self.now_s
        if not 0.0 <= self.elapsed_s <= 1.0:
            self.seen = None
            self.anchored_anew()  # the clock jumped
        if self.silent_s is not None:
            self.silent_s += min(max(self.elapsed_s, 0.0), 0.1)
        if not self.blind:
            self.tell(self.measured())
            self.controller.on_image(self.now_s, self.now_s, self.seq)
        self.check(self.controller.tick(self.now_s))

    def do_ticks(self, count: int) -> None:
        for _ in range(count):
            self.do_tick(PERIOD_S)

    def do_chunk(self, value: tuple[int, tuple[float, ...], float, float, int, str]) -> None:
        steps, row, dt_s, stamp_s, instruction, odd = value
        self.seq += 1
        length = {name: steps + (name == odd) for name in ("xyz", "rpy", "gripper")}
        self.controller.on_chunk(
            ActionChunk(
                np.tile(row[:3], (length["xyz"], 1)),
                np.tile(row[3:6], (length["rpy"], 1)),
                np.full(length["gripper"], row[6]),
                dt_s,
                self.now_s + stamp_s,
                instruction,
                self.seq,
            ),
            self.now_s,
        )

    def do_joints(self, value: tuple[int, float, bool]) -> None:
        which, number, missing = value
        positions = self.measured()
        name = list(positions)[which]
        positions[name] = number
        if missing:
            del positions[name]
        self.now_s += 1e-3
        self.tell(positions)  # somebody pushed the arm there, where that is possible

    def do_image(self, value: tuple[float, int]) -> None:
        self.controller.on_image(self.now_s + value[0], self.now_s, value[1])

    def do_instruction(self, _: None) -> None:
        self.instruction += 1
        self.controller.on_instruction(self.instruction, self.now_s)

    def do_stop(self, _: None) -> None:
        self.controller.stop("fuzz")
        if not self.stopped:
            self.stopped, self.stopped_s = True, self.now_s

    def do_reset(self, _: None) -> None:
        self.controller.reset(self.now_s)
        self.stopped, self.seen = False, None
        self.silent_s = None if self.silent_s is None else 0.0
        self.anchored_anew()

    def do_reanchor(self, _: None) -> None:
        self.controller.reanchor(self.now_s)
        self.seen = None
        self.anchored_anew()

    def do_hold(self, _: None) -> None:
        self.controller.hold_for("F14", "fuzz")

    def do_release(self, _: None) -> None:
        self.controller.hold_for("F14", "")

    def do_rival(self, _: None) -> None:
        self.controller.give_way("fuzz", self.now_s)
        self.rival = True

    def do_alone(self, _: None) -> None:
        self.controller.give_way("", self.now_s)
        if self.rival:
            self.rival, self.seen = False, None
            self.anchored_anew()

    def do_bus_fails(self, _: None) -> None:
        self.bus_failed = True

    def do_bus_works(self, _: None) -> None:
        self.bus_failed = False

    def do_home(self, _: None) -> None:
        self.controller.go_to(self.arm.home_rad, self.now_s)

    def do_sleep(self, _: None) -> None:
        self.controller.go_to(self.arm.sleep_rad, self.now_s)

    def do_blind(self, _: None) -> None:
        self.blind = True

    def do_see(self, _: None) -> None:
        self.blind = False

    def do_block(self, _: None) -> None:
        self.blocked = True

    def do_free(self, _: None) -> None:
        self.blocked = False

    def strayed(self, goal: np.ndarray) -> bool:
        """Whether the goal may jump to where the arm is: it was long elsewhere than its goals led it (F10)."""
        far_rad = self.subject.astray_rad
        if self.last is None or self.seen is None or np.max(np.abs(self.last - self.seen[0])) <= far_rad:
            self.astray_from_s = None
            return False
        if self.astray_from_s is None:
            self.astray_from_s = self.seen[1]
        long_enough = self.seen[1] - self.astray_from_s >= ASTRAY_S - 1e-6
        return bool(long_enough and np.max(np.abs(goal - self.seen[0])) < 1e-9)

    def check(self, command: Command) -> None:
        goal = command.joint_goal_rad
        if self.stopped:
            assert command.mode in LATCHED, command
        if self.rival:
            assert goal is None, "a goal against somebody else's"
        if self.silent_s is not None and self.silent_s > SILENT_S + 0.11:  # it looks once in a tick
            assert goal is None, "a goal for an arm of which nothing is known"
        if command.gripper_pwm is not None:
            assert abs(command.gripper_pwm) <= MAX_PWM  # false for NaN too
        if command.gripper_width_m is not None:
            assert 0.0 <= command.gripper_width_m <= FULL_WIDTH_M
        if goal is None:
            self.anchored_anew()
            return
        assert np.isfinite(goal).all()
        assert self.silent_s is not None, "a command before any joint state"
        if self.strayed(goal):
            self.anchored_anew()
        elif command.mode in LATCHED:
            assert self.last is not None, "a goal for an arm that had none when it was stopped"
        previous = self.q if self.last is None else self.last
        change = goal - previous
        speed = self.subject.speed_rad_s
        assert (np.abs(change) <= speed * self.subject.longest_s + 1e-6).all(), "too fast, or no anchor"
        outside = np.maximum(np.maximum(self.arm.lower_rad - goal, goal - self.arm.upper_rad), 0.0)
        before = np.maximum(np.maximum(self.arm.lower_rad - previous, previous - self.arm.upper_rad), 0.0)
        assert (outside <= before + 1e-6).all(), "beyond a joint limit"
        if self.stopped and self.last is not None:
            braked = math.isinf(self.subject.acceleration_rad_s2) or self.now_s - self.stopped_s > BRAKED_S
            assert not braked or np.max(np.abs(change)) < 1e-9, "a command after a stop"
        self.check_acceleration(change)
        excess_m = self.outside_m(goal)
        if self.last is None or command.mode is Mode.HOMING:
            self.least_m = np.maximum(self.outside_m(previous), excess_m)
        assert (excess_m <= self.least_m + ARC_M).all(), f"{excess_m} out of the box, and farther out"
        self.least_m = np.minimum(self.least_m, excess_m)
        self.last = goal
        if not self.blocked:
            self.q = self.q + 0.5 * (goal - self.q)

    def check_acceleration(self, change: np.ndarray) -> None:
        """From one tick in time to the next; a goal that is repeated is a stop, which is always allowed."""
        before, self.velocity = self.velocity, None
        if self.last is None or abs(self.elapsed_s - PERIOD_S) > 1e-9:
            return
        self.velocity = change / PERIOD_S
        if before is not None and np.max(np.abs(change)) > 1e-9:
            most = self.subject.acceleration_rad_s2 * PERIOD_S * 1.001 + 1e-5
            assert (np.abs(self.velocity - before) <= most).all(), "speeds up or brakes too fast"


def run_events(subject: Subject, events: list[tuple[str, Any]]) -> None:
    fuzzed = Fuzzed(subject)
    for name, value in events:
        fuzzed.apply(name, value)


lists = st.lists(event, min_size=EVENTS_EACH, max_size=EVENTS_EACH)
quiet = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


@SUBJECTS
@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
@given(events=lists)
def test_two_thousand_random_messages_cannot_make_the_controller_unsafe(
    subject: Subject, events: list[tuple[str, Any]]
) -> None:
    run_events(subject, events)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@SUBJECTS
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=quiet)
@given(events=lists)
def test_a_hundred_thousand_random_messages_cannot_make_the_controller_unsafe(
    subject: Subject, events: list[tuple[str, Any]]
) -> None:
    run_events(subject, events)


@SUBJECTS
def test_f10_an_arm_that_is_pushed_far_while_it_is_blocked_is_anchored_there(subject: Subject) -> None:
    fuzzed = Fuzzed(subject)
    fuzzed.do_ticks(3)
    fuzzed.do_block(None)
    fuzzed.do_joints((4, subject.start_rad[4] - 1.2, False))
    fuzzed.do_ticks(20)
    assert fuzzed.last is not None and fuzzed.last[4] == fuzzed.q[4]


@SUBJECTS
def test_the_checks_can_fail(subject: Subject) -> None:
    fuzzed = Fuzzed(subject)
    fuzzed.do_tick(PERIOD_S)
    for unsafe in (np.full(subject.arm.joints, np.nan), fuzzed.q + 0.5):
        with pytest.raises(AssertionError):
            fuzzed.check(Command(unsafe, None, None, Mode.MOVING, "", ""))
    fuzzed.do_bus_fails(None)
    fuzzed.do_ticks(20)
    with pytest.raises(AssertionError):  # anchored where the bus says that the arm is
        fuzzed.check(Command(np.full(subject.arm.joints, -math.pi), None, None, Mode.HOLD, "", ""))
    fuzzed.do_ticks(20)
    with pytest.raises(AssertionError):
        fuzzed.check(Command(fuzzed.q, None, None, Mode.FAULT, "", ""))
    fuzzed = Fuzzed(subject)
    fuzzed.do_ticks(3)
    fuzzed.do_stop(None)
    with pytest.raises(AssertionError):
        fuzzed.check(Command(fuzzed.q, None, None, Mode.MOVING, "", ""))
