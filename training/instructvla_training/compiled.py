"""torch.compile for training: the layers in which most of the time goes by."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from instructvla_model.policy import InstructVLA

logger = logging.getLogger(__name__)

BACKEND = "inductor"


def compile_layers(policy: InstructVLA, device: torch.device) -> int:
    """Hands every layer of the language model and of the expert's vision transformer to torch.compile, which works at
    their first pass (a minute or two) -> how many; 0 where this machine cannot compile for ``device``: they run as they
    are, and it is said.

    Parameters keep their names. Rows and tokens of the language model differ from batch to batch, so its shapes are
    symbolic.
    """
    problem = _problem(device)
    if problem:
        logger.warning(
            "torch.compile cannot work here (%s): training runs without it, more slowly; it needs a C++ compiler and "
            "Python's headers, on a GPU Triton and a C compiler", problem,
        )  # fmt: skip
        return 0
    layers, blocks = policy.vlm.language_model.model.layers, policy.expert.film_vision_model.vision_model.blocks
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    for block in blocks:
        block.compile(backend=BACKEND)
    return len(layers) + len(blocks)


def _problem(device: torch.device) -> str:
    """Why a trivial function cannot be compiled, or ""."""
    try:
        torch.compile(_trivial, backend=BACKEND)(torch.ones(4, device=device))
    except Exception as error:  # noqa: BLE001 - of compilers, drivers and missing headers alike; it is told
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _trivial(x: Tensor) -> Tensor:
    return torch.tanh(x) + 1.0
