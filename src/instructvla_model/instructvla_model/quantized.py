"""Weight-only int8 for the VLM's large linears: a quarter of fp32's memory, half of bfloat16's.

Weights are stored as int8 with one scale for each output row and turned back where they are used, so that the same
code runs on every device. It saves memory, not time. The expert, adapters, gate and output table stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructvla_model.linears import LEAST, replace_linears


class Int8Linear(nn.Module):
    """y = (x Wq^T) * scale + b, with Wq in -127..127 and scale = max |row| / 127."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale_O = weight.abs().amax(dim=1).float().clamp(min=1e-12) / 127.0
        rounded = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        for row in range(0, weight.shape[0], 1024):  # in pieces: no second whole copy in floats
            part = slice(row, row + 1024)
            rounded[part] = (weight[part].float() / scale_O[part, None]).round().to(torch.int8)
        self.register_buffer("weight_int8", rounded)
        self.register_buffer("scale", scale_O.to(weight.dtype))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.get_buffer("weight_int8").to(x.dtype)) * self.get_buffer("scale").to(x.dtype)
        return y if self.bias is None else y + self.bias


def quantize_linears(module: nn.Module, least: int = LEAST) -> int:
    """Quantize the large linears of `module` -> how many. For inference only."""
    return replace_linears(module, Int8Linear, least)
