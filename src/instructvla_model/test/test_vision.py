"""Stem, pixel shuffle, SigLIP-type tower and projector."""

import dataclasses

import torch
from transformers import SiglipVisionModel

from instructvla_model.presets import preset
from instructvla_model.stem import ConvStem, patch_embedding, pixel_shuffle
from instructvla_model.vision import build_projector, build_vision_model, siglip_config


def test_pixel_shuffle_puts_each_cell_row_by_row_into_channels():
    x = torch.arange(2 * 4 * 6 * 3, dtype=torch.float32).view(2, 4, 6, 3)
    y = pixel_shuffle(x)
    assert y.shape == (2, 2, 3, 12)
    for i in range(2):
        for j in range(3):
            cell = [x[1, 2 * i + di, 2 * j + dj] for di in (0, 1) for dj in (0, 1)]
            assert torch.equal(y[1, i, j], torch.cat(cell))


def test_pixel_shuffle_equals_the_two_step_view_and_permute_form():
    x = torch.randn(2, 4, 4, 5)
    a = x.view(2, 4, 2, 10).permute(0, 2, 1, 3).contiguous().view(2, 2, 2, 20).permute(0, 2, 1, 3)
    assert torch.equal(pixel_shuffle(x), a)


def test_the_stem_has_the_patch_stride_and_sees_only_nearby_pixels():
    torch.manual_seed(0)
    stem = ConvStem(32, 3)
    image = torch.randn(1, 3, 64, 64)
    assert stem(image).shape == (1, 32, 8, 8)
    convolutions = torch.nn.Sequential(*[m for m in stem.layers if isinstance(m, torch.nn.Conv2d)])
    changed = image.clone()
    changed[..., :8, :8] += 1
    moved = (convolutions(changed) - convolutions(image)).abs().sum(1)[0] > 1e-6
    assert moved[0, 0]
    assert not moved[2:, 2:].any()


def test_without_stem_layers_the_patch_embedding_is_one_convolution():
    layer = patch_embedding(16, 4, 0)
    assert isinstance(layer, torch.nn.Conv2d)
    assert layer.stride == (4, 4)


def test_without_a_stem_the_tower_equals_the_stock_siglip():
    torch.manual_seed(0)
    config = dataclasses.replace(preset("tiny").vision, stem_layers=0)
    ours = build_vision_model(config).eval()
    stock_config = siglip_config(config)
    stock_config._attn_implementation = "eager"
    stock = SiglipVisionModel(stock_config).eval()
    stock.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        a = ours(pixel_values=pixels).last_hidden_state
        b = stock(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_the_projector_is_norm_linear_gelu_linear():
    torch.manual_seed(0)
    config = preset("tiny").vision
    projector = build_projector(config, 24)
    state = projector.state_dict()
    assert {name.split(".")[0] for name in state} == {"0", "1", "3"}
    x = torch.randn(3, 64)
    normed = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    h = (normed * state["0.weight"] + state["0.bias"]) @ state["1.weight"].T + state["1.bias"]
    h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    expected = h @ state["3.weight"].T + state["3.bias"]
    torch.testing.assert_close(projector(x), expected, atol=1e-5, rtol=1e-5)
