"""The reasoning node's work on a fake clock with a fake runtime."""

from __future__ import annotations

import math
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import numpy as np
import pytest

from instructvla_ros.control.kinematics import NEUTRAL_RAD
from instructvla_ros.control.types import JointSample
from instructvla_ros.policy import (
    ExpertConfig,
    Frame,
    Instruction,
    ReasoningConfig,
    ReasoningUpdate,
    ReasoningWorker,
    SchedulerConfig,
)
from instructvla_ros.policy.offline import OfflinePolicy


class ReasoningBench:
    """A reasoning worker that gets a fresh image (numbered in its first pixel) whenever the clock has
    moved."""

    def __init__(self, runtime: Any = None, **config: Any) -> None:
        self.clock = fakes.FakeClock()
        self.runtime = runtime or fakes.FakeRuntime()
        self.runtime.clock = self.clock
        self.texts: list[ReasoningUpdate] = []
        self.latents: list[tuple[float, Any, ReasoningUpdate | None]] = []
        schedule = SchedulerConfig(**config.pop("schedule", {"latent_period_s": 0.25, "reasoning_period": 0}))
        self.worker = ReasoningWorker(
            self.runtime,
            ReasoningConfig(scheduler=schedule, **config),
            self.texts.append,
            lambda plan, text, latency: self.latents.append((self.clock(), plan, text)),
            self.clock,
        )
        self.number = 0

    def image(self) -> None:
        self.number += 1
        image = np.full((64, 64, 3), self.number % 256, np.uint8)
        self.worker.offer_image("primary", Frame(image, self.clock(), self.clock()))

    def run(self, seconds: float) -> None:
        """Step with an image every 50 ms."""
        end_s = self.clock() + seconds
        while self.clock() < end_s:
            self.image()
            if self.worker.step() > 0.0:
                self.clock.advance(0.05)


def test_the_instruction_is_announced_before_any_model_work() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 3))
    bench.worker.step()
    assert bench.runtime.calls == []
    assert [(t.instruction.instruction_id, t.text, t.final) for t in bench.texts] == [(3, "", False)]
    assert math.isnan(bench.texts[0].stamp_s)


def test_text_streams_token_by_token_and_only_its_last_message_is_final() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    bench.worker.step()
    assert [t.text for t in bench.texts] == ["", "move", "move to", "move to the", "move to the carrot"]
    assert [t.final for t in bench.texts] == [False] * 4 + [True]
    assert len({t.seq for t in bench.texts}) == 1
    assert bench.texts[-1].latency_s == pytest.approx(0.4)
    assert bench.texts[-1].tokens_per_second == pytest.approx(10.0)


def test_the_first_latent_after_a_text_reuses_its_cache_and_its_image() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    bench.worker.step()
    name, options = bench.runtime.calls[-1]
    assert name == "latents"
    assert options["reuse_cache"] and options["text"] == "move to the carrot" and options["image"] == 1
    assert options["stamp_s"] == pytest.approx(100.0)


def test_a_text_that_took_too_long_gets_its_latent_from_the_newest_image() -> None:
    runtime = fakes.FakeRuntime(token_s=0.3)
    bench = ReasoningBench(runtime)
    runtime.on_token = lambda _: bench.image()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    bench.worker.step()
    options = bench.runtime.calls[-1][1]
    assert not options["reuse_cache"]
    assert options["image"] == bench.number


def test_while_later_text_is_written_latents_go_on_from_the_last_finished_text() -> None:
    runtime = fakes.FakeRuntime(words=tuple(f"w{i}" for i in range(20)))
    bench = ReasoningBench(runtime, schedule={"latent_period_s": 0.25, "reasoning_period": 4})
    runtime.on_token = lambda _: bench.image()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(12.0)
    seqs = sorted({t.seq for t in bench.texts})
    assert seqs[:3] == [1, 2, 3]
    second = [t for t in bench.texts if t.seq == 2]
    writing_from_s, writing_to_s = second[0].stamp_s, second[0].stamp_s + second[-1].latency_s
    during = [(s, text) for s, _, text in bench.latents if writing_from_s < s < writing_to_s - 0.05]
    assert len(during) >= 6  # 2 s of writing at 4 Hz
    assert all(text is not None and text.seq == 1 for _, text in during)
    times = [s for s, _, _ in bench.latents]
    assert max(np.diff(times)) < 0.45  # text never stalls the latents


