"""Image recipes as data: named lists of steps, saved in the manifest, applied the same everywhere.

Every step maps pixels forward and points in both directions, so that a place the model looks at can be
drawn on the camera's image and a place in the scene can supervise the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

_PILLOW = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


class ImageError(ValueError):
    """An image or recipe that cannot be used; the message says found, expected and how to mend it."""


Size = tuple[int, int]  # height, width
Affine = tuple[float, float, float, float]  # u' = ax * u + bx, v' = ay * v + by; u right, v down, pixel edges


def _resize(image: np.ndarray, size: Size, interpolation: str) -> np.ndarray:
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "area":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if interpolation not in _PILLOW:
        expected = sorted(("area", *_PILLOW))
        raise ImageError(f"interpolation {interpolation!r}; expected one of {expected}; correct the recipe")
    # Pillow's own filters, bit for bit: the released checkpoints were trained on them
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((width, height), _PILLOW[interpolation]))


@dataclass(frozen=True)
class Squash:
    """Resize to a square of `size`, aspect ignored."""

    kind: ClassVar[str] = "squash"
    size: int
    interpolation: str = "area"

    def output_size(self, size: Size) -> Size:
        return (self.size, self.size)

    def affine(self, size: Size) -> Affine:
        return (self.size / size[1], 0.0, self.size / size[0], 0.0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        return _resize(image, (self.size, self.size), self.interpolation)


@dataclass(frozen=True)
class ShorterSide:
    """Resize so that the shorter side is `size`, aspect kept (the longer side is rounded down)."""

    kind: ClassVar[str] = "shorter_side"
    size: int
    interpolation: str = "bicubic"

    def output_size(self, size: Size) -> Size:
        height, width = size
        if height <= width:
            return (self.size, int(self.size * width / height))
        return (int(self.size * height / width), self.size)

    def affine(self, size: Size) -> Affine:
        height, width = self.output_size(size)
        return (width / size[1], 0.0, height / size[0], 0.0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        return _resize(image, self.output_size((image.shape[0], image.shape[1])), self.interpolation)


@dataclass(frozen=True)
class CropBox:
    """Cut out a box given in fractions of the image (left, top, right, bottom)."""

    kind: ClassVar[str] = "crop_box"
    left: float
    top: float
    right: float
    bottom: float

    def _box(self, size: Size) -> tuple[int, int, int, int]:
        height, width = size
        x0, y0 = round(self.left * width), round(self.top * height)
        x1, y1 = round(self.right * width), round(self.bottom * height)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ImageError(
                f"crop box {dataclasses.astuple(self)}; expected fractions 0 <= left < right <= 1, "
                "0 <= top < bottom <= 1; correct the recipe"
            )
        return x0, y0, x1, y1

    def output_size(self, size: Size) -> Size:
        x0, y0, x1, y1 = self._box(size)
        return (y1 - y0, x1 - x0)

    def affine(self, size: Size) -> Affine:
        x0, y0, _, _ = self._box(size)
        return (1.0, -float(x0), 1.0, -float(y0))

    def apply(self, image: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = self._box((image.shape[0], image.shape[1]))
        return image[y0:y1, x0:x1]


@dataclass(frozen=True)
class CenterCrop:
    """Cut out the central square of `size` pixels."""

    kind: ClassVar[str] = "center_crop"
    size: int

    def output_size(self, size: Size) -> Size:
        return (self.size, self.size)

    def affine(self, size: Size) -> Affine:
        top, left = self._corner(size)
        return (1.0, -float(left), 1.0, -float(top))

    def _corner(self, size: Size) -> tuple[int, int]:
        if min(size) < self.size:
            raise ImageError(
                f"image of {size[1]}x{size[0]} for a centre crop of {self.size}; expected a larger image; resize first"
            )
        return round((size[0] - self.size) / 2.0), round((size[1] - self.size) / 2.0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        top, left = self._corner((image.shape[0], image.shape[1]))
        return image[top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class SampledCrop:
    """The central `area` of the image (a fraction), sampled bilinearly on a grid of `size` x `size` points.

    TensorFlow's crop_and_resize and its way back to uint8: the grid's corners lie on the crop's corners, nothing is
    averaged, values are scaled by 255.5 / 255 and cut off.
    """

    kind: ClassVar[str] = "sampled_crop"
    size: int
    area: float = 0.9

    def output_size(self, size: Size) -> Size:
        return (self.size, self.size)

    def affine(self, size: Size) -> Affine:
        (ax, bx), (ay, by) = self._line(size[1]), self._line(size[0])
        return (ax, bx, ay, by)

    def _line(self, length: int) -> tuple[float, float]:
        """Pixel edges: output = a * input + b. Grid points are pixel centres."""
        a = (self.size - 1) / (self.area**0.5 * (length - 1))
        first = (1.0 - self.area**0.5) / 2.0 * (length - 1)
        return a, 0.5 - a * (first + 0.5)

    def apply(self, image: np.ndarray) -> np.ndarray:
        out = image.astype(np.float32)
        for axis in (0, 1):
            a, b = self._line(image.shape[axis])
            at = np.clip(((np.arange(self.size) + 0.5) - b) / a - 0.5, 0.0, image.shape[axis] - 1.0)
            low = np.floor(at).astype(np.intp)
            high = np.minimum(low + 1, image.shape[axis] - 1)
            weight = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
            out = out.take(low, axis) * (1.0 - weight) + out.take(high, axis) * weight
        return (out.clip(0.0, 255.0) * (255.5 / 255.0)).astype(np.uint8)


Step = Squash | ShorterSide | CropBox | CenterCrop | SampledCrop
_STEPS: dict[str, type] = {cls.kind: cls for cls in (Squash, ShorterSide, CropBox, CenterCrop, SampledCrop)}


@dataclass(frozen=True)
class ImageRecipe:
    """`view_steps` on each view, `steps` on the views side by side (all uint8 RGB), then (x / 255 - mean) / std."""

    name: str
    steps: tuple[Step, ...]
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    view_steps: tuple[Step, ...] = ()

    def pixels(self, image_HWC: np.ndarray) -> np.ndarray:
        """The geometric steps only: uint8 RGB (H, W, 3) -> uint8 RGB of the model's size."""
        return self.joined_pixels([image_HWC])

    def joined_pixels(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """As `pixels`, for views that the model sees side by side. ImageError if they differ in height there."""
        prepared = []
        for view_HWC in views:
            check_image(view_HWC)
            for step in self.view_steps:
                view_HWC = step.apply(view_HWC)
            prepared.append(view_HWC)
        heights = [view_HWC.shape[0] for view_HWC in prepared]
        if len(set(heights)) != 1:
            raise ImageError(f"views of heights {heights}; expected equal heights side by side; resize one of them")
        image_HWC = prepared[0] if len(prepared) == 1 else np.concatenate(prepared, axis=1)
        for step in self.steps:
            image_HWC = step.apply(image_HWC)
        return np.ascontiguousarray(image_HWC)

    def normalize(self, pixels_XHWC: Tensor) -> Tensor:
        """uint8 [..., H, W, 3] (already of the model's size) -> float32 [..., 3, H, W]."""
        scale = torch.tensor([1.0 / (255.0 * s) for s in self.std])
        offset = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)])
        channels_last = pixels_XHWC.to(torch.float32) * scale.to(pixels_XHWC.device)
        return (channels_last - offset.to(pixels_XHWC.device)).movedim(-1, -3).contiguous()

    def restore(self, tensor_XCHW: Tensor) -> Tensor:
        """Inverse of `normalize`: float [..., 3, H, W] -> uint8 [..., H, W, 3]."""
        shape = (3, 1, 1)
        values = tensor_XCHW.float() * torch.tensor(self.std).view(shape) + torch.tensor(self.mean).view(shape)
        return (values * 255.0).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)

    def apply(self, image_HWC: np.ndarray) -> Tensor:
        """Camera image, uint8 RGB (H, W, 3) -> float32 [3, S, S]."""
        return self.apply_joined([image_HWC])

    def apply_joined(self, views: Sequence[np.ndarray]) -> Tensor:
        """Camera images that the model sees side by side -> float32 [3, S, S]."""
        return self.normalize(torch.from_numpy(self.joined_pixels(views)))

    def affine(self, size: Size) -> Affine:
        """Map from camera pixels to model pixels for a camera image of (height, width), the only view."""
        ax, bx, ay, by = 1.0, 0.0, 1.0, 0.0
        for step in (*self.view_steps, *self.steps):
            sx, ox, sy, oy = step.affine(size)
            ax, bx, ay, by = sx * ax, sx * bx + ox, sy * ay, sy * by + oy
            size = step.output_size(size)
        return ax, bx, ay, by

    def to_model(self, uv: np.ndarray, size: Size) -> np.ndarray:
        """Camera points (..., 2), u right and v down in pixels -> points in the model's image."""
        ax, bx, ay, by = self.affine(size)
        return np.asarray(uv, dtype=np.float64) * (ax, ay) + (bx, by)

    def to_camera(self, uv: np.ndarray, size: Size) -> np.ndarray:
        """Inverse of `to_model`."""
        ax, bx, ay, by = self.affine(size)
        return (np.asarray(uv, dtype=np.float64) - (bx, by)) / (ax, ay)

    def to_dict(self) -> dict[str, Any]:
        """`view_steps` only where there are any, so that older manifests keep their bytes."""
        values: dict[str, Any] = {"name": self.name, "steps": _steps_to_list(self.steps)}
        if self.view_steps:
            values["view_steps"] = _steps_to_list(self.view_steps)
        return values | {"mean": list(self.mean), "std": list(self.std)}


