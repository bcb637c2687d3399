"""The numbers of a report on cases that can be worked out by hand, the comparison, the gate."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from instructvla_ros.bags import metrics
from instructvla_ros.bags.comparison import SCHEMA, compare, gate
from instructvla_ros.bags.score import METRICS, ChunkScores, GripperTiming, score_gripper, summarise, worst_moments
from instructvla_ros.bags.truth import Track, Truth, difference
from instructvla_ros.cli.replay import options_of, share
from instructvla_ros.control.rotations import rotation_angle, rpy_to_matrix
from instructvla_ros.control.state import state_vector


def action(*values: float) -> np.ndarray:
    return np.array([*values, *[0.0] * (7 - len(values))])


def test_translation_and_rotation_errors_are_in_millimetres_and_degrees() -> None:
    assert metrics.translation_error_mm(action(0.003, 0.004), action()) == pytest.approx(5.0)
    assert metrics.rotation_error_deg(action(0, 0, 0, 0, 0, 0.1), action(0, 0, 0, 0, 0, -0.1)) == pytest.approx(
        math.degrees(0.2)
    )


def test_the_rotation_error_is_the_angle_between_the_rotations_whatever_their_axes() -> None:
    random = np.random.default_rng(1)
    for size in (1e-7, 1e-3, 0.3, 1.5):
        a, b = random.normal(size=(2, 3)) * size
        expected = math.degrees(rotation_angle(rpy_to_matrix(*a), rpy_to_matrix(*b)))
        found = metrics.rotation_error_deg(action(0, 0, 0, *a), action(0, 0, 0, *b))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_direction_counts_only_where_there_is_motion() -> None:
    recorded = np.array([action(0.01), action(0.0005), action(0.01)])
    predicted = np.array([action(0.02), action(0.01), action(0.0, 0.01)])
    cosine = metrics.direction_cosine(predicted, recorded)
    assert cosine[0] == pytest.approx(1.0) and math.isnan(cosine[1]) and cosine[2] == pytest.approx(0.0)


def test_the_path_error_is_the_distance_of_the_ends_so_far() -> None:
    predicted = np.array([[action(0.01), action(0.01), action(0.0, 0.01)]])
    recorded = np.array([[action(0.01), action(0.0), action(np.nan)]])
    errors = metrics.path_error_mm(predicted, recorded)[0]
    assert errors[:2] == pytest.approx([0.0, 10.0]) and math.isnan(errors[2])


def test_a_constant_speed_has_no_jerk_and_a_cubic_path_its_third_derivative() -> None:
    steady = np.array([[action(0.01)] * 5])
    assert metrics.jerk_m_s3(steady, 0.2) == pytest.approx(0.0)
    times = np.arange(6) * 0.2
    cubic = np.array([[action(step) for step in np.diff(0.5 * times**3 / 3.0)]])
    assert metrics.jerk_m_s3(cubic, 0.2) == pytest.approx(1.0)


def test_the_seam_compares_the_same_moment_of_two_chunks() -> None:
    before = np.array([action(0.01), action(0.02), action(0.03)])
    after = np.array([action(0.025)])
    assert metrics.seam_jump_mm(before, 10.0, after, 10.2, 0.2) == pytest.approx(5.0)
    assert metrics.seam_jump_mm(before, 10.0, after, 10.1, 0.2) == pytest.approx(15.0), "within the first step"
    assert math.isnan(metrics.seam_jump_mm(before, 10.0, after, 10.7, 0.2)), "a gap longer than the chunk"


def test_gripper_switches_are_matched_by_direction_and_nearness() -> None:
    times = np.arange(10) * 0.5
    recorded = metrics.switches(times, np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 1.0]))
    predicted = metrics.switches(times, np.array([1, 1, 1, 0, np.nan, 0, 0, 0, 0, 0.0]))
    assert recorded == [(1.0, False), (3.0, True)] and predicted == [(1.5, False)]
    assert metrics.gripper_timing(predicted, recorded) == ([0.5], 1, 0)
    assert metrics.gripper_timing([(9.0, False)], [(1.0, False)]) == ([], 1, 1)


def test_switches_are_counted_only_where_it_is_known_what_was_done() -> None:
    openings = np.array([1, 1, 0, 0, 1, 1, 0, 0, 1, 1.0])
    steps = np.zeros((10, 1, 7))
    steps[:, 0, 6] = openings
    unknown = np.full_like(steps, np.nan)
    half = np.where(np.arange(10)[:, None, None] < 5, steps, np.nan)

    def timing(recorded: np.ndarray) -> GripperTiming | None:
        return score_gripper(ChunkScores(np.zeros(10, int), np.arange(10.0), 0.2, steps, recorded, {}, {}))

    assert timing(unknown) is None
    assert timing(half) == GripperTiming((0.0, 0.0), 0, 0), "the two switches of the second half are not spurious"
    assert timing(np.where(np.isfinite(half), 1.0, np.nan)) == GripperTiming((), 0, 2)


def test_gripper_agreement_is_about_sides_not_values() -> None:
    predicted, recorded = np.zeros((3, 7)), np.zeros((3, 7))
    predicted[:, 6], recorded[:, 6] = [0.6, 0.4, 0.9], [1.0, 1.0, np.nan]
    agreement = metrics.gripper_agreement(predicted, recorded)
    assert agreement[:2].tolist() == [1.0, 0.0] and math.isnan(agreement[2])


def test_texts_are_compared_by_their_words() -> None:
    assert metrics.word_recall("Pick the carrot.", "pick up the carrot") == 1.0
    assert metrics.word_f1("put carrot", "put the carrot on the plate") == pytest.approx(2 * 2 / (2 + 3))
    assert math.isnan(metrics.word_f1("anything", "")) and metrics.word_f1("", "carrot") == 0.0


def test_a_summary_leaves_out_what_is_not_known() -> None:
    made = summarise(np.array([1.0, np.nan, 3.0]))
    assert (made["n"], made["mean"], made["max"]) == (2, 2.0, 3.0)
    assert summarise(np.array([np.nan]))["mean"] is None


def test_the_difference_of_two_states_leads_from_one_to_the_other() -> None:
    a = state_vector(np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1]), 0.037)
    b = state_vector(np.array([0.15, -0.35, 0.35, 0.0, 1.4, 0.1]), 0.015)
    step = difference(a, b)
    assert a[:3] + step[:3] == pytest.approx(b[:3], abs=1e-6) and step[6] == b[7]
    reached = rpy_to_matrix(*step[3:6]) @ rpy_to_matrix(*a[3:6].tolist())
    assert reached == pytest.approx(rpy_to_matrix(*b[3:6].tolist()), abs=1e-6)


def test_between_samples_the_state_is_interpolated_and_in_a_hole_unknown() -> None:
    track = Track([0.0, 0.1, 1.0], [np.zeros(6), np.full(6, 0.1), np.full(6, 0.2)], [0.03, 0.03, 0.03])
    middle = track.state(0.05)
    assert middle is not None and middle == pytest.approx(state_vector(np.full(6, 0.05), 0.03), abs=1e-6)
    assert track.state(0.5) is None and track.state(-1.0) is None and track.state(1.5) is None
    with pytest.raises(ValueError, match="expected auto or one of steps, commands, states"):
        Truth("guesses")


def scores(shift: float, count: int = 200, seed: int = 0) -> ChunkScores:
    """Made-up scores whose errors are larger by `shift`, with noise common to all seeds."""
    random = np.random.default_rng(seed)
    base = np.random.default_rng(99).normal(10.0, 3.0, count)
    values = {name: base + shift + random.normal(0.0, 0.1, count) for name in METRICS}
    values["direction_cosine"] = np.clip(1.0 - values["translation_error_mm"] / 50.0, -1, 1)
    empty = np.zeros((count, 1, 7))
    return ChunkScores(np.zeros(count, int), np.arange(count) * 0.1, 0.2, empty, empty, values, {})


def test_a_small_difference_that_is_always_there_is_found_and_noise_is_not() -> None:
    worse = {row.metric: row for row in compare(scores(0.0), scores(0.5, seed=1))}
    assert worse["translation_error_mm"].better == "A" and worse["translation_error_mm"].low > 0.3
    assert worse["direction_cosine"].better == "A", "more is better there"
    same = {row.metric: row for row in compare(scores(0.0), scores(0.0, seed=1))}
    assert same["translation_error_mm"].better == "" and same["translation_error_mm"].n == 200
    assert compare(scores(0.0), scores(0.5, seed=1)) == compare(scores(0.0), scores(0.5, seed=1)), "same draws"


@pytest.mark.parametrize(("count", "decided"), [(5, False), (10, False), (49, False), (50, True)])
def test_fewer_than_fifty_chunks_have_no_interval_and_no_winner(count: int, decided: bool) -> None:
    (row,) = (r for r in compare(scores(0.0, count), scores(0.5, count, 1)) if r.metric == "translation_error_mm")
    assert row.n == count and row.difference == pytest.approx(0.5, abs=0.15)
    assert (math.isfinite(row.low), math.isfinite(row.high), row.better) == (decided, decided, "A" if decided else "")


def test_only_chunks_from_the_same_image_are_paired() -> None:
    late = scores(0.0)
    late.received_s[:] += 0.05
    assert all(row.n == 0 for row in compare(scores(0.0), late))


def test_worst_moments_are_apart() -> None:
    made = scores(0.0)
    found = worst_moments(made, 5)
    times = sorted(made.received_s[found])
    assert len(found) == 5 and min(np.diff(times)) >= 1.0
    assert found[0] == int(np.argmax(made.values["path_error_mm"]))


def report(**means: float) -> dict[str, Any]:
    about = {
        "translation_error_mm": ("mm", False), "direction_cosine": ("", True), "seam_jump_mm": ("mm", False),
    }  # fmt: skip
    summary = {
        name: {"unit": unit, "higher_is_better": more, "mean": means.get(name, 1.0)}
        for name, (unit, more) in about.items()
    }
    bags = [{"fingerprint": "f", "actions": "steps"}]
    return {"schema": SCHEMA, "seed": 0, "bags": bags, "summary": {"any": summary}}


def test_the_gate_fails_where_a_number_is_worse_by_more_than_the_limit() -> None:
    rows = {row.metric: row for row in gate(report(translation_error_mm=1.2), report(), 0.05)}
    assert rows["translation_error_mm"].failed and rows["translation_error_mm"].worse_by == pytest.approx(0.2)
    assert not rows["direction_cosine"].failed
    assert not any(row.failed for row in gate(report(translation_error_mm=1.2), report(), 0.25))
    rows = {row.metric: row for row in gate(report(direction_cosine=0.9), report(), 0.05)}
    assert rows["direction_cosine"].failed, "there, less is worse"
    assert not any(row.failed for row in gate(report(translation_error_mm=0.5), report(), 0.05)), "better is no failure"
    tiny = report(translation_error_mm=0.02)
    assert not gate(tiny, report(translation_error_mm=0.01), 0.05)[0].failed, "a hundredth of a millimetre is nothing"


def test_the_gate_fails_where_a_number_is_gone() -> None:
    now = json.loads(json.dumps(report()))
    now["summary"]["any"]["seam_jump_mm"]["mean"] = None
    assert [row.metric for row in gate(now, report(), 0.05) if row.failed] == ["seam_jump_mm"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bags": [{"fingerprint": "g", "actions": "steps"}]}, "other bags"),
        ({"bags": [{"fingerprint": "f", "actions": "states"}]}, "other recorded actions"),
        ({"seed": 3}, "seed 3"),
    ],
)
def test_the_gate_refuses_what_cannot_be_compared(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gate(report(), report() | changed, 0.05)


def test_shares_and_parameters_of_the_command_line_are_read_or_refused() -> None:
    from instructvla_ros.cli.main import parser

    assert share("5%") == 0.05 and share("0.1") == 0.1
    for wrong in ("much", "-3%", "nan"):
        with pytest.raises(ValueError, match="expected a share"):
            share(wrong)
    words = ["replay", "bag", "--set", "reasoning_node.latent_period_s:=0.2", "--topic", "primary:=/cam"]
    options = options_of(parser().parse_args(words))
    assert options.parameters == {"reasoning_node": {"latent_period_s": 0.2}} and options.topics == {"primary": "/cam"}
    with pytest.raises(ValueError, match=r"expected reasoning_node\.PARAMETER"):
        options_of(parser().parse_args(["replay", "bag", "--set", "camera.rate:=3"]))
