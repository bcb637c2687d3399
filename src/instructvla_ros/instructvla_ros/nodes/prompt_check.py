"""Whether the model can read an instruction: only its own tokenizer and context can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instructvla_ros.policy.instructions import InstructionError

_LATENTS = "action"  # the prompt of a latent action that no text was written for


def prompt_check(runtime: Any, mode: str) -> Callable[[str], None]:
    """A function that raises InstructionError for what `runtime` cannot read in its prompts: that of its texts (`mode`,
    "off" for none) and that of its latent actions. A stand-in without a tokenizer reads everything."""
    if getattr(runtime, "tokenizer", None) is None:
        return lambda _: None
    # Imported here: only a process that holds a model needs torch.
    from instructvla_model.prompts import PromptBuilder, PromptError, clean_text

    builder = PromptBuilder(runtime.tokenizer, runtime.manifest.config)
    modes = dict.fromkeys((mode, _LATENTS) if mode != "off" else (_LATENTS,))

    def check(text: str) -> None:
        try:
            clean_text(text)
        except PromptError as error:
            raise InstructionError(
                "instruction holds no words, only signs of the model's own language such as <|im_end|> or <img>; "
                "say in words what to do"
            ) from error
        try:
            for each in modes:
                builder.opening(each, text)
        except PromptError as error:
            raise InstructionError(
                f"instruction of {len(text)} characters is too much for this model: {error}"
            ) from error

    return check


def is_about_the_prompt(error: Exception) -> bool:
    """Whether an error of the model is the instruction's fault and none of the model's."""
    from instructvla_model.prompts import PromptError

    return isinstance(error, PromptError)
