"""Joint states that cannot be, or none at all: the arm holds, and before long nothing is sent. Nor against others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from instructvla_ros.control import FR3, PANDA, WX250S, ArmModel, Mode, WidowXControllerConfig, WidthArmController
from instructvla_ros.control.safety import SafetyConfig
from instructvla_ros.control.state import JointStateReader

UNREAD = dict.fromkeys(WX250S.joint_names, -math.pi)
"""What a WidowX's driver publishes, at its full rate and with fresh stamps, while it cannot read its servos."""


def unread(bench: Any, ticks: int) -> list[Any]:
    """Ticks while the driver cannot read its servos; the commands."""
    bench.feed_joints, commands = False, []
    for _ in range(ticks):
        bench.now_s = round(bench.now_s + 0.02, 6)
        bench.joint_state(**UNREAD)
        bench.image()
        commands.append(bench.controller.tick(bench.now_s))
    bench.feed_joints = True
    return commands


def silent(bench: Any, ticks: int) -> list[Any]:
    """Ticks without joint states; the commands."""
    bench.feed_joints = False
    commands = [bench.tick() for _ in range(ticks)]
    bench.feed_joints = True
    return commands


@pytest.mark.parametrize("arm", [WX250S, FR3, PANDA], ids=lambda arm: arm.name)
def test_f05_a_posture_far_beyond_the_limits_is_no_posture(arm: ArmModel) -> None:
    names, reader = [*arm.joint_names, arm.fingers.joint], JointStateReader(arm)
    with pytest.raises(ValueError, match=f"{arm.joint_names[1]} at -3.14 rad.*beyond the limits"):
        reader.read(names, [*[-math.pi] * arm.joints, 0.02], 1.0, 1.0)
    for limits, shift in ((arm.lower_rad, -0.15), (arm.upper_rad, 0.15)):
        reader.read(names, [*(limits + shift), 0.02], 1.0, 1.0)
        with pytest.raises(ValueError, match="beyond the limits"):
            reader.read(names, [*(limits + 2 * shift), 0.02], 1.0, 1.0)


@pytest.mark.parametrize("stopped", [True, False])
def test_f24_a_bus_that_cannot_be_read_holds_then_latches_and_never_moves_a_goal(bench: Any, stopped: bool) -> None:
    bench.chunk(xyz=(0.01, 0.0, 0.0))
    bench.tick(5)
    if stopped:
        bench.controller.stop("operator pressed stop")
        bench.tick()
    before = unread(bench, 25)
    assert {command.mode for command in before} == {Mode.STOPPED if stopped else Mode.HOLD}
    assert np.ptp([command.joint_goal_rad for command in before], axis=0).max() < 1e-9
    after = unread(bench, 50)
    latched = (Mode.STOPPED, "F22", None) if stopped else (Mode.FAULT, "F24", None)
    assert all((c.mode, c.fault_id, c.joint_goal_rad) == latched for c in after)
    assert after[0].reason.startswith("operator pressed stop; " if stopped else "no usable joint state")
    assert "shoulder at -3.14 rad" in after[0].reason
    assert bench.controller.ceased and bench.controller.counts["F24"] == 1


@pytest.mark.parametrize("fault", [unread, silent])
def test_f24_nothing_is_sent_before_the_reset_which_anchors_where_the_arm_is(
    bench: Any, fault: Callable[..., Any]
) -> None:
    fault(bench, 30)
    assert bench.controller.ceased and not bench.controller.following
    bench.q = bench.q + 0.3  # it fell while its driver was away
    assert bench.tick(20).joint_goal_rad is None, "joint states alone do not end it"
    bench.controller.reset(bench.now_s)
    assert not bench.controller.ceased
    np.testing.assert_allclose(bench.tick().joint_goal_rad, bench.q)