def test_a_new_instruction_ends_a_running_text_at_its_next_token_and_nothing_old_is_published() -> None:
    runtime = fakes.FakeRuntime(words=("a", "b", "c", "d", "e", "f"))
    bench = ReasoningBench(runtime)

    def interrupt(count: int) -> None:
        if count == 2 and len([c for c in runtime.calls if c[0] == "think"]) == 1:
            bench.worker.accept(Instruction("put the lemon on the plate", 2))

    runtime.on_token = interrupt
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(1.5)
    ids = [t.instruction.instruction_id for t in bench.texts]
    assert ids == sorted(ids)
    assert [(t.text, t.final) for t in bench.texts if t.instruction.instruction_id == 1] == [
        ("", False),
        ("a", False),
        ("a", True),
    ]
    assert all(plan.instruction_id == 2 for _, plan, _ in bench.latents)
    assert bench.texts[-1].final


def test_a_text_cut_short_by_the_runtime_is_closed_for_listeners_and_latents_go_on_without_it() -> None:
    bench = ReasoningBench(fakes.FakeRuntime(final=False))
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(1.0)
    assert bench.texts[-1].final
    assert bench.latents and all(text is None for _, _, text in bench.latents)


@pytest.mark.parametrize(("mode", "think"), [("off", True), ("think", False)])
def test_without_thinking_latents_start_at_once_and_no_text_is_written(mode: str, think: bool) -> None:
    bench = ReasoningBench(mode=mode)
    bench.worker.accept(Instruction("pick up the carrot", 1, think))
    bench.run(1.0)
    assert [t.final for t in bench.texts] == [True]
    assert {name for name, _ in bench.runtime.calls} == {"latents"}
    assert 3 <= len(bench.latents) <= 5


def test_f01_with_a_stale_image_no_text_and_no_latent_is_made() -> None:
    bench = ReasoningBench()
    bench.image()
    bench.clock.advance(0.6)
    bench.worker.accept(Instruction("pick up the carrot", 1))
    assert bench.worker.step() == math.inf
    assert bench.runtime.calls == []
    assert "0.6 s old" in bench.worker.problem
    bench.image()
    bench.worker.step()
    assert bench.runtime.calls and not bench.worker.problem


def test_f03_an_image_that_comes_again_under_the_same_stamp_goes_on_aging() -> None:
    bench = ReasoningBench(mode="off")
    stamp_s = bench.clock()
    for _ in range(8):
        bench.worker.offer_image("primary", Frame(np.zeros((64, 64, 3), np.uint8), stamp_s, bench.clock()))
        bench.clock.advance(0.1)
    bench.worker.accept(Instruction("pick up the carrot", 1))
    assert bench.worker.step() == math.inf
    assert bench.runtime.calls == [] and "0.8 s old" in bench.worker.problem


def test_one_image_makes_at_most_one_latent() -> None:
    bench = ReasoningBench(mode="off", max_image_age_s=10.0)
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    for _ in range(20):
        bench.worker.step()
        bench.clock.advance(0.1)
    assert len(bench.latents) == 1


def test_an_instruction_without_text_is_announced_and_ends_all_work() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(1.0)
    bench.worker.accept(Instruction("", 2, think=False))
    bench.run(0.2)
    latents, last = len(bench.latents), bench.texts[-1]
    bench.run(2.0)
    assert len(bench.latents) == latents > 0 and bench.texts[-1] is last
    assert (last.instruction.instruction_id, last.instruction.text, last.final) == (2, "", True)
    assert bench.worker.instruction is None and bench.worker.problem == "no instruction"


def test_cancelling_ends_all_work() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(1.0)
    bench.worker.cancel()
    before = len(bench.runtime.calls)
    bench.run(2.0)
    assert len(bench.runtime.calls) == before


def test_a_reasoning_that_is_cancelled_while_it_is_written_gets_a_final_update_without_another_step() -> None:
    bench = ReasoningBench()
    bench.runtime.on_token = lambda count: bench.worker.cancel() if count == 3 else None
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    bench.worker.step()
    assert [(t.text, t.final) for t in bench.texts[-2:]] == [("move to", False), ("move to", True)]
    assert len({t.seq for t in bench.texts}) == 1


@pytest.mark.parametrize("newer", [None, Instruction("put the lemon on the plate", 2), Instruction("", 2, False)])
def test_a_reasoning_that_was_announced_and_never_began_gets_a_final_update(newer: Instruction | None) -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    assert bench.worker.step() == math.inf, "no image yet"
    bench.worker.cancel() if newer is None else bench.worker.accept(newer)
    bench.worker.step()
    assert [(t.text, t.final) for t in bench.texts if t.instruction.instruction_id == 1] == [("", False), ("", True)]
    assert [t.instruction.instruction_id for t in bench.texts][:2] == [1, 1]


