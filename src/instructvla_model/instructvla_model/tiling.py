"""Several tiles for one picture, as evaluations of the VLM on fine print use; the policy itself takes one."""

from __future__ import annotations

import numpy as np
from PIL import Image

from instructvla_model.image import check_image

Grid = tuple[int, int]  # columns, rows
_ENOUGH = 0.6  # a grid of more than this share of the picture's area is worth no more


def grid(width_px: int, height_px: int, max_tiles: int, tile_px: int) -> Grid:
    """The grid of at most `max_tiles` tiles that fits the picture best: first in area up to a share, and in shape.

    Score: min(0.6, area of the grid / area of the picture) x ratio of the two aspect ratios (at most 1); of equal
    scores the grid with fewer tiles, then with fewer columns, wins.
    """
    candidates = sorted(
        ((i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1)), key=lambda g: g[0] * g[1]
    )
    aspect = width_px / height_px

    def score(g: Grid) -> float:
        columns, rows = g
        share = columns * rows * tile_px**2 / (width_px * height_px)
        return min(_ENOUGH, share) * min(columns / rows / aspect, aspect / (columns / rows))

    return max(candidates, key=score)


def tiles(image_HWC: np.ndarray, max_tiles: int, tile_px: int) -> list[np.ndarray]:
    """uint8 RGB picture -> its tiles row by row, then the whole picture as one tile if there is more than one."""
    check_image(image_HWC)
    picture = Image.fromarray(np.ascontiguousarray(image_HWC))
    columns, rows = grid(picture.width, picture.height, max_tiles, tile_px)
    whole = np.asarray(picture.resize((columns * tile_px, rows * tile_px), Image.Resampling.BICUBIC))
    cut = [
        whole[r * tile_px : (r + 1) * tile_px, c * tile_px : (c + 1) * tile_px]
        for r in range(rows)
        for c in range(columns)
    ]
    if len(cut) > 1:
        cut.append(np.asarray(picture.resize((tile_px, tile_px), Image.Resampling.BICUBIC)))
    return cut
