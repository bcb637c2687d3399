"""Numbers of a new checkpoint that no file holds, drawn with a seed: the same on every machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from instructvla_model import weights
from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert
from instructvla_model.released.options import ImportOptions


def fresh_numbers(
    config: PolicyConfig, stage: str, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions, queries: bool
) -> dict[str, Tensor]:
    """The query rows of a bare backbone (unless it has `queries`), and the gate over adapters that were never mixed."""
    generator = torch.Generator().manual_seed(options.seed)
    fresh: dict[str, Tensor] = {}
    if not queries:
        for name in ("vlm.query_embed", "vlm.query_head"):
            if name in shapes:
                fresh[name] = torch.randn(shapes[name], generator=generator) * config.language.initializer_range
    if stage == "generalist" and options.adapters:
        for name in (n for n in shapes if n.startswith("vlm.gate.")):
            bound = shapes[name][-1] ** -0.5 if name.endswith("weight") else 0.0
            fresh[name] = (2.0 * torch.rand(shapes[name], generator=generator) - 1.0) * bound
    return fresh


def fresh_expert(config: PolicyConfig, seed: int, held: Collection[str]) -> dict[str, Tensor]:
    """An action expert as its own modules initialise it, without the tensors named in `held`.

    The whole expert is in memory for a moment (fp32). PyTorch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        expert = ActionExpert(config)
    state = {f"expert.{name}": tensor.detach() for name, tensor in weights.unique_state(expert).items()}
    return {name: tensor for name, tensor in state.items() if name not in held}
