"""Minimum, maximum, mean and standard deviation as LeRobot stores them, added up episode by episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_IMAGE_STRIDE = 8


@dataclass(frozen=True)
class Moments:
    """Of ``count`` rows; arrays of one length."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    square: np.ndarray  # mean of the squares
    count: int

    @classmethod
    def of(cls, rows_XD: np.ndarray) -> Moments:
        x = np.asarray(rows_XD, dtype=np.float64)
        return cls(x.min(0), x.max(0), x.mean(0), np.square(x).mean(0), len(x))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        a, b = self.count / count, other.count / count
        return Moments(
            np.minimum(self.min, other.min), np.maximum(self.max, other.max), a * self.mean + b * other.mean,
            a * self.square + b * other.square, count,
        )  # fmt: skip

    def to_dict(self, key: str) -> dict[str, Any]:
        """Lists; those of images have the shape (3, 1, 1) and the range 0..1."""
        std = np.sqrt(np.maximum(self.square - np.square(self.mean), 0.0))
        values = {"min": self.min, "max": self.max, "mean": self.mean, "std": std}
        shape = (-1, 1, 1) if ".images." in key else (-1,)
        return {name: value.reshape(shape).tolist() for name, value in values.items()} | {"count": [self.count]}


def image_sample(image_HWC: np.ndarray) -> np.ndarray:
    """Every few pixels of an image as (n, 3) in 0..1."""
    return image_HWC[::_IMAGE_STRIDE, ::_IMAGE_STRIDE].reshape(-1, 3) / 255.0
