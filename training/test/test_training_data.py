"""Shards, chunks and prefetching."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import episode, frames

from instructvla_model.presets import preset
from instructvla_training.data.chunks import chunk_actions, later_frames
from instructvla_training.data.shards import read_frames, write_shard
from instructvla_training.prefetch import Prefetcher

CONFIG = preset("tiny")


def test_a_shard_gives_back_what_was_written(tmp_path):
    written = [episode(seed, 4 + seed, CONFIG) for seed in range(3)]
    write_shard(tmp_path / "shard-0000", written)
    read = read_frames([tmp_path])
    assert len(read) == 4 + 5 + 6
    assert [e.seed for e in read.episodes] == [0, 1, 2]
    assert read.first.tolist() == [0, 4, 9]
    assert np.array_equal(read.image[4:9], written[1].frames["image"])
    assert read.episodes[2].motion == written[2].motion


def test_an_unfinished_shard_is_not_read(tmp_path):
    write_shard(tmp_path / "shard-0000", [episode(0, 4, CONFIG)])
    (tmp_path / "shard-0001.partial").mkdir()
    assert len(read_frames([tmp_path])) == 4


def test_a_column_of_another_length_is_refused_by_name(tmp_path):
    good = episode(0, 4, CONFIG)
    bad = dataclasses.replace(good, frames={**good.frames, "state": good.frames["state"][:3]})
    with pytest.raises(ValueError, match=r"column state .* expected 4 frames"):
        write_shard(tmp_path / "shard-0000", [bad])
    assert not (tmp_path / "shard-0000").exists()


def test_a_damaged_column_is_refused_when_read(tmp_path):
    write_shard(tmp_path / "shard-0000", [episode(0, 4, CONFIG)])
    np.save(tmp_path / "shard-0000" / "state.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(ValueError, match=r"state\.npy: found 2 frames, expected 4"):
        read_frames([tmp_path])


def test_missing_data_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="instructvla-train data"):
        read_frames([tmp_path])


def test_a_chunk_past_the_end_stands_still_and_keeps_the_gripper(tmp_path):
    data = frames(tmp_path, CONFIG, episodes=2, length=5)
    chunk, inside = chunk_actions(data, np.array([3, 5]), horizon=4)
    assert np.array_equal(chunk[0, :2], data.action[3:5])
    assert np.all(chunk[0, 2:, :6] == 0.0)
    assert np.all(chunk[0, 2:, 6] == data.action[4, 6])
    assert np.array_equal(chunk[1], data.action[5:9])
    assert inside.tolist() == [[True, True, False, False], [True] * 4]


def test_later_frames_stay_in_their_episode(tmp_path):
    data = frames(tmp_path, CONFIG, episodes=2, length=5)
    assert later_frames(data, np.array([0, 3, 8]), np.array([2, 4, 1])).tolist() == [2, 4, 9]


def test_prefetched_batches_come_in_order_and_an_error_arrives():
    def make(step: int) -> int:
        if step == 3:
            raise RuntimeError("broken batch")
        return step * step

    seen = []
    with Prefetcher(make, 0, 10) as batches, pytest.raises(RuntimeError, match="broken batch"):
        for value in batches:
            seen.append(value)
    assert seen == [0, 1, 4]


def test_batches_are_made_by_one_thread_and_the_consumer_keeps_its_own_number():
    """A second team of OpenMP threads makes the consumer's small operations ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Prefetcher(lambda _: torch.get_num_threads(), 0, 3) as batches:
            assert list(batches) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_closing_a_prefetcher_ends_its_thread():
    batches = Prefetcher(lambda step: step, 0, 1_000_000)
    assert next(iter(batches)) == 0
    batches.close()
    assert not batches._thread.is_alive()
