"""Mixture of LoRA adapters in the language model, and the gate that weighs them per token.

The mix travels as an explicit argument from the model's forward to each linear layer: no hooks, no
shared mutable state, so a forward depends on its arguments only (compile, checkpointing, threads).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instructvla_model.config import AdapterConfig


@dataclass(frozen=True)
class AdapterMix:
    """Which adapters act. `weights_BSA` None: each named adapter with weight one (stage 1)."""

    names: tuple[str, ...]
    weights_BSA: Tensor | None = None


class MoELoRALinear(nn.Module):
    """y = W x + b + sum_i s * lambda_i * B_i A_i dropout(x); parameter names as in peft.

    Without a mix it is the plain linear layer. Adapters are added by name; A starts as nn.Linear does
    and B at zero, so that a new adapter changes nothing.
    """

    def __init__(self, base_layer: nn.Linear, config: AdapterConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.rank = config.rank
        self.scale = config.scale
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.dropout = nn.Dropout(config.dropout)

    def add_adapter(self, name: str) -> None:
        weight = self.base_layer.weight
        down = nn.Linear(weight.shape[1], self.rank, bias=False, device=weight.device, dtype=weight.dtype)
        up = nn.Linear(self.rank, weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
        self.lora_A[name], self.lora_B[name] = down, up

    def forward(self, x_BSI: Tensor, mix: AdapterMix | None = None) -> Tensor:
        y_BSO = self.base_layer(x_BSI)
        if mix is None:
            return y_BSO
        if mix.weights_BSA is None:
            for name in mix.names:
                y_BSO = y_BSO + self.lora_B[name](self.lora_A[name](self.dropout(x_BSI)) * self.scale)
            return y_BSO
        # lambda scales the rank-sized activations: the same product as scaling x or the output, but small
        rows = []
        for i, name in enumerate(mix.names):
            weight_BS1 = mix.weights_BSA[..., i : i + 1] * self.scale
            rows.append(self.lora_A[name](self.dropout(x_BSI)) * weight_BS1.to(x_BSI.dtype))
        b_OR = torch.cat([self.lora_B[name].get_parameter("weight") for name in mix.names], dim=1)
        return y_BSO + nn.functional.linear(torch.cat(rows, dim=-1), b_OR)


class Gate(nn.Module):
    """Scalar head: adapter weights per token from the base stream's final-norm hidden states.

    lambda = softmax(MLP(h0)): three times Linear, ReLU, Dropout, then Linear to the adapters
    (parameters under layers.{0,3,6,9}).
    """

    def __init__(self, hidden_size: int, config: AdapterConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = hidden_size
        for _ in range(3):
            layers += [nn.Linear(width, config.gate_size), nn.ReLU(), nn.Dropout(config.gate_dropout)]
            width = config.gate_size
        layers.append(nn.Linear(width, len(config.names)))
        self.layers = nn.Sequential(*layers)

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        """-> [B, S, adapters], fp32, sums to one."""
        return torch.softmax(self.layers(hidden_BSH).float(), dim=-1)


def wrap_linears(module: nn.Module, config: AdapterConfig) -> None:
    """Replace every nn.Linear child named in `config.targets` by a MoELoRALinear around it."""
    for name in config.targets:
        child = getattr(module, name, None)
        if isinstance(child, nn.Linear):
            setattr(module, name, MoELoRALinear(child, config))


def moe_linears(module: nn.Module) -> list[MoELoRALinear]:
    return [m for m in module.modules() if isinstance(m, MoELoRALinear)]
