"""Instructions, the reasoning schedule, the age of latents: pure logic on a fake clock."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from instructvla_ros.policy import (
    Due,
    InstructionError,
    LatentGate,
    LatentLimits,
    LatentUse,
    ReasoningScheduler,
    SchedulerConfig,
    check_instruction,
)


@pytest.mark.parametrize(
    "text", ["pick up the carrot", "  pick up the carrot \n", "lege die Möhre in die Schüssel 🥕"]
)
def test_f20_plain_text_is_accepted_without_surrounding_blanks(text: str) -> None:
    assert check_instruction(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("x" * 513, "513 characters"),
        ("pick\x00up", "U\\+0000"),
        ("pick\nup", "U\\+000A"),
        ("pick\u2028up", "U\\+2028"),
        ("\u200b", "cannot be seen, the first is U\\+200B"),
        ("\ufeff \u200b\u2060", "cannot be seen, the first is U\\+FEFF"),
        ("pick \ufffd up", "UTF-8"),
        (b"pick \xff up".decode("utf-8", "surrogateescape"), "UTF-8"),
    ],
)
def test_f20_empty_huge_and_unreadable_instructions_are_refused_with_a_message(
    text: str, message: str
) -> None:
    with pytest.raises(InstructionError, match=message):
        check_instruction(text)


def scheduler(**config: object) -> ReasoningScheduler:
    return ReasoningScheduler(SchedulerConfig(**config))  # type: ignore[arg-type]


def test_without_an_instruction_nothing_is_due() -> None:
    made = scheduler()
    assert made.next(1e9) is Due.NOTHING
    assert made.wait_s(0.0) == math.inf


def test_a_new_instruction_is_reasoned_about_first_and_then_gets_a_latent_at_once() -> None:
    made = scheduler()
    made.on_instruction(True, 0.0)
    assert made.next(0.0) is Due.TEXT
    assert not made.latent_due(0.0)
    made.on_text_started()
    made.on_text_finished()
    assert made.next(1.0) is Due.LATENT


def test_without_thinking_a_latent_is_due_at_once_and_text_never() -> None:
    made = scheduler(reasoning_period=1)
    made.on_instruction(False, 0.0)
    for now_s in (0.0, 0.5, 1.0):
        assert made.next(now_s) is Due.LATENT
        made.on_latent(now_s)


def test_latents_come_at_their_own_period_and_text_again_after_so_many() -> None:
    made = scheduler(latent_period_s=0.5, reasoning_period=3)
    made.on_instruction(True, 0.0)
    made.on_text_started()
    made.on_text_finished()
    times = []
    now_s = 0.0
    while made.next(now_s) is not Due.TEXT:
        if made.next(now_s) is Due.LATENT:
            times.append(round(now_s, 3))
            made.on_latent(now_s)
        now_s += 0.1
    assert times == [0.0, 0.5, 1.0]


def test_a_reasoning_period_of_zero_reasons_only_once() -> None:
    made = scheduler(latent_period_s=0.1, reasoning_period=0)
    made.on_instruction(True, 0.0)
    made.on_text_started()
    made.on_text_finished()
    for count in range(100):
        assert made.next(0.2 * count) is Due.LATENT
        made.on_latent(0.2 * count)


def test_while_later_text_is_written_latents_stay_due() -> None:
    made = scheduler(latent_period_s=0.5)
    made.on_instruction(True, 0.0)
    made.on_text_started()
    made.on_text_finished()
    made.on_latent(0.0)
    made.on_text_started()
    assert not made.latent_due(0.4)
    assert made.latent_due(0.5)
    assert made.next(0.5) is Due.LATENT


def test_the_first_text_is_waited_for_only_so_long() -> None:
    made = scheduler(first_text_timeout_s=2.0)
    made.on_instruction(True, 10.0)
    made.on_text_started()
    assert not made.latent_due(11.9)
    assert made.latent_due(12.0)


def test_the_first_text_is_not_waited_for_when_so_configured() -> None:
    made = scheduler(wait_for_first_text=False)
    made.on_instruction(True, 10.0)
    made.on_text_started()
    assert made.latent_due(10.0)


def test_a_slightly_late_latent_keeps_the_period_on_average() -> None:
    made = scheduler(latent_period_s=0.5)
    made.on_instruction(False, 0.0)
    made.on_latent(0.0)
    made.on_latent(0.6)
    assert made.latent_due(1.0)


def test_while_the_first_text_is_waited_for_nobody_looks_again_before_that_time_is_over() -> None:
    made = scheduler(first_text_timeout_s=2.0)
    made.on_instruction(True, 10.0)
    made.on_text_started()
    assert made.next(10.5) is Due.NOTHING and made.wait_s(10.5) == pytest.approx(1.5)
    assert made.next(12.0) is Due.LATENT


def test_an_abandoned_first_text_is_due_again() -> None:
    made = scheduler()
    made.on_instruction(True, 10.0)
    made.on_text_started()
    made.on_text_abandoned()
    assert made.next(10.1) is Due.TEXT


def test_f11_a_latent_is_good_then_aging_then_expired_by_chunks() -> None:
    gate = LatentGate(LatentLimits(good_chunks=2, max_chunks=4, max_age_s=10.0))
    assert gate.use(0.0)[0] is LatentUse.NONE
    gate.on_latent(0.0)
    seen = []
    for _ in range(5):
        seen.append(gate.use(0.1)[0])
        gate.on_chunk()
    assert seen == [LatentUse.GOOD] * 2 + [LatentUse.AGING] * 2 + [LatentUse.EXPIRED]


def test_f11_a_latent_expires_by_age_and_a_new_one_is_good_again() -> None:
    gate = LatentGate()
    gate.on_latent(0.0)
    assert gate.use(4.0)[0] is LatentUse.GOOD
    use, reason = gate.use(4.1)
    assert use is LatentUse.EXPIRED and "4.1 s old" in reason
    gate.on_latent(5.0)
    assert gate.use(5.0)[0] is LatentUse.GOOD


def test_the_policy_package_imports_neither_rclpy_nor_torch() -> None:
    code = "import sys, instructvla_ros.policy; sys.exit(any(m in sys.modules for m in ('rclpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