def _steps_to_list(steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    return [{"kind": step.kind, **dataclasses.asdict(step)} for step in steps]


def _steps_from_list(entries: list[dict[str, Any]]) -> tuple[Step, ...]:
    steps = []
    for entry in entries:
        options = dict(entry)
        steps.append(_STEPS[options.pop("kind")](**options))
    return tuple(steps)


def recipe_from_dict(values: dict[str, Any]) -> ImageRecipe:
    """Inverse of ImageRecipe.to_dict. Raises ImageError."""
    try:
        steps, view_steps = (_steps_from_list(entries) for entries in (values["steps"], values.get("view_steps", [])))
        name = values["name"]
        if name == "siglip_libero" and not view_steps:
            raise ImageError(
                "image recipe 'siglip_libero' has no steps for each view; expected these before pictures are joined; "
                "an older version joined them first: import the released file again"
            )
        return ImageRecipe(name, steps, tuple(values["mean"]), tuple(values["std"]), view_steps)
    except (KeyError, TypeError) as error:
        raise ImageError(
            f"image recipe {values!r} is not readable ({error!r}); expected name, steps of kinds "
            f"{sorted(_STEPS)}, mean, std; restore the manifest"
        ) from error


def _recipes(size: int) -> dict[str, ImageRecipe]:
    """Every named recipe for a model image of size x size.

    `dino_crop` is the released checkpoints' (crop_pct 0.875: the rim is never seen). `*_center_crop`: before it the
    central 0.9 of the image at 224 px, as the evaluation of the released policy without state did by accident.
    `*_libero`: the same after a Lanczos resize to 224 px, for each of LIBERO's two cameras before they are joined.
    """
    siglip, dino = (Squash(size, "bicubic"),), (ShorterSide(size * 8 // 7), CenterCrop(size))
    crop, small = SampledCrop(224), Squash(224, "lanczos")
    return {
        "nano_area": ImageRecipe("nano_area", (Squash(size, "area"),)),
        "siglip_squash": ImageRecipe("siglip_squash", siglip),
        "siglip_center_crop": ImageRecipe("siglip_center_crop", (crop, *siglip)),
        "siglip_libero": ImageRecipe("siglip_libero", siglip, view_steps=(small, crop)),
        "dino_squash": ImageRecipe("dino_squash", (Squash(size, "area"),), IMAGENET_MEAN, IMAGENET_STD),
        "dino_crop": ImageRecipe("dino_crop", dino, IMAGENET_MEAN, IMAGENET_STD),
        "dino_center_crop": ImageRecipe("dino_center_crop", (crop, *dino), IMAGENET_MEAN, IMAGENET_STD),
        "dino_libero": ImageRecipe("dino_libero", (small, crop, *dino), IMAGENET_MEAN, IMAGENET_STD),
    }


def recipe(name: str, size: int) -> ImageRecipe:
    """The named recipe for a model image of size x size."""
    recipes = _recipes(size)
    if name not in recipes:
        raise ImageError(
            f"image recipe {name!r} does not exist; expected one of {sorted(recipes)}; correct the configuration"
        )
    return recipes[name]


def check_image(image_HWC: np.ndarray) -> None:
    """Raise ImageError unless it is an RGB uint8 image."""
    if not isinstance(image_HWC, np.ndarray) or image_HWC.dtype != np.uint8:
        found = getattr(image_HWC, "dtype", type(image_HWC).__name__)
        raise ImageError(f"image of type {found}; expected a uint8 numpy array; convert it to rgb8")
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or min(image_HWC.shape[:2]) < 1:
        raise ImageError(f"image of shape {image_HWC.shape}; expected (height, width, 3); convert it to rgb8")
