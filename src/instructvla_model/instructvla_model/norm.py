"""RMS normalisation that keeps the stream's dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension; statistics in fp32.

    Same parameter name and result as transformers' Qwen2 and Llama norms. The input's dtype is kept, so
    that a bfloat16 stream under autocast stays bfloat16.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def stream_dtype(x: Tensor) -> torch.dtype:
    """Dtype of the residual stream for input `x`: autocast's where it is on, else the input's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
