"""Linear layers for inference on a CPU: weights kept in the layout that oneDNN's kernels read.

PyTorch hands fp32 matrix products to MKL, which reaches half of oneDNN's speed or less on an AMD EPYC
(docs/reference/performance.md). The numbers are fp32 either way; only the order of the sums differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructvla_model.linears import LEAST, replace_linears

SMALL_MODEL = 50_000_000  # numbers


class PackedLinear(nn.Module):
    """The same y = x W^T + b. The packed weight is no parameter: it cannot be saved, moved or trained."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), None)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return y


def packs(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing pays (a small model is all overhead, half precisions go to oneDNN anyway) and can be done."""
    size = sum(parameter.numel() for parameter in module.parameters())
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    fits = device.type == "cpu" and dtype == torch.float32 and size >= SMALL_MODEL
    return fits and known and torch.backends.mkldnn.is_available()


def pack_linears(module: nn.Module, least: int = LEAST) -> int:
    """Pack the large linears of `module` -> how many. For inference only."""
    return replace_linears(module, PackedLinear, least)