def test_f24_joint_states_that_cease_hold_for_half_a_second_with_a_held_object_held(bench: Any) -> None:
    bench.chunk(gripper=0.0)
    bench.tick(30)
    commands = silent(bench, 40)
    sent = [command.joint_goal_rad is not None for command in commands]
    assert 23 <= sent.index(False) <= 26 and not any(sent[26:])
    assert commands[20].fault_id == "F05" and commands[20].gripper_pwm == -200.0
    assert "driver" in commands[-1].reason and "reset" in commands[-1].reason


def test_f24_fingers_that_stand_open_after_the_drivers_death_do_not_close_by_the_reset(bench: Any) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick(30).gripper_pwm == -200.0
    silent(bench, 30)
    assert bench.controller.resting_pwm == -200.0, "until the reset what is held may still be there"
    bench.finger_m = 0.03  # without torque: the object fell
    bench.controller.reset(bench.now_s)
    commands = [bench.tick() for _ in range(10)]
    assert {abs(command.gripper_pwm) < 1e-6 for command in commands} == {True}
    assert not bench.controller.following


@pytest.mark.parametrize(("before", "parting"), [(1, 0.0), (30, -200.0)])
def test_f16_a_stopped_arm_that_loses_its_goal_relieves_its_gripper(bench: Any, before: int, parting: float) -> None:
    bench.chunk(gripper=0.0)
    bench.tick()
    assert bench.tick(before).gripper_pwm == (-350.0 if before == 1 else -200.0)
    bench.now_s += 1.5  # the process slept, and wakes up with a stop
    bench.controller.stop("emergency stop on the estop topic")
    commands = [bench.tick() for _ in range(3)]
    assert [command.joint_goal_rad for command in commands] == [None] * 3
    assert [command.gripper_pwm for command in commands] == [parting, None, None]


@pytest.mark.parametrize("anew", ["reset", "reanchor"])
def test_f12_a_gripper_is_relieved_while_its_arm_waits_to_be_anchored_anew(bench: Any, anew: str) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick().gripper_pwm == -350.0
    getattr(bench.controller, anew)(bench.now_s)
    assert [command.gripper_pwm for command in silent(bench, 3)] == [0.0, None, None]


def test_f24_after_a_reset_silence_latches_again_even_before_a_joint_state(bench: Any) -> None:
    silent(bench, 30)
    bench.controller.reset(bench.now_s)
    commands = silent(bench, 30)
    assert [commands[0].mode, commands[-1].mode] == [Mode.WAITING, Mode.FAULT]
    assert bench.controller.ceased


def test_f24_silence_while_nobody_listens_does_not_count(bench: Any) -> None:
    bench.controller.stop("the robot is in a reflex")
    bench.feed_joints = False
    for _ in range(100):
        bench.controller.excuse_silence()  # as the node does while the robot recovers
        command = bench.tick()
    assert (command.mode, command.reason) == (Mode.STOPPED, "the robot is in a reflex")
    assert not bench.controller.ceased
    silent(bench, 24)
    assert not bench.controller.ceased, "it has the whole time anew"
    silent(bench, 3)
    assert bench.controller.ceased


@pytest.mark.parametrize("goes_on", [True, False])
def test_f05_a_clock_that_is_behind_is_no_silence_after_a_reset_but_the_same_state_again_is(
    bench: Any, goes_on: bool
) -> None:
    bench.controller.reset(bench.now_s)
    bench.feed_joints, modes, faults = False, [], []
    values = dict(zip(WX250S.joint_names, bench.q, strict=True)) | {"left_finger": 0.037}
    for _ in range(60):
        bench.now_s = round(bench.now_s + 0.02, 6)
        stamp_s = bench.now_s - 0.8 if goes_on else 9.0
        bench.controller.on_joint_state(list(values), list(values.values()), None, stamp_s, bench.now_s)
        command = bench.controller.tick(bench.now_s)
        modes.append(command.mode)
        faults.append(command.fault_id)
    if goes_on:
        assert modes[:34] == [Mode.WAITING] * 34 and faults[:34] == ["F05"] * 34
        assert modes[-1] is Mode.HOLD and not bench.controller.stopped
    else:
        assert (modes[-1], faults[-1]) == (Mode.FAULT, "F24")


