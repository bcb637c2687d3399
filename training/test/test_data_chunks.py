"""Chunks and image augmentation."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from instructvla_training.data.augment import NONE, Augmentation, Draws, augment
from instructvla_training.data.chunks import action_chunks


def test_a_chunk_past_the_end_stands_still_and_says_so():
    actions = np.arange(1, 36, dtype=np.float32).reshape(5, 7)
    (chunk,), (inside,) = action_chunks(actions, np.array([3]), 4, 4)
    assert np.array_equal(chunk[:2], actions[3:]) and inside.tolist() == [True, True, False, False]
    assert not chunk[2:, :6].any() and (chunk[2:, 6] == actions[4, 6]).all()
    assert actions[4, 0] != 0.0  # the episode itself is untouched


def _images(count=3, height=12, width=16):
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


def _draws(*rows):
    return Draws(np.array(rows, dtype=np.float64))


def test_the_same_seed_gives_the_same_images_and_another_other_ones():
    one, two, three = (augment(_images(), Draws.of(3, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)


def test_without_any_width_nothing_changes():
    assert torch.equal(augment(_images(), Draws.of(3, np.random.default_rng(0)), NONE), _images())


def test_each_image_has_its_own_draws_whatever_stands_beside_it():
    draws = Draws.of(3, np.random.default_rng(0))
    alone = augment(_images()[1:2], Draws(draws.uniform_B6[1:2]))
    assert torch.equal(augment(_images(), draws)[1:2], alone)


def test_brightness_is_added_and_contrast_keeps_each_channels_mean():
    grey = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    bright = augment(grey, _draws([0, 0, 1.0, 0.5, 0.5, 0.5]), Augmentation(crop_area=1.0))
    assert (bright == 151).all()  # 100 + 0.2 * 255
    image = _images(1) // 4 + 96
    strong = augment(image, _draws([0, 0, 0.5, 1.0, 0.5, 0.5]), Augmentation(crop_area=1.0, saturation=0.0, hue=0.0))
    assert torch.allclose(strong.float().mean((1, 2)), image.float().mean((1, 2)), atol=0.6)
    assert strong.float().std() > 1.1 * image.float().std()


def test_colour_changes_equal_those_of_the_standard_library():
    image = _images(1, 5, 5)
    changed = augment(image, _draws([0, 0, 0.5, 0.5, 1.0, 0.0]), Augmentation(crop_area=1.0))
    for pixel, found in zip(image.view(-1, 3).tolist(), changed.view(-1, 3).tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
        wanted = colorsys.hsv_to_rgb((hue - 0.05) % 1.0, min(1.0, saturation * 1.2), value)
        assert found == pytest.approx([channel * 255 for channel in wanted], abs=1.0)


def test_the_crop_is_a_part_of_the_image_at_the_drawn_corner():
    ramp = torch.arange(100, dtype=torch.uint8).repeat(100, 1)[None, ..., None].expand(1, 100, 100, 3)
    config = Augmentation(crop_area=0.25, brightness=0, contrast=0, saturation=0, hue=0)
    left, right = (augment(ramp, _draws([u, 0.0, 0.5, 0.5, 0.5, 0.5]), config)[0, 50, :, 0].float() for u in (0.0, 1.0))
    assert left[0] < 2 and abs(left[-1] - 50) < 2 and abs(right[0] - 50) < 2 and right[-1] > 97


def test_draws_of_another_number_are_refused():
    with pytest.raises(ValueError, match="draws for 2 images, expected 3"):
        augment(_images(), Draws.of(2, np.random.default_rng(0)))
