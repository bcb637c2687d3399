"""Random chunks, states, messages and clocks through controller and gate: whatever comes, what goes out is safe.

The checks are written anew here, from the robot's limits, not with the gate's own code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructvla_ros.control import WX250S, ActionChunk, Command, Mode, WidowXController
from instructvla_ros.control.kinematics import JOINT_NAMES

EVENTS_EACH = 50
NAMES = (*JOINT_NAMES, "gripper", "left_finger", "right_finger")
PERIOD_S = 0.02
SPEED_RAD_S = 0.5 * math.pi
MAX_PWM = 350.0
ARC_M = 0.011
LOWER_M, UPPER_M = np.array([0.10, -0.28, 0.01]), np.array([0.45, 0.28, 0.40])

scale = st.sampled_from([0.0, 1e-3, 0.02, 0.05, 0.3, 1e3, 1e38, -0.05, -0.3, math.nan, math.inf, -math.inf])
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
joints = st.tuples(st.just("joints"), st.tuples(st.sampled_from(NAMES), scale, st.booleans()))
image = st.tuples(st.just("image"), st.tuples(st.sampled_from([0.0, 0.0, -1.0, 3600.0, math.nan]), st.integers(0, 2)))
other = st.sampled_from(
    ["instruction", "stop", "reset", "reanchor", "hold", "release", "home", "sleep", "blind", "see", "block", "free"]
)
event = st.one_of(tick, tick, tick, tick, chunk, chunk, joints, image, other.map(lambda name: (name, None)))


def outside_m(q_rad: np.ndarray) -> np.ndarray:
    """How far the gripper is outside the workspace box, per axis."""
    tip_m = WX250S.forward(q_rad)[1]
    return np.maximum(np.maximum(LOWER_M - tip_m, tip_m - UPPER_M), 0.0)


class Fuzzed:
    """A controller, an arm that follows it unless blocked, and the checks."""

    def __init__(self) -> None:
        self.controller = WidowXController()
        self.q = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])
        self.now_s, self.seq, self.instruction = 1000.0, 0, 0
        self.blind = self.blocked = self.stopped = False
        self.last: np.ndarray | None = None
        self.least_m = np.zeros(3)

    def apply(self, name: str, value: Any) -> None:
        getattr(self, f"do_{name}")(value)

    def do_tick(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s
        if not 0.0 <= elapsed_s <= 1.0:
            self.last = None  # the clock jumped: anchored anew
        if not self.blind:
            positions = [*self.q, 0.0, 0.03, -0.03]
            self.controller.on_joint_state(NAMES, positions, None, self.now_s, self.now_s)
            self.controller.on_image(self.now_s, self.now_s, self.seq)
        self.check(self.controller.tick(self.now_s))

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

    def do_joints(self, value: tuple[str, float, bool]) -> None:
        name, number, missing = value
        positions = dict(zip(NAMES, [*self.q, 0.0, 0.03, -0.03], strict=True)) | {name: number}
        if missing:
            del positions[name]
        if math.isfinite(number) and abs(number) > 10.0:
            return  # finite and absurd: no encoder says that, and no rule could tell it from a posture
        self.controller.on_joint_state(list(positions), list(positions.values()), None, self.now_s, self.now_s)
        if not missing and math.isfinite(number) and name in JOINT_NAMES:
            self.q = self.q.copy()
            self.q[JOINT_NAMES.index(name)] = number  # somebody pushed the arm there

    def do_image(self, value: tuple[float, int]) -> None:
        self.controller.on_image(self.now_s + value[0], self.now_s, value[1])

    def do_instruction(self, _: None) -> None:
        self.instruction += 1
        self.controller.on_instruction(self.instruction, self.now_s)

    def do_stop(self, _: None) -> None:
        self.controller.stop("fuzz")
        self.stopped = True

    def do_reset(self, _: None) -> None:
        self.controller.reset(self.now_s)
        self.stopped, self.last = False, None

    def do_reanchor(self, _: None) -> None:
        self.controller.reanchor(self.now_s)
        self.last = None

    def do_hold(self, _: None) -> None:
        self.controller.hold_for("F14", "fuzz")

    def do_release(self, _: None) -> None:
        self.controller.hold_for("F14", "")

    def do_home(self, _: None) -> None:
        self.controller.go_to(WX250S.home_rad, self.now_s)

    def do_sleep(self, _: None) -> None:
        self.controller.go_to(WX250S.sleep_rad, self.now_s)

    def do_blind(self, _: None) -> None:
        self.blind = True

    def do_see(self, _: None) -> None:
        self.blind = False

    def do_block(self, _: None) -> None:
        self.blocked = True

    def do_free(self, _: None) -> None:
        self.blocked = False

    def check(self, command: Command) -> None:
        goal = command.joint_goal_rad
        if self.stopped:
            assert command.mode is Mode.STOPPED, command
        if command.gripper_pwm is not None:
            assert abs(command.gripper_pwm) <= MAX_PWM  # false for NaN too
        if goal is None:
            self.last = None
            return
        assert np.isfinite(goal).all()
        sample = self.controller._sample
        assert sample is not None, "a command before any joint state"
        previous = sample.arm_rad if self.last is None else self.last
        assert np.max(np.abs(goal - previous)) <= SPEED_RAD_S * 2.0 * PERIOD_S + 1e-6, "too fast, or no anchor"
        outside = np.maximum(np.maximum(WX250S.lower_rad - goal, goal - WX250S.upper_rad), 0.0)
        before = np.maximum(np.maximum(WX250S.lower_rad - previous, previous - WX250S.upper_rad), 0.0)
        assert (outside <= before + 1e-6).all(), "beyond a joint limit"
        if command.mode in (Mode.STOPPED, Mode.FAULT, Mode.HOLD) and self.last is not None and self.stopped:
            assert np.max(np.abs(goal - self.last)) < 1e-9, "a command after a stop"
        excess_m = outside_m(goal)
        if self.last is None or command.mode is Mode.HOMING:
            self.least_m = np.maximum(outside_m(previous), excess_m)
        assert (excess_m <= self.least_m + ARC_M).all(), f"{excess_m} out of the box, and farther out"
        self.least_m = np.minimum(self.least_m, excess_m)
        self.last = goal
        if not self.blocked:
            self.q = self.q + 0.5 * (goal - self.q)


def run_events(events: list[tuple[str, Any]]) -> None:
    fuzzed = Fuzzed()
    for name, value in events:
        fuzzed.apply(name, value)


lists = st.lists(event, min_size=EVENTS_EACH, max_size=EVENTS_EACH)
quiet = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
@given(lists)
def test_two_thousand_random_messages_cannot_make_the_controller_unsafe(events: list[tuple[str, Any]]) -> None:
    run_events(events)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=quiet)
@given(lists)
def test_a_hundred_thousand_random_messages_cannot_make_the_controller_unsafe(events: list[tuple[str, Any]]) -> None:
    run_events(events)


def test_the_checks_can_fail() -> None:
    fuzzed = Fuzzed()
    fuzzed.do_tick(PERIOD_S)
    for unsafe in (np.full(6, np.nan), fuzzed.q + 0.2):
        with pytest.raises(AssertionError):
            fuzzed.check(Command(unsafe, None, None, Mode.MOVING, "", ""))
    fuzzed.do_stop(None)
    with pytest.raises(AssertionError):
        fuzzed.check(Command(fuzzed.q, None, None, Mode.MOVING, "", ""))
