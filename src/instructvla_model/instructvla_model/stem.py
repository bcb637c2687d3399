"""Patch embedding (one patch convolution, or a small stack of stride-2 convolutions) and pixel shuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvStem(nn.Module):
    """n stride-2 3x3 convolutions with GroupNorm and GELU, then a 1x1: [B, 3, S, S] -> [B, D, S/2^n, S/2^n].

    Trains from random initialisation far faster than one large patch convolution. Widths halve from the
    output backwards: for D = 128 and n = 3 they are 16, 32, 64 (never under 16).
    """

    def __init__(self, dim: int, n_layers: int, in_channels: int = 3, min_width: int = 16) -> None:
        super().__init__()
        widths = [max(min_width, dim // 2 ** (n_layers - i)) for i in range(n_layers)]
        layers: list[nn.Module] = []
        channels = in_channels
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1),
                nn.GroupNorm(max(1, width // 16), width),
                nn.GELU(),
            ]
            channels = width
        layers.append(nn.Conv2d(channels, dim, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.layers(pixels_BCHW.contiguous(memory_format=torch.channels_last))


def patch_embedding(dim: int, patch_size: int, stem_layers: int) -> nn.Module:
    """The module that turns pixels [B, 3, S, S] into a grid of tokens [B, dim, S/patch, S/patch]."""
    if stem_layers == 0:
        return nn.Conv2d(3, dim, patch_size, stride=patch_size)
    return ConvStem(dim, stem_layers)


def pixel_shuffle(x_BHWC: Tensor, side: int = 2) -> Tensor:
    """Fold side x side neighbouring patches into channels: [B, H, W, C] -> [B, H/side, W/side, C*side^2].

    Channel order of the "v2" ordering: row within the cell first, then column, then channel.
    """
    B, H, W, C = x_BHWC.shape
    x = x_BHWC.view(B, H // side, side, W // side, side, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(B, H // side, W // side, side * side * C)
