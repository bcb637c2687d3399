"""Going home and to sleep, and the controller of a Franka through the same rules as a WidowX's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from instructvla_ros.control import FR3, WX250S, ArmController, FrankaController, Mode, WidthArmConfig
from instructvla_ros.control.safety import SafetyConfig


def ticks_until(bench: Any, mode: Mode, most: int = 1500) -> int:
    for count in range(most):
        if bench.tick().mode is mode:
            return count
    raise AssertionError(f"never {mode}")


def test_the_arm_goes_home_slowly_without_a_camera_and_then_holds_there(bench: Any) -> None:
    bench.feed_images = False
    assert bench.controller.go_to(WX250S.home_rad, bench.now_s) == ""
    assert bench.tick().mode is Mode.HOMING
    ticks_until(bench, Mode.HOLD)
    np.testing.assert_allclose(bench.goals[-1], WX250S.home_rad, atol=1e-9)
    speed = np.abs(np.diff(np.array(bench.goals), axis=0)).max() / 0.02
    assert 0.45 < speed <= SafetyConfig().homing_speed_rad_s + 1e-6


def test_f14_there_is_no_way_home_while_something_holds_the_arm_and_the_answer_says_what(bench: Any) -> None:
    bench.controller.hold_for("F14", "two commanders")
    assert bench.controller.go_to(WX250S.home_rad, bench.now_s) == "two commanders"
    assert bench.tick().mode is Mode.HOLD
    bench.controller.hold_for("F14", "")
    bench.joint_state(elbow=float("nan"))
    assert "elbow" in bench.controller.go_to(WX250S.home_rad, bench.now_s)


def test_chunks_of_the_instruction_before_do_not_disturb_the_way_home(bench: Any) -> None:
    bench.controller.go_to(WX250S.sleep_rad, bench.now_s)
    bench.tick(5)
    assert "ended" in bench.controller.on_chunk(_chunk(bench.now_s), bench.now_s)
    assert bench.tick().mode is Mode.HOMING


@pytest.mark.parametrize("interruption", ["stop", "instruction"])
def test_a_stop_or_a_new_instruction_ends_the_way_home_at_once(bench: Any, interruption: str) -> None:
    bench.controller.go_to(WX250S.home_rad, bench.now_s)
    bench.tick(10)
    if interruption == "stop":
        bench.controller.stop("test")
    else:
        bench.controller.on_instruction(2, bench.now_s)
    command = bench.tick()
    assert command.mode is not Mode.HOMING
    later = bench.tick(10)
    np.testing.assert_allclose(later.joint_goal_rad, command.joint_goal_rad)


def test_a_stopped_controller_does_not_go_home(bench: Any) -> None:
    bench.controller.stop("emergency")
    assert "emergency" in bench.controller.go_to(WX250S.home_rad, bench.now_s)


def test_a_way_that_leads_below_the_table_is_refused(bench_factory: Callable[..., Any]) -> None:
    """The forearm lies low, the gripper points to one side and should point to the other: it would swing below."""
    left, right = (np.array([0.0, 1.5, -1.5, roll, 1.4, 0.0]) for roll in (-1.57, 1.57))
    bench = bench_factory(start_rad=left)
    bench.tick()
    assert "floor" in bench.controller.go_to(right, bench.now_s)
    assert bench.tick().mode is not Mode.HOMING


def _chunk(stamp_s: float, xyz: tuple[float, float, float] = (0.01, 0.0, 0.0), gripper: float = 1.0) -> Any:
    from instructvla_ros.control import ActionChunk

    steps = 8
    return ActionChunk(np.tile(xyz, (steps, 1)), np.zeros((steps, 3)), np.full(steps, gripper), 0.2, stamp_s, 1, 0)


class FrankaBench:
    """A Franka controller on a fake clock, with an arm that follows its goals exactly, 50 Hz."""

    def __init__(self) -> None:
        self.controller: ArmController = FrankaController(WidthArmConfig())
        self.q, self.finger_m, self.now_s = FR3.home_rad.copy(), 0.04, 5.0
        self.names = [*FR3.joint_names, "fr3_finger_joint1", "fr3_finger_joint2"]
        self.commands: list[Any] = []

    def tick(self, count: int = 1, period_s: float = 0.02) -> Any:
        for _ in range(count):
            self.now_s = round(self.now_s + period_s, 6)
            values = [*self.q, self.finger_m, self.finger_m]
            self.controller.on_joint_state(self.names, values, None, self.now_s, self.now_s)
            self.controller.on_image(self.now_s, self.now_s)
            self.commands.append(self.controller.tick(self.now_s))
            if self.commands[-1].joint_goal_rad is not None:
                self.q = self.commands[-1].joint_goal_rad.copy()
        return self.commands[-1]


@pytest.fixture
def franka() -> FrankaBench:
    bench = FrankaBench()
    bench.controller.on_instruction(1, bench.now_s)
    bench.tick(2)  # two joint states tell that it rests
    bench.commands.pop(0)
    return bench


def test_a_franka_follows_a_chunk_in_the_base_axes_and_reports_the_policys_state(franka: FrankaBench) -> None:
    before = franka.controller.measured_state()
    franka.controller.on_chunk(_chunk(franka.now_s, (0.02, -0.01, -0.015)), franka.now_s)
    franka.tick(120)
    after = franka.controller.measured_state()
    assert before is not None and after is not None
    np.testing.assert_allclose(after[:3] - before[:3], 8 * np.array([0.02, -0.01, -0.015]), atol=2e-3)
    np.testing.assert_allclose(after[3:6], 0.0, atol=1e-3)
    assert after[7] == 1.0


def test_a_frankas_goals_keep_to_30_percent_of_its_velocity_and_acceleration(franka: FrankaBench) -> None:
    for xyz in ((0.04, 0.0, 0.0), (-0.04, 0.04, 0.0), (0.0, -0.04, -0.04)):
        franka.controller.on_chunk(_chunk(franka.now_s, xyz), franka.now_s)
        franka.tick(35)
    franka.controller.stop("in full motion")
    franka.tick(60)
    goals = np.array([c.joint_goal_rad for c in franka.commands])
    velocity = np.diff(goals, axis=0) / 0.02
    assert (np.abs(velocity).max(axis=0) <= 0.3 * FR3.velocity_rad_s + 1e-9).all()
    assert np.abs(np.diff(velocity, axis=0)).max() / 0.02 <= 0.3 * 10.0 + 1e-6
    np.testing.assert_allclose(velocity[-1], 0.0, atol=1e-9)


@pytest.mark.parametrize("late_s", [0.03, 0.05, 0.07, 0.1, 0.15, 0.3])
@pytest.mark.parametrize("ticks", [6, 10, 14, 20, 27])
def test_a_franka_in_motion_goes_on_after_a_late_tick(franka: FrankaBench, ticks: int, late_s: float) -> None:
    """It has braked by itself meanwhile: to go on from there is no jump."""
    franka.controller.on_chunk(_chunk(franka.now_s, (0.03, 0.02, -0.02)), franka.now_s)
    franka.tick(ticks)
    assert np.abs(franka.commands[-1].joint_velocity_rad_s).max() > 0.15, "it moves"
    franka.tick(1, late_s)
    franka.tick(10)
    assert not franka.controller.counts["F10"], franka.commands[-11:]


def in_motion(franka: FrankaBench) -> np.ndarray:
    """The arm moves -> its speed (7,)."""
    franka.controller.on_chunk(_chunk(franka.now_s, (0.03, 0.02, -0.02)), franka.now_s)
    franka.tick(14)
    speed = franka.commands[-1].joint_velocity_rad_s
    assert np.abs(speed).max() > 0.2
    return speed


@pytest.mark.parametrize("anew", ["reanchor", "reset", "stop and reset", "clock"])
def test_a_franka_in_motion_is_not_anchored_before_it_rests(franka: FrankaBench, anew: str) -> None:
    """A goal at rest where it is now would ask of it to stop dead."""
    controller = franka.controller
    speed = in_motion(franka)
    if "stop" in anew:
        controller.stop("a button")
        franka.tick()
    if "reset" in anew:
        controller.reset(franka.now_s)
    elif anew == "reanchor":
        controller.reanchor(franka.now_s)
    else:
        franka.now_s += 2.0
    for part in (0.9, 0.6, 0.3):  # nothing is sent: it brakes by itself
        franka.q = franka.q + 0.02 * part * speed
        waiting = franka.tick()
        assert waiting.joint_goal_rad is None and waiting.mode is Mode.WAITING
    franka.tick(3)
    np.testing.assert_allclose(franka.commands[-1].joint_goal_rad, franka.q)


@pytest.mark.parametrize("beyond_rad", [0.004, 0.01, 0.028])
def test_a_franka_that_stands_in_the_margin_of_a_joint_limit_stays_there_and_may_leave_it(beyond_rad: float) -> None:
    bench = FrankaBench()
    bench.q[3] = FR3.lower_rad[3] + SafetyConfig().joint_margin_rad - beyond_rad
    start = bench.q.copy()
    assert bench.tick(10).fault_id == ""
    np.testing.assert_array_equal(bench.q, start)
    assert bench.controller.go_to(FR3.home_rad, bench.now_s) == ""
    assert bench.tick().mode is Mode.HOMING
    bench.tick(300)
    np.testing.assert_allclose(bench.q, FR3.home_rad, atol=1e-6)
    assert not bench.controller.counts["F10"]


@pytest.mark.parametrize("late_s", [0.1, 0.2])
@pytest.mark.parametrize("how", ["hold", "stop"])
def test_a_franka_that_is_to_halt_does_not_start_again_after_a_late_tick(
    franka: FrankaBench, how: str, late_s: float
) -> None:
    in_motion(franka)
    if how == "stop":
        franka.controller.stop("a button")
    else:
        franka.controller.hold_for("F14", "two commanders")
    franka.tick()
    franka.tick(1, late_s)
    franka.tick(40)
    speeds = [float(np.abs(command.joint_velocity_rad_s).max()) for command in franka.commands[-42:]]
    assert all(after <= before + 1e-9 for before, after in pairwise(speeds)), speeds
    assert speeds[-1] == 0.0 and not franka.controller.counts["F10"]


def test_a_clock_that_is_read_twice_stops_no_franka(franka: FrankaBench) -> None:
    """Time from /clock stands still between two of its messages."""
    franka.controller.on_chunk(_chunk(franka.now_s, (0.02, 0.01, -0.01)), franka.now_s)
    for _ in range(30):
        franka.tick()
        franka.commands.append(franka.controller.tick(franka.now_s))
    assert not franka.controller.counts["F10"]


def test_the_velocity_of_a_command_is_that_of_its_goals(franka: FrankaBench) -> None:
    franka.controller.on_chunk(_chunk(franka.now_s), franka.now_s)
    franka.tick(10)
    last, before = franka.commands[-1], franka.commands[-2]
    np.testing.assert_allclose(last.joint_velocity_rad_s, (last.joint_goal_rad - before.joint_goal_rad) / 0.02)


def test_a_frankas_gripper_is_told_a_width(franka: FrankaBench) -> None:
    assert franka.tick().gripper_width_m is None
    franka.controller.on_chunk(_chunk(franka.now_s, gripper=0.0), franka.now_s)
    command = franka.tick()
    assert command.gripper_width_m == 0.0
    assert command.gripper_pwm is None
