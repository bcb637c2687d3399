"""The expert's work on a fake clock with a fake runtime."""


from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import numpy as np
import pytest

from instructvla_ros.control.kinematics import NEUTRAL_RAD
from instructvla_ros.control.types import JointSample
from instructvla_ros.policy import (
    ExpertConfig,
    ExpertWorker,
    Frame,
    LatentLimits,
)


class ExpertBench:
    """An expert worker fed at 20 Hz on a fake clock."""

    def __init__(self, **config: Any) -> None:
        self.clock = fakes.FakeClock()
        self.runtime = fakes.FakeRuntime(clock=self.clock)
        self.chunks: list[Any] = []
        self.worker = ExpertWorker(
            self.runtime.act,
            ExpertConfig(**config),
            lambda chunk, latency: self.chunks.append(chunk),
            self.clock,
        )
        self.feed_image = self.feed_joints = True

    def latent(self, instruction_id: int = 1, seq: int = 1) -> str:
        plan = SimpleNamespace(instruction_id=instruction_id, seq=seq, stamp_s=self.clock(), latents=None)
        return self.worker.offer_latent(plan)

    def feed(self) -> None:
        now_s = self.clock()
        if self.feed_image:
            for view in ("primary", "wrist"):
                self.worker.offer_image(view, Frame(np.zeros((64, 64, 3), np.uint8), now_s, now_s))
        if self.feed_joints:
            self.worker.offer_joints(JointSample(NEUTRAL_RAD, 0.037, now_s, now_s))

    def run(self, seconds: float) -> None:
        end_s = self.clock() + seconds
        while self.clock() < end_s - 1e-9:
            self.feed()
            self.worker.step()
            self.clock.advance(0.05)


def test_chunks_come_at_the_set_rate_from_the_newest_image() -> None:
    bench = ExpertBench(rate_hz=5.0)
    bench.latent()
    bench.run(2.0)
    assert len(bench.chunks) == 10
    np.testing.assert_allclose(np.diff([c.stamp_s for c in bench.chunks]), 0.2)
    assert [c.seq for c in bench.chunks] == list(range(1, 11))


def test_f11_chunks_go_on_with_the_last_latent_up_to_its_limit_and_then_stop() -> None:
    bench = ExpertBench(rate_hz=10.0, latent=LatentLimits(good_chunks=5, max_chunks=8, max_age_s=4.0))
    bench.latent()
    bench.run(2.0)
    assert len(bench.chunks) == 8
    assert "served 8 chunks" in bench.worker.problem
    bench.latent(seq=2)
    bench.run(0.2)
    assert len(bench.chunks) > 8


def test_f20_latents_and_chunks_of_an_older_instruction_are_dropped() -> None:
    bench = ExpertBench()
    bench.latent(1, 1)
    bench.worker.set_instruction(2)
    bench.run(1.0)
    assert bench.chunks == []
    assert "instruction 1" in bench.latent(1, 2)
    assert bench.latent(2, 3) == ""
    bench.run(0.3)
    assert bench.chunks and all(c.instruction_id == 2 for c in bench.chunks)


def test_an_older_latent_does_not_replace_a_newer_one() -> None:
    bench = ExpertBench()
    bench.latent(1, 5)
    assert "not newer" in bench.latent(1, 4)


def test_f16_after_a_clock_set_back_newer_latents_of_the_same_instruction_are_used() -> None:
    bench = ExpertBench()

    def latent(seq: int, stamp_s: float) -> str:
        return bench.worker.offer_latent(SimpleNamespace(instruction_id=1, seq=seq, stamp_s=stamp_s, latents=None))

    assert latent(5, 100.0) == "" and latent(6, 98.9) == ""
    assert "not newer" in latent(5, 97.0) and "not newer" in latent(7, 98.8), "older, or hardly set back"
    assert "latent 7 of 98.80 s is not newer than latent 6" in bench.worker.stale
    assert latent(8, 99.3) == "" and bench.worker.stale == ""
    bench.run(0.3)
    assert [chunk.latent_seq for chunk in bench.chunks][-1] == 8


def test_f16_what_was_dropped_of_one_instruction_is_no_problem_of_the_next() -> None:
    bench = ExpertBench()
    bench.latent(1, 5)
    bench.latent(1, 4)
    assert bench.worker.stale
    bench.worker.set_instruction(2)
    assert bench.worker.stale == ""
    bench.latent(1, 6)
    assert bench.worker.stale == "", "of an older instruction: no problem"


def test_f01_a_stopped_camera_stops_the_chunks_with_a_message() -> None:
    bench = ExpertBench()
    bench.latent()
    bench.run(0.5)
    bench.feed_image = False
    count = len(bench.chunks)
    bench.run(1.0)
    assert len(bench.chunks) <= count + 1
    assert "primary image is" in bench.worker.problem


@pytest.mark.parametrize("frozen", ["primary", "wrist"])
def test_f03_a_view_that_comes_again_and_again_under_one_stamp_stops_the_chunks_as_no_image_does(frozen: str) -> None:
    bench = ExpertBench(views=("primary", "wrist"))
    stamp_s, offer = bench.clock(), bench.worker.offer_image

    def offer_frozen(view: str, frame: Frame) -> None:
        offer(view, replace(frame, stamp_s=stamp_s) if view == frozen else frame)

    bench.worker.offer_image = offer_frozen
    bench.latent()
    bench.run(2.0)
    assert 1 <= len(bench.chunks) <= 4
    assert f"{frozen} image is" in bench.worker.problem


def test_f04_an_image_without_a_joint_state_near_its_stamp_is_not_used() -> None:
    bench = ExpertBench()
    bench.latent()
    bench.run(0.3)
    bench.feed_joints = False
    count = len(bench.chunks)
    bench.run(1.0)
    assert len(bench.chunks) <= count + 1
    assert "F04" in bench.worker.problem


def test_the_state_nearest_to_the_images_stamp_is_used() -> None:
    bench = ExpertBench()
    bench.latent()
    now_s = bench.clock()
    for offset_s, angle in ((-0.05, 0.1), (-0.004, 0.2), (0.03, 0.3)):
        q = NEUTRAL_RAD.copy()
        q[0] = angle
        bench.worker.offer_joints(JointSample(q, 0.02, now_s + offset_s, now_s))
    bench.worker.offer_image("primary", Frame(np.zeros((64, 64, 3), np.uint8), now_s, now_s))
    bench.worker.step()
    state = bench.runtime.calls[-1][1]["state"]
    assert math.atan2(state[1], state[0]) == pytest.approx(0.2, abs=0.04)


def test_f06_a_chunk_that_is_not_finite_is_counted_and_not_published() -> None:
    bench = ExpertBench()
    bench.runtime.chunk_value = math.nan
    bench.latent()
    bench.run(0.5)
    assert bench.chunks == [] and bench.worker.bad_chunks > 0
    assert "F06" in bench.worker.problem


def test_two_views_wait_for_both_images() -> None:
    bench = ExpertBench(views=("primary", "wrist"))
    bench.latent()
    now_s = bench.clock()
    bench.worker.offer_joints(JointSample(NEUTRAL_RAD, 0.037, now_s, now_s))
    bench.worker.offer_image("primary", Frame(np.zeros((64, 64, 3), np.uint8), now_s, now_s))
    bench.worker.step()
    assert bench.worker.problem == "no wrist image yet"
    bench.run(0.3)
    assert bench.chunks
