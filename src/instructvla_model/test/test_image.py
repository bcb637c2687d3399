"""Image recipes: pixels, points, inverses, bad images."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from instructvla_model.image import (
    CenterCrop,
    CropBox,
    ImageError,
    ImageRecipe,
    SampledCrop,
    ShorterSide,
    Squash,
    recipe,
    recipe_from_dict,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
NAMES = [
    "nano_area", "siglip_squash", "siglip_center_crop", "siglip_libero", "dino_squash", "dino_crop",
    "dino_center_crop", "dino_libero",
]  # fmt: skip


def test_nano_squashes_by_area_and_scales_to_plus_minus_one():
    got = recipe("nano_area", 16).apply(IMAGE)
    expected = cv2.resize(IMAGE, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 * 2 - 1
    np.testing.assert_allclose(got.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


def test_dino_crop_keeps_the_aspect_and_drops_the_border():
    pixels = recipe("dino_crop", 224).pixels(np.zeros((480, 640, 3), np.uint8))
    assert pixels.shape == (224, 224, 3)
    steps = recipe("dino_crop", 224).steps
    assert steps == (ShorterSide(256), CenterCrop(224))
    assert steps[0].output_size((480, 640)) == (256, 341)
    assert steps[0].output_size((640, 480)) == (341, 256)


def central_nine_tenths(image: np.ndarray) -> np.ndarray:
    """TensorFlow's crop_and_resize of the central 0.9 to 224 x 224, restated number by number for one channel each."""
    height, width = image.shape[:2]
    margin = (1.0 - 0.9**0.5) / 2.0
    out = np.empty((224, 224, 3), np.uint8)
    for row in range(224):
        y = margin * (height - 1) + row * 0.9**0.5 * (height - 1) / 223
        y0, y1 = int(np.floor(y)), int(np.ceil(y))
        for column in range(224):
            x = margin * (width - 1) + column * 0.9**0.5 * (width - 1) / 223
            x0, x1 = int(np.floor(x)), int(np.ceil(x))
            corners = image[[y0, y0, y1, y1], [x0, x1, x0, x1]].astype(np.float64)
            top, bottom = (corners[i] + (corners[i + 1] - corners[i]) * (x - x0) for i in (0, 2))
            out[row, column] = ((top + (bottom - top) * (y - y0)) * 255.5 / 255.0).clip(0, 255)
    return out


def test_libero_s_views_are_resized_and_cropped_each_and_joined_before_the_squash():
    """Restated in Pillow and plain loops: 224 x 224 each by Lanczos, the central 0.9, side by side, then 448 x 448."""
    rng = np.random.default_rng(1)
    views = [cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), size) for size in ((320, 240), (256, 256))]
    small = [np.array(Image.fromarray(v).resize((224, 224), Image.Resampling.LANCZOS)) for v in views]
    joined = np.concatenate([central_nine_tenths(v) for v in small], axis=1)
    assert joined.shape == (224, 448, 3)
    expected = np.array(Image.fromarray(joined).resize((448, 448), Image.Resampling.BICUBIC))
    got = recipe("siglip_libero", 448).joined_pixels(views)
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= 2 and difference.mean() < 0.02  # float32 and float64 round a few numbers apart
    alone = recipe("siglip_libero", 448).joined_pixels(views[:1])
    assert np.abs(alone[:, :200].astype(int) - got[:, :200]).mean() > 5  # one view fills the whole square


