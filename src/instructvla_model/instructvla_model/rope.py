"""Rotary position embedding, half-split layout as in Llama."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(positions_S: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [S, head_dim] for integer positions; angles computed in fp32."""
    index = torch.arange(0, head_dim, 2, device=positions_S.device, dtype=torch.float32)
    inverse_D2 = theta ** (-index / head_dim)
    angle_SD2 = positions_S.float()[:, None] * inverse_D2
    angle_SD = torch.cat([angle_SD2, angle_SD2], dim=-1)
    return angle_SD.cos().to(dtype), angle_SD.sin().to(dtype)


def rotate(x_BHSD: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the last dimension of [..., S, head_dim] by its position."""
    cos_SD, sin_SD = table
    low, high = x_BHSD.chunk(2, dim=-1)
    return x_BHSD * cos_SD + torch.cat([-high, low], dim=-1) * sin_SD
