"""Image augmentation (reference §5.6), all images of a batch at once and on whatever device they are.

Crop of 90 % of the area resized back, brightness, contrast, saturation, hue, in this order. Each image has its own
draws; they come from a numpy generator, so that a seed gives the same images, but for rounding, on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Widths of the draws; brightness and hue are added (of 1), contrast and saturation are factors 1 ± width."""

    crop_area: float = 0.9
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05


NONE = Augmentation(crop_area=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


@dataclass(frozen=True)
class Draws:
    """One row of numbers for each image, each column uniform in 0..1."""

    uniform_B6: np.ndarray

    @classmethod
    def of(cls, count: int, rng: np.random.Generator) -> Draws:
        return cls(rng.random((count, 6)))


def augment(images_BHWC: Tensor, draws: Draws, config: Augmentation | None = None) -> Tensor:
    """uint8 [B, H, W, 3] -> uint8 of the same shape; the same draws make the same change to images of any size."""
    config = config or Augmentation()
    if len(draws.uniform_B6) != len(images_BHWC):
        raise ValueError(f"found draws for {len(draws.uniform_B6)} images, expected {len(images_BHWC)}")
    u = torch.from_numpy(draws.uniform_B6).to(images_BHWC.device, torch.float32)
    x = images_BHWC.movedim(-1, 1).to(torch.float32) / 255.0
    x = _crop(x, u[:, :2], config.crop_area)
    signed = (2.0 * u[:, 2:] - 1.0)[..., None, None, None]
    x = (x + config.brightness * signed[:, 0]).clamp(0.0, 1.0)
    mean = x.mean((2, 3), keepdim=True)
    x = ((x - mean) * (1.0 + config.contrast * signed[:, 1]) + mean).clamp(0.0, 1.0)
    x = _colour(x, 1.0 + config.saturation * signed[:, 2], config.hue * signed[:, 3])
    return (x * 255.0).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def _crop(x_BCHW: Tensor, place_B2: Tensor, area: float) -> Tensor:
    """A square share of each image at a random place, resized to the whole (bilinear)."""
    side = area**0.5
    if side == 1.0:
        return x_BCHW
    shift_B2 = (2.0 * place_B2 - 1.0) * (1.0 - side)
    theta = x_BCHW.new_zeros(len(x_BCHW), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift_B2
    grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _colour(x_BCHW: Tensor, saturation_B111: Tensor, hue_B111: Tensor) -> Tensor:
    """Saturation times a factor and hue plus a shift (1 is the whole circle), through HSV."""
    value, which = x_BCHW.max(1, keepdim=True)
    chroma = value - x_BCHW.amin(1, keepdim=True)
    red, green, blue = x_BCHW.split(1, dim=1)
    safe = chroma.clamp(min=1e-8)
    sectors = torch.stack([(green - blue) / safe % 6.0, (blue - red) / safe + 2.0, (red - green) / safe + 4.0])
    hue = torch.where(chroma > 0, sectors.gather(0, which[None])[0] / 6.0, torch.zeros_like(value))
    chroma = (chroma * saturation_B111).clamp(max=value)  # a saturation above 1 is 1
    hue = hue + hue_B111
    # each channel falls from the value by the chroma, as far as its own hue is away
    offset = torch.tensor([5.0, 3.0, 1.0], device=x_BCHW.device).view(1, 3, 1, 1)
    k = (offset + hue * 6.0) % 6.0
    return (value - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)).clamp(0.0, 1.0)