def test_a_finished_reasoning_is_not_closed_again() -> None:
    bench = ReasoningBench()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.run(1.0)
    bench.worker.cancel()
    bench.run(0.2)
    bench.worker.close()
    assert [t.final for t in bench.texts].count(True) == 1


class SideBySide(fakes.FakeRuntime):
    """Sees two views at once, and notes the number in the first pixel of each."""

    def __init__(self) -> None:
        super().__init__(views=("primary", "wrist"), vlm_input="side_by_side")
        self.seen: list[dict[str, int]] = []

    def think(self, image: Any, instruction: str, **options: Any) -> Any:
        self.seen.append({view: int(pixels.flat[0]) for view, pixels in image.items()})
        return super().think(image, instruction, **options)

    def latents(self, image: Any, instruction: str, thought: Any, **options: Any) -> Any:
        self.seen.append({view: int(pixels.flat[0]) for view, pixels in image.items()})
        return super().latents(image["primary"], instruction, thought, **options)


def test_a_vlm_that_sees_two_views_side_by_side_gets_both_by_name_under_the_first_ones_stamp() -> None:
    bench = ReasoningBench(SideBySide())
    bench.worker.accept(Instruction("pick up the carrot", 1))
    bench.image()
    bench.worker.step()
    assert bench.worker.problem == "no wrist image yet" and bench.runtime.calls == []
    bench.worker.offer_image("wrist", Frame(np.full((64, 64, 3), 7, np.uint8), 99.9, bench.clock()))
    bench.worker.step()
    assert bench.runtime.seen == [{"primary": 1, "wrist": 7}] * 2, "text and latent"
    assert [plan.stamp_s for _, plan, _ in bench.latents] == [100.0]


def test_f01_a_stale_view_of_two_stops_text_and_latents_as_a_stale_image_does() -> None:
    bench = ReasoningBench(SideBySide())
    bench.worker.offer_image("wrist", Frame(np.zeros((64, 64, 3), np.uint8), bench.clock(), bench.clock()))
    bench.clock.advance(0.6)
    bench.image()
    bench.worker.accept(Instruction("pick up the carrot", 1))
    assert bench.worker.step() == math.inf
    assert bench.runtime.calls == [] and "wrist image is 0.6 s old" in bench.worker.problem


def test_in_a_replay_too_both_views_reach_a_vlm_that_sees_them_side_by_side() -> None:
    clock, runtime, chunks = fakes.FakeClock(), SideBySide(), []
    views = runtime.manifest.views
    policy = OfflinePolicy(runtime, clock, ReasoningConfig(), ExpertConfig(views=views), on_chunk=chunks.append)
    policy.follow(Instruction("pick up the carrot", 1))
    policy.offer_joints(JointSample(NEUTRAL_RAD, 0.037, clock(), clock()))
    for number, view in enumerate(views):
        policy.offer_image(view, Frame(np.full((64, 64, 3), number, np.uint8), clock(), clock()))
    policy.work()
    assert runtime.seen == [{"primary": 0, "wrist": 1}] * 2 and len(chunks) == 1


class FailingRuntime(fakes.FakeRuntime):
    """Breaks after one word."""

    def think(self, image: np.ndarray, instruction: str, **options: Any) -> Any:
        yield next(super().think(image, instruction, **options))
        raise RuntimeError("out of memory")


def test_a_text_that_fails_is_closed_and_begun_again_at_the_next_step() -> None:
    bench = ReasoningBench(FailingRuntime())
    bench.worker.accept(Instruction("pick up the carrot", 1))
    for seq in (1, 2, 3):
        bench.image()
        with pytest.raises(RuntimeError, match="out of memory"):
            bench.worker.step()
        assert (bench.texts[-1].seq, bench.texts[-1].text, bench.texts[-1].final) == (seq, "move", True)


def test_a_dropped_instruction_is_followed_no_more_and_a_newer_one_is_not_dropped_with_it() -> None:
    bench = ReasoningBench()
    first, second = Instruction("pick up the carrot", 1), Instruction("put the lemon on the plate", 2)
    bench.worker.accept(first)
    bench.worker.step()
    assert bench.worker.drop() is first
    assert bench.worker.step() == math.inf and bench.worker.instruction is None
    bench.worker.accept(first)
    bench.worker.step()
    bench.worker.accept(second)
    assert bench.worker.drop() is None
    assert bench.worker.instruction is second
