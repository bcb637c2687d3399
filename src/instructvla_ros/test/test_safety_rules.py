"""Each safety rule on its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from instructvla_ros.control.kinematics import JOINT_LOWER_RAD, JOINT_UPPER_RAD
from instructvla_ros.control.safety import (
    Freshness,
    JointLimiter,
    SafetyConfig,
    Workspace,
    check_chunk,
    limit_step,
)
from instructvla_ros.control.types import ActionChunk, ActionStep

CONFIG = SafetyConfig()


def step(x: float = 0.0, yaw: float = 0.0, gripper: float = 1.0) -> ActionStep:
    return ActionStep((x, 0.0, 0.0), (0.0, 0.0, yaw), gripper, 0.2)


@pytest.mark.parametrize("field", ["delta_xyz_m", "delta_rpy_rad", "gripper"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_f06_a_chunk_with_a_non_finite_value_anywhere_is_refused(
    chunk_factory: Callable[..., ActionChunk], field: str, value: float
) -> None:
    chunk = chunk_factory()
    spoiled = np.array(getattr(chunk, field))
    spoiled.flat[-1] = value
    verdict = check_chunk(replace(chunk, **{field: spoiled}))
    assert (verdict.ok, verdict.fault_id) == (False, "F06")


def test_f19_chunks_of_wrong_shape_or_dt_are_refused(chunk_factory: Callable[..., ActionChunk]) -> None:
    good = chunk_factory()
    bad = [
        replace(good, gripper=np.zeros(0), delta_xyz_m=np.zeros((0, 3)), delta_rpy_rad=np.zeros((0, 3))),
        replace(good, delta_xyz_m=np.zeros((8, 2))),
        replace(good, delta_rpy_rad=np.zeros((7, 3))),
        replace(good, gripper=np.zeros((8, 1))),
        replace(good, dt_s=0.0),
        replace(good, dt_s=math.nan),
        replace(good, stamp_s=math.inf),
    ]
    assert check_chunk(good).ok
    assert [check_chunk(chunk).fault_id for chunk in bad] == ["F19"] * len(bad)


def test_f07_a_step_within_limits_passes_unchanged() -> None:
    wanted = step(0.05, 0.25, 0.3)
    limited, verdict = limit_step(wanted, CONFIG)
    assert limited is wanted and verdict.ok and not verdict.fault_id


def test_f07_a_large_step_is_clamped_per_axis() -> None:
    wanted = ActionStep((0.08, -0.01, -0.2), (0.3, 0.1, -0.9), 1.4, 0.2)
    limited, verdict = limit_step(wanted, CONFIG)
    assert limited.delta_xyz_m == (0.05, -0.01, -0.05)
    assert limited.delta_rpy_rad == (0.25, 0.1, -0.25)
    assert limited.gripper == 1.0
    assert verdict.ok and verdict.fault_id == "F07"


@pytest.mark.parametrize("wanted", [step(x=0.2501), step(yaw=-1.2501)])
def test_f07_a_step_beyond_five_times_the_limit_is_refused(wanted: ActionStep) -> None:
    verdict = limit_step(wanted, CONFIG)[1]
    assert (verdict.ok, verdict.fault_id) == (False, "F07")


def test_f08_targets_are_clipped_to_the_box_and_to_the_margin_above_the_table() -> None:
    box = Workspace(CONFIG)
    inside, outside = np.array([0.3, 0.0, 0.1]), np.array([0.6, -0.5, -0.2])
    allowed, verdict = box.clip(outside, inside)
    np.testing.assert_allclose(allowed, [0.45, -0.28, 0.01])
    assert verdict.ok and verdict.fault_id == "F08"
    allowed, verdict = box.clip(inside, inside)
    assert not verdict.fault_id


def test_f08_a_continued_push_against_the_box_holds_until_it_points_inward() -> None:
    box = Workspace(CONFIG)
    edge = np.array([0.45, 0.0, 0.1])
    verdicts = [box.clip(edge + [0.03, 0.0, 0.0], edge)[1] for _ in range(CONFIG.max_pushes + 1)]
    assert all(v.ok for v in verdicts[:-1])
    assert not verdicts[-1].ok and verdicts[-1].fault_id == "F08"
    assert box.clip(edge - [0.02, 0.0, 0.0], edge)[1].ok
    assert box.clip(edge + [0.03, 0.0, 0.0], edge)[1].ok


def test_f08_from_outside_the_box_only_the_way_in_is_open() -> None:
    box = Workspace(CONFIG)
    outside = np.array([0.05, 0.0, 0.3])
    np.testing.assert_allclose(box.clip(outside - [0.02, 0, 0], outside)[0], outside)
    np.testing.assert_allclose(box.clip(outside + [0.02, 0, 0], outside)[0], [0.07, 0.0, 0.3])


def test_f10_goals_beyond_joint_limits_are_brought_within_them() -> None:
    limiter = JointLimiter(CONFIG)
    assert (limiter.limit(np.full(6, 9.0), np.zeros(6), 100.0) < JOINT_UPPER_RAD).all()
    assert (limiter.limit(np.full(6, -9.0), np.zeros(6), 100.0) > JOINT_LOWER_RAD).all()


def test_f10_from_beyond_the_joint_limits_margin_only_the_way_back_is_open_and_nothing_moves_unasked() -> None:
    limiter = JointLimiter(CONFIG)
    beyond = JOINT_UPPER_RAD - 0.001
    np.testing.assert_array_equal(limiter.limit(beyond, beyond, 0.02), beyond)
    np.testing.assert_array_equal(limiter.limit(beyond + 0.01, beyond, 0.02), beyond)
    np.testing.assert_allclose(limiter.limit(beyond - 0.01, beyond, 0.02), beyond - 0.01)


def test_f10_time_is_scaled_so_that_every_joint_keeps_half_its_velocity_limit() -> None:
    limiter = JointLimiter(CONFIG)
    previous, wanted = np.zeros(6), np.array([1.0, 0.5, 0.0, -0.25, 0.1, 0.0])
    goal = limiter.limit(wanted, previous, 0.02)
    assert np.abs(goal).max() == pytest.approx(0.5 * math.pi * 0.02)
    np.testing.assert_allclose(goal / goal[0], wanted)


def test_a_repeated_stamp_does_not_make_an_image_fresh() -> None:
    fresh = Freshness()
    assert fresh.age_s(5.0) == math.inf
    assert fresh.note(1.0, 1.0)
    assert not fresh.note(1.0, 2.0)
    assert not fresh.note(math.nan, 2.0)
    assert fresh.age_s(3.0) == pytest.approx(2.0)


def test_a_box_that_is_upside_down_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="workspace_lower_m"):
        SafetyConfig(workspace_lower_m=(0.1, -0.2, 0.5), workspace_upper_m=(0.4, 0.2, 0.4))
