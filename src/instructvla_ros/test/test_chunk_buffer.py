"""Receding horizon: which step of which chunk comes next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from instructvla_ros.control.chunk_buffer import ChunkBuffer, ChunkBufferConfig, ensemble_weights
from instructvla_ros.control.types import ActionChunk, ActionStep


def counting_chunk(stamp_s: float, seq: int, steps: int = 8, instruction_id: int = 1) -> ActionChunk:
    """Step k moves x by k mm, so that a test can read which step it got; y tells the chunk."""
    xyz = np.zeros((steps, 3))
    xyz[:, 0], xyz[:, 1] = np.arange(steps) * 1e-3, seq
    return ActionChunk(xyz, np.zeros((steps, 3)), np.ones(steps), 0.2, stamp_s, instruction_id, seq)


def begin(buffer: ChunkBuffer, now_s: float) -> tuple[int, int] | None:
    begun = buffer.begin_step(now_s)
    return None if begun is None else (begun[0].chunk_seq, begun[0].step)


def test_the_steps_of_one_chunk_come_in_order_every_dt() -> None:
    buffer = ChunkBuffer()
    assert buffer.add(counting_chunk(1.0, 1, steps=3), 1.0) == ""
    got = [begin(buffer, 1.0 + 0.02 * tick) for tick in range(40)]
    begun = [(tick, step) for tick, step in enumerate(got) if step is not None]
    assert begun == [(0, (1, 0)), (10, (1, 1)), (20, (1, 2))]


def test_a_newer_chunk_continues_at_the_first_step_not_begun_since_its_image() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(1.0, 1), 1.0)
    assert begin(buffer, 1.0) == (1, 0)
    assert begin(buffer, 1.2) == (1, 1)
    # Its image is from 1.15, after step 0 began and before step 1 did; step 1 is what it calls step 0.
    buffer.add(counting_chunk(1.15, 2), 1.3)
    assert begin(buffer, 1.4) == (2, 1)


def test_a_late_chunk_skips_every_step_already_begun() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(1.0, 1), 1.0)
    for k in range(4):
        assert begin(buffer, 1.0 + 0.2 * k) == (1, k)
    buffer.add(counting_chunk(1.2, 2), 1.75)
    assert begin(buffer, 1.8) == (2, 3)


def test_in_lockstep_every_new_chunk_starts_at_its_first_step() -> None:
    buffer = ChunkBuffer()
    for n in range(20):
        now = 0.2 * n
        assert buffer.add(counting_chunk(now, n), now) == ""
        assert begin(buffer, now) == (n, 0)


def test_tick_jitter_does_not_add_up() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(0.0, 1), 0.0)
    buffer.begin_step(0.0)
    begun = buffer.begin_step(0.215)
    assert begun is not None and begun[1] == pytest.approx(0.2)
    assert not buffer.step_is_due(0.39)
    assert buffer.step_is_due(0.4)


def test_nothing_is_begun_past_the_horizon() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(0.0, 1, steps=2), 0.0)
    assert begin(buffer, 0.0) == (1, 0)
    assert begin(buffer, 0.5) is None


def test_a_chunk_stops_early_when_told_to() -> None:
    buffer = ChunkBuffer(ChunkBufferConfig(max_steps_per_chunk=2))
    buffer.add(counting_chunk(0.0, 1), 0.0)
    assert [begin(buffer, t) for t in (0.0, 0.2, 0.4)] == [(1, 0), (1, 1), None]


def test_chunks_of_an_older_instruction_are_dropped() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(0.0, 1, instruction_id=1), 0.0)
    assert buffer.set_instruction(2)
    assert buffer.empty
    assert "instruction 1" in buffer.add(counting_chunk(0.1, 2, instruction_id=1), 0.1)
    assert begin(buffer, 0.2) is None
    assert buffer.add(counting_chunk(0.2, 3, instruction_id=2), 0.2) == ""
    assert begin(buffer, 0.2) == (3, 0)


def test_a_chunk_of_a_newer_instruction_replaces_the_older_one_by_itself() -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(0.0, 1, instruction_id=1), 0.0)
    buffer.add(counting_chunk(0.0, 0, instruction_id=2), 0.0)
    assert buffer.instruction_id == 2
    assert begin(buffer, 0.0) == (0, 0)


@pytest.mark.parametrize(
    ("stamp_s", "seq", "message"),
    [(9.9, 7, "not newer"), (10.0, 5, "not newer"), (12.0, 9, "future"), (8.0, 9, "all its steps are over")],
)
def test_old_duplicate_future_and_expired_chunks_are_dropped_with_a_reason(
    stamp_s: float, seq: int, message: str
) -> None:
    buffer = ChunkBuffer()
    buffer.add(counting_chunk(10.0, 5), 10.0)
    assert message in buffer.add(counting_chunk(stamp_s, seq), 10.1)
    assert buffer.dropped == 1


def test_chunks_made_before_a_reset_are_refused_after_it() -> None:
    buffer = ChunkBuffer()
    buffer.clear(earliest_stamp_s=5.0)
    assert "reset" in buffer.add(counting_chunk(4.9, 1), 5.05)
    assert buffer.add(counting_chunk(5.0, 2), 5.05) == ""


def test_ensemble_weights_are_the_exponential_of_the_cosine_to_the_newest() -> None:
    predictions = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    expected = np.exp(0.1 * np.array([1.0, 0.0, -1.0]))
    np.testing.assert_allclose(ensemble_weights(predictions, 0.1), expected / expected.sum())


def test_an_ensemble_of_zero_predictions_is_a_plain_mean() -> None:
    np.testing.assert_allclose(ensemble_weights(np.zeros((4, 7)), 0.1), np.full(4, 0.25))


def test_the_ensemble_averages_what_each_chunk_says_about_this_step(
    chunk_factory: Callable[..., ActionChunk],
) -> None:
    buffer = ChunkBuffer(ChunkBufferConfig(ensemble_size=2))
    buffer.add(counting_chunk(0.0, 0), 0.0)
    begin(buffer, 0.0)
    buffer.add(chunk_factory(stamp_s=0.2, seq=1, xyz=(0.03, 0.0, 0.0)), 0.2)
    begun = buffer.begin_step(0.2)
    assert begun is not None
    step: ActionStep = begun[0]
    # The older chunk's step 1 (x = 1 mm) and the newer one's step 0 (x = 30 mm) speak of the same moment.
    rows = np.array([[0.03, 0, 0, 0, 0, 0, 1.0], [0.001, 0, 0, 0, 0, 0, 1.0]])
    expected = ensemble_weights(rows, 0.1) @ rows
    assert step.delta_xyz_m[0] == pytest.approx(expected[0])
    assert step.gripper == pytest.approx(1.0)
    assert (step.chunk_seq, step.step) == (1, 0)
