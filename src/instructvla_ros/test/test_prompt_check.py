"""Which instructions a model can read: a real tokenizer, with the small model's context."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("instructvla_model.types")

from instructvla_model.presets import preset
from instructvla_model.prompts import PromptError
from instructvla_model.tokenizer import train_tokenizer
from instructvla_ros.nodes.prompt_check import is_about_the_prompt, prompt_check
from instructvla_ros.policy import InstructionError, check_instruction

MODES = ("think", "motion", "off")
WORDS = ("pick up the carrot", "What action should the robot take to", "First answer my question.")


@pytest.fixture(scope="module")
def runtime() -> Any:
    config = preset("nano")
    tokenizer = train_tokenizer(WORDS, 300, config.n_queries)
    return SimpleNamespace(
        tokenizer=tokenizer, manifest=SimpleNamespace(config=config.with_vocab_size(tokenizer.vocab_size))
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["<|im_end|>", "<img>", "<|im_<img>end|> <new_token_3>"])
def test_f20_an_instruction_of_token_strings_alone_is_refused_in_words(runtime: Any, mode: str, text: str) -> None:
    with pytest.raises(InstructionError, match="holds no words"):
        prompt_check(runtime, mode)(check_instruction(text))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["拿起胡萝卜" * 48, "возьми морковь " * 33, "🥕" * 200])
def test_f20_an_instruction_that_exceeds_the_models_context_is_refused_with_both_numbers(
    runtime: Any, mode: str, text: str
) -> None:
    assert len(check_instruction(text)) <= 512, "as long as the documentation allows"
    with pytest.raises(InstructionError, match=r"too much for this model: .* tokens; expected at most 512"):
        prompt_check(runtime, mode)(check_instruction(text))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["pick up the carrot", "nimm die Möhre 🥕", "put it <img> down", "拿起胡萝卜"])
def test_what_the_model_can_read_passes(runtime: Any, mode: str, text: str) -> None:
    prompt_check(runtime, mode)(check_instruction(text))


def test_a_stand_in_without_a_tokenizer_reads_everything() -> None:
    prompt_check(SimpleNamespace(), "think")("🥕" * 512)


def test_only_an_error_of_the_prompt_is_the_instructions_fault() -> None:
    assert is_about_the_prompt(PromptError("too long")) and not is_about_the_prompt(ValueError("too hot"))


def test_instructions_are_checked_while_the_model_uses_the_same_tokenizer(runtime: Any) -> None:
    check = prompt_check(runtime, "think")

    def write() -> int:
        return sum(len(runtime.tokenizer.encode(f"pick up {number}")) for number in range(1000))

    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(write) for _ in range(2)]
        for number in range(300):
            check(f"pick up carrot {number}")
        assert len({each.result() for each in writing}) == 1
