"""Language motion: against phrases recorded from the reference implementation, and by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from instructvla_training.language.motion import (
    MotionThresholds,
    all_phrases,
    describe_motion,
    language_motion,
    language_motion_from_quaternions,
    motion_codes,
    rotations_from_quaternions,
    rotations_from_rpy,
)

_BESIDE = Path(__file__).parents[2] / "src" / "instructvla_model" / "test" / "fixtures"
FIXTURES = Path(os.environ.get("INSTRUCTVLA_PARITY_DIR", _BESIDE))
STATES, CODES = (np.load(FIXTURES / "misc.npz")[name] for name in ("motion_states", "motion_codes"))
PHRASES = json.loads((FIXTURES / "misc.json").read_text(encoding="utf-8"))["motion"]


def _straight_line(step_xyz_m: tuple[float, float, float], steps: int = 4) -> np.ndarray:
    states = np.zeros((steps, 8))
    states[:, :3] = np.arange(steps)[:, None] * np.array(step_xyz_m)
    states[:, 7] = 1.0
    return states


def test_phrases_equal_those_of_the_reference_on_recorded_states() -> None:
    assert language_motion_from_quaternions(STATES) == PHRASES


def test_codes_equal_those_of_the_reference_on_recorded_states() -> None:
    """The last two steps have no movement to name."""
    codes = motion_codes(STATES[:, :3], rotations_from_quaternions(STATES[:, 3:7]), STATES[:, 7])
    assert [list(code) for code in codes] == CODES[:-2].tolist()
    assert not CODES[-2:].any()


def test_states_in_roll_pitch_yaw_give_the_phrases_of_the_same_poses_in_quaternions() -> None:
    golden = STATES
    rotation = rotations_from_quaternions(golden[:, 3:7])
    states = np.zeros((len(golden), 8))
    states[:, :3] = golden[:, :3]
    states[:, 3] = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    states[:, 4] = np.arcsin(-rotation[:, 2, 0])
    states[:, 5] = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    states[:, 7] = 1.0 - golden[:, 7]
    assert language_motion(states, MotionThresholds()) == PHRASES


@pytest.mark.parametrize(
    ("step_xyz_m", "phrase"),
    [
        ((0.02, 0.0, 0.0), "move forward"),
        ((-0.02, 0.0, 0.0), "move backward"),
        ((0.0, 0.02, 0.0), "move left"),
        ((0.0, -0.02, 0.0), "move right"),
        ((0.0, 0.0, 0.02), "move up"),
        ((0.0, 0.0, -0.02), "move down"),
        ((0.012, 0.0, -0.012), "move forward down"),
        ((0.009, 0.009, 0.009), "stop"),
    ],
)
def test_each_direction_has_its_word_and_small_movements_have_none(
    step_xyz_m: tuple[float, float, float], phrase: str
) -> None:
    assert language_motion(_straight_line(step_xyz_m)) == [phrase, phrase, "stop", "stop"]


def test_a_fast_movement_names_only_its_main_direction() -> None:
    assert language_motion(_straight_line((0.1, 0.02, 0.0)))[0] == "move forward"


def test_closing_turning_and_tilting_are_named_after_the_movement() -> None:
    states = _straight_line((0.0, 0.0, 0.0), steps=3)
    states[:, 4] = [0.0, -0.05, -0.1]
    states[:, 5] = [0.0, 0.1, 0.2]
    states[:, 7] = [1.0, 0.5, 0.0]
    assert language_motion(states)[0] == "tilt up, rotate counterclockwise, close gripper"


def test_trembling_of_the_measured_gripper_is_no_motion() -> None:
    states = _straight_line((0.0, 0.0, 0.0), steps=3)
    states[:, 7] = [0.5, 0.53, 0.56]
    assert language_motion(states)[0] == "stop"


def test_an_episode_shorter_than_the_look_ahead_only_stops() -> None:
    assert language_motion(_straight_line((0.1, 0.0, 0.0), steps=1)) == ["stop"]
    assert language_motion(_straight_line((0.1, 0.0, 0.0), steps=2)) == ["stop", "stop"]


def test_states_of_the_wrong_shape_or_with_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(T, 8\)"):
        language_motion(np.zeros((3, 7)))
    with pytest.raises(ValueError, match="not finite"):
        language_motion(np.full((3, 8), np.nan))


def test_roll_pitch_yaw_rotations_are_orthonormal_and_apply_roll_first() -> None:
    rotation = rotations_from_rpy(np.array([[0.3, -0.4, 0.5]]))[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.arctan2(rotation[2, 1], rotation[2, 2]), 0.3)
    np.testing.assert_allclose(np.arctan2(rotation[1, 0], rotation[0, 0]), 0.5)


def test_every_code_has_a_phrase_of_its_own() -> None:
    phrases = list(all_phrases())
    assert len(set(phrases)) == len(phrases) == 3**6
    assert describe_motion((0, 0, 0, 0, 0, 0, 0)) == "stop"
