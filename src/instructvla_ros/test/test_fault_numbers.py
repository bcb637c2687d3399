"""The numbers of the fault list, at the defaults: each fault through the injector's engine or the controller itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from instructvla_ros.control import ActionChunk, Mode, WidowXControllerConfig
from instructvla_ros.control.watch import WatchConfig
from instructvla_ros.faults.engine import Fault, FaultyStream, Handling
from instructvla_ros.policy.expert_worker import ExpertConfig
from instructvla_ros.policy.latent_gate import LatentLimits
from instructvla_ros.policy.reasoning_worker import ReasoningConfig

CONFIG = WidowXControllerConfig()


@pytest.mark.parametrize(
    ("found", "number"),
    [
        pytest.param(CONFIG.safety.warn_image_age_s, 0.3, id="f01-warning"),
        pytest.param(CONFIG.safety.max_image_age_s, 0.5, id="f01-hold"),
        pytest.param(CONFIG.safety.abort_image_age_s, 5.0, id="f01-abort"),
        pytest.param(CONFIG.safety.max_identical_pictures, 3, id="f03"),
        pytest.param(ExpertConfig().max_skew_s, 0.1, id="f04"),
        pytest.param(CONFIG.safety.max_joint_state_age_s, 0.1, id="f05"),
        pytest.param(CONFIG.safety.max_bad_chunks, 3, id="f06"),
        pytest.param(CONFIG.safety.max_delta_xyz_m, 0.05, id="f07-translation"),
        pytest.param(CONFIG.safety.max_delta_rpy_rad, 0.25, id="f07-rotation"),
        pytest.param(CONFIG.safety.reject_factor, 5.0, id="f07-refusal"),
        pytest.param(CONFIG.safety.workspace_lower_m[2], 0.01, id="f08"),
        pytest.param(CONFIG.safety.velocity_fraction, 0.5, id="f10"),
        pytest.param(LatentLimits().max_age_s, 4.0, id="f11"),
        pytest.param(WatchConfig().bond_s, 4.0, id="f12"),
        pytest.param(WatchConfig().silence_s, 0.4, id="f14"),
        pytest.param(CONFIG.safety.max_clock_jump_s, 1.0, id="f16"),
        pytest.param(CONFIG.safety.max_joint_silence_s, 0.5, id="f13-f24"),
        pytest.param(ReasoningConfig().max_new_tokens, 50, id="f21"),
        pytest.param(CONFIG.gripper.close_below, 0.4, id="f23-close"),
        pytest.param(CONFIG.gripper.open_above, 0.6, id="f23-open"),
        pytest.param(CONFIG.gripper.dwell_s, 0.4, id="f23-dwell"),
    ],
)
def test_the_defaults_are_the_numbers_of_the_fault_list(found: float, number: float) -> None:
    assert found == number


class Wire:
    """Chunks on their way to a controller, through the fault injector's engine."""

    def __init__(self, bench: Any, chunk: Callable[..., ActionChunk], fault: str) -> None:
        def spoil(message: ActionChunk, count: int) -> ActionChunk:
            rows = np.full_like(message.delta_xyz_m, math.nan)
            return replace(message, delta_xyz_m=rows)

        self.bench, self.chunk, self.seq = bench, chunk, 0
        self.stream = FaultyStream(
            Handling[ActionChunk](
                restamp=lambda content, like: replace(content, stamp_s=like.stamp_s, seq=like.seq),
                shift=lambda message, seconds: replace(message, stamp_s=message.stamp_s + seconds),
                corrupt=spoil,
            )
        )
        self.stream.set(Fault.parse(fault), bench.now_s)

    def run(self, seconds: float) -> list[Any]:
        """Chunks at 5 Hz and ticks at 50 Hz; the commands."""
        commands = []
        for i in range(round(seconds / 0.02)):
            if i % 10 == 0:
                self.seq += 1
                made = self.chunk(self.bench.now_s, xyz=(0.0, 0.004, 0.0), seq=self.seq)
                self.stream.take(made, self.bench.now_s)
            for message in self.stream.due(self.bench.now_s):
                self.bench.controller.on_chunk(message, self.bench.now_s)
            commands.append(self.bench.tick())
        return commands


@pytest.fixture
def wire(bench: Any, chunk_factory: Callable[..., ActionChunk]) -> Callable[[str], Wire]:
    """A wire with a fault, to an anchored controller."""
    return lambda fault: Wire(bench, chunk_factory, fault)


def test_the_wire_without_a_fault_moves_the_arm(wire: Callable[[str], Wire]) -> None:
    commands = wire("none").run(2.0)
    assert all(command.mode is Mode.MOVING for command in commands[1:])


def test_f06_spoiled_chunks_latch_after_the_third(wire: Callable[[str], Wire]) -> None:
    commands = wire("corrupt").run(0.62)
    faults = [i for i, command in enumerate(commands) if command.mode is Mode.FAULT]
    assert faults[0] == 20 and commands[20].fault_id == "F06"  # the third chunk comes with the 21st tick
    assert not any(command.mode is Mode.MOVING for command in commands)


def test_f11_chunks_that_come_when_their_steps_are_over_move_nothing(wire: Callable[[str], Wire]) -> None:
    commands = wire("delay 2").run(3.0)
    assert not any(command.mode is Mode.MOVING for command in commands)
    assert "over" in commands[-1].reason


def test_f11_after_the_last_chunk_the_arm_moves_for_its_steps_and_then_holds(wire: Callable[[str], Wire]) -> None:
    made = wire("none")
    made.run(1.0)
    made.stream.set(Fault.parse("drop"), made.bench.now_s)
    commands = made.run(3.0)
    holds = [i for i, command in enumerate(commands) if command.fault_id == "F11"]
    # The last chunk was made 0.2 s before: 1.4 s of its eight steps are left.
    assert 68 <= holds[0] <= 72 and all(command.fault_id == "F11" for command in commands[72:])


def test_duplicated_chunks_change_nothing(
    wire: Callable[[str], Wire], bench_factory: Callable[..., Any], chunk_factory: Callable[..., ActionChunk]
) -> None:
    plain = bench_factory()
    plain.controller.on_instruction(1, plain.now_s)
    plain.tick()
    expected = Wire(plain, chunk_factory, "none").run(2.0)
    found = wire("duplicate 3").run(2.0)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a.joint_goal_rad, b.joint_goal_rad)


@pytest.mark.parametrize("seconds", [3600.0, 5.0])
def test_f16_chunks_from_the_future_are_refused(wire: Callable[[str], Wire], seconds: float) -> None:
    commands = wire(f"shift {seconds}").run(1.0)
    assert not any(command.mode is Mode.MOVING for command in commands)
    assert "future" in commands[-1].reason


def test_f22_a_stop_is_obeyed_in_the_next_tick_and_until_the_reset(wire: Callable[[str], Wire]) -> None:
    made = wire("none")
    made.run(1.0)
    made.bench.controller.stop("e-stop")
    still = made.bench.goals[-1]
    commands = made.run(2.0)
    assert all(command.mode is Mode.STOPPED and command.fault_id == "F22" for command in commands)
    assert all((command.joint_goal_rad == still).all() for command in commands)