def test_before_the_first_joint_state_the_controller_waits_without_a_fault(bench_factory: Callable[..., Any]) -> None:
    bench = bench_factory()
    assert silent(bench, 100)[-1].mode is Mode.WAITING
    assert bench.tick().joint_goal_rad is not None


def test_f24_a_controller_that_slept_itself_does_not_take_that_for_silence(bench: Any) -> None:
    bench.feed_joints = False
    for _ in range(5):
        bench.now_s = round(bench.now_s + 0.8, 6)
        assert bench.tick().mode is not Mode.FAULT  # its ears had slept too
        bench.joint_state()
    bench.feed_joints = True
    assert bench.tick(2).fault_id == ""


def test_f24_the_limit_can_be_set(bench_factory: Callable[..., Any]) -> None:
    bench = bench_factory(WidowXControllerConfig(safety=SafetyConfig(max_joint_silence_s=2.0)))
    bench.tick()
    assert silent(bench, 95)[-1].joint_goal_rad is not None
    assert silent(bench, 10)[-1].joint_goal_rad is None


def test_f24_a_frankas_joint_states_that_cease_latch_too() -> None:
    controller, now_s = WidthArmController(FR3), 10.0
    names = [*FR3.joint_names, FR3.fingers.joint]
    modes = []
    for tick in range(60):
        now_s = round(now_s + 0.02, 6)
        if tick < 10:
            controller.on_joint_state(names, [*FR3.home_rad, 0.04], None, now_s, now_s)
        modes.append((controller.tick(now_s).joint_goal_rad is None, controller.stopped))
    assert modes[20] == (False, False) and modes[-1] == (True, True)


def test_f14_while_somebody_else_commands_the_arm_no_goal_is_sent_and_then_it_is_anchored_anew(bench: Any) -> None:
    bench.chunk(xyz=(0.02, 0.0, 0.0))
    bench.tick(5)
    bench.controller.hold_for("F14", "two commanders")
    bench.controller.give_way("two commanders", bench.now_s)
    for _ in range(20):
        bench.q = bench.q + 0.01  # where the other one leads it
        command = bench.tick()
        assert (command.mode, command.fault_id, command.joint_goal_rad) == (Mode.HOLD, "F14", None)
    assert "two commanders" in bench.controller.go_to(WX250S.home_rad, bench.now_s)
    bench.controller.hold_for("F14", "")
    bench.controller.give_way("", bench.now_s)
    assert bench.controller.tick(bench.now_s).joint_goal_rad is None, "not before a joint state from now on"
    np.testing.assert_allclose(bench.tick().joint_goal_rad, bench.q)


def test_f14_the_gripper_is_relieved_once_and_then_left_to_the_other_commander(bench: Any) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick(30).gripper_pwm == -200.0
    bench.controller.give_way("two commanders", bench.now_s)
    assert [bench.tick().gripper_pwm for _ in range(3)] == [-200.0, None, None]


def test_f14_fingers_that_the_other_commander_left_open_do_not_close_by_themselves(bench: Any) -> None:
    bench.chunk(gripper=0.0)
    assert bench.tick(30).gripper_pwm == -200.0
    bench.controller.give_way("two commanders", bench.now_s)
    bench.tick(3)
    bench.finger_m = 0.03  # it took the object
    bench.controller.give_way("", bench.now_s)
    assert {abs(bench.tick().gripper_pwm) < 1e-6 for _ in range(10)} == {True}


def test_f22_a_stopped_arm_gets_no_goal_for_others_having_left(bench: Any) -> None:
    bench.controller.stop("operator pressed stop")
    bench.tick()
    bench.controller.give_way("two commanders", bench.now_s)
    assert bench.tick().mode is Mode.STOPPED
    bench.controller.give_way("", bench.now_s)
    assert bench.tick(5).joint_goal_rad is None
    bench.controller.reset(bench.now_s)
    assert bench.tick().joint_goal_rad is not None