def test_views_of_other_heights_can_be_joined_only_where_each_is_resized_first():
    views = [np.zeros((48, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)]
    assert recipe("siglip_libero", 28).joined_pixels(views).shape == (28, 28, 3)
    with pytest.raises(ImageError, match=r"heights \[48, 32\]"):
        recipe("siglip_squash", 28).joined_pixels(views)


def test_a_recipe_without_steps_of_its_own_for_views_is_written_as_ever():
    assert set(recipe("nano_area", 16).to_dict()) == {"name", "steps", "mean", "std"}


def test_a_libero_recipe_of_the_time_when_views_were_joined_first_is_refused():
    values = recipe("siglip_libero", 448).to_dict()
    values["steps"] = values.pop("view_steps") + values["steps"]
    with pytest.raises(ImageError, match="import the released file again"):
        recipe_from_dict(values)


def test_a_sampled_crop_reads_between_pixels_from_corner_to_corner():
    image = (np.arange(21)[:, None, None] * 10 + np.arange(21)[None, :, None] + np.zeros(3)).astype(np.uint8)
    got = SampledCrop(5, area=0.25).apply(image)  # rows and columns 5, 7.5, 10, 12.5, 15
    at = np.array([5.0, 7.5, 10.0, 12.5, 15.0])
    expected = np.floor((at[:, None] * 10 + at[None, :]) * 255.5 / 255)
    assert np.array_equal(got, np.repeat(expected[..., None], 3, axis=2))


def test_the_released_evaluation_without_state_looks_at_the_centre():
    crop = recipe("dino_center_crop", 224)
    inner, outer = np.array([[33.0, 25.0], [607.0, 455.0]]), np.array([[0.0, 0.0], [640.0, 480.0]])
    seen = crop.to_model(inner, (480, 640))
    assert (seen[0] < 10).all() and (seen[1] > 214).all()
    assert (crop.to_model(outer, (480, 640))[0] < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_normalising_is_undone_exactly(name):
    chosen = recipe(name, 14)
    pixels = chosen.pixels(IMAGE)
    assert np.array_equal(chosen.restore(chosen.apply(IMAGE)).numpy(), pixels)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_its_dictionary(name):
    chosen = recipe(name, 28)
    assert recipe_from_dict(chosen.to_dict()) == chosen


def test_a_batch_of_prepared_pixels_normalises_as_single_images_do():
    chosen = recipe("dino_squash", 16)
    pixels = torch.from_numpy(np.stack([chosen.pixels(IMAGE), chosen.pixels(IMAGE[::-1])]))
    assert torch.equal(chosen.normalize(pixels)[0], chosen.apply(IMAGE))


@pytest.mark.parametrize("steps", [
    (Squash(16),),
    (ShorterSide(32), CenterCrop(28)),
    (CropBox(0.25, 0.0, 0.75, 0.5), Squash(20, "bicubic")),
    (SampledCrop(40),),
    (Squash(64, "lanczos"), SampledCrop(48, 0.8)),
])  # fmt: skip
def test_points_follow_the_pixels(steps):
    chosen = ImageRecipe("x", steps)
    image = np.zeros((96, 128, 3), np.uint8)
    image[20:28, 56:64] = 255  # a bright cell centred at u=60, v=24
    seen = chosen.pixels(image).astype(float).sum(-1)
    v, u = np.meshgrid(np.arange(seen.shape[0]) + 0.5, np.arange(seen.shape[1]) + 0.5, indexing="ij")
    centre = np.array([(seen * u).sum(), (seen * v).sum()]) / seen.sum()
    point = chosen.to_model(np.array([60.0, 24.0]), (96, 128))
    np.testing.assert_allclose(point, centre, atol=0.6)
    np.testing.assert_allclose(chosen.to_camera(point, (96, 128)), [60.0, 24.0])


@pytest.mark.parametrize(
    "image",
    [IMAGE.astype(np.float32), IMAGE[..., 0], IMAGE[..., :2], np.zeros((0, 4, 3), np.uint8), "picture", None],
)
def test_what_is_no_rgb8_image_is_refused(image):
    with pytest.raises(ImageError, match="expected"):
        recipe("nano_area", 16).apply(image)


def test_images_smaller_than_the_crop_are_refused():
    with pytest.raises(ImageError, match="centre crop"):
        ImageRecipe("x", (CenterCrop(50),)).apply(IMAGE)


def test_boxes_outside_the_image_are_refused():
    with pytest.raises(ImageError, match="crop box"):
        ImageRecipe("x", (CropBox(0.5, 0.0, 1.5, 1.0),)).apply(IMAGE)


def test_unknown_recipes_steps_and_interpolations_are_refused():
    with pytest.raises(ImageError, match="does not exist"):
        recipe("sepia", 16)
    with pytest.raises(ImageError, match="not readable"):
        recipe_from_dict({"name": "x", "steps": [{"kind": "swirl"}], "mean": [0] * 3, "std": [1] * 3})
    with pytest.raises(ImageError, match="interpolation"):
        ImageRecipe("x", (Squash(8, "magic"),)).apply(IMAGE)


def test_views_that_are_not_contiguous_are_accepted():
    assert recipe("siglip_squash", 16).apply(IMAGE[::-1, ::-1]).shape == (3, 16, 16)
