"""FiLM vision transformer against plain tensor algebra."""

import dataclasses

import torch

from instructvla_model.film_vit import FilmBlock, FilmVisionModel, FilmVisionTransformer
from instructvla_model.presets import preset
from instructvla_model.stem import pixel_shuffle

CONFIG = dataclasses.replace(preset("tiny").film, layer_scale_init=0.7)


def layer_norm(x, w, b):
    x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-6)
    return x * w + b


def plain_block(x, c, s, heads):
    B, S, D = x.shape
    h = layer_norm(x, s["block.norm1.weight"], s["block.norm1.bias"])
    qkv = h @ s["block.attn.qkv.weight"].T + s["block.attn.qkv.bias"]
    q, k, v = (t.view(B, S, heads, D // heads).transpose(1, 2) for t in qkv.split(D, dim=-1))
    p = torch.softmax(q @ k.transpose(2, 3) / (D // heads) ** 0.5, dim=-1)
    h = (p @ v).transpose(1, 2).reshape(B, S, D)
    h = h @ s["block.attn.proj.weight"].T + s["block.attn.proj.bias"]
    x = x + h * s["block.ls1.gamma"]
    gamma = c @ s["scale.weight"].T + s["scale.bias"]
    beta = c @ s["shift.weight"].T + s["shift.bias"]
    x = x * (1 + gamma[:, None]) + beta[:, None]
    h = layer_norm(x, s["block.norm2.weight"], s["block.norm2.bias"])
    h = h @ s["block.mlp.fc1.weight"].T + s["block.mlp.fc1.bias"]
    h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    return x + (h @ s["block.mlp.fc2.weight"].T + s["block.mlp.fc2.bias"]) * s["block.ls2.gamma"]


def test_a_block_is_attention_then_film_then_mlp():
    torch.manual_seed(0)
    block = FilmBlock(dataclasses.replace(CONFIG, film_init_std=0.5), condition_dim=10)
    x, c = torch.randn(2, 7, 16), torch.randn(2, 10)
    expected = plain_block(x, c, block.state_dict(), heads=2)
    torch.testing.assert_close(block(x, c), expected, atol=1e-5, rtol=1e-5)


def test_without_a_set_spread_film_starts_as_linear_layers_do():
    torch.manual_seed(0)
    block = FilmBlock(dataclasses.replace(CONFIG, film_init_std=None), condition_dim=10)
    assert block.scale.bias.abs().sum() > 0


def test_class_and_register_tokens_come_first_and_are_dropped_from_the_output():
    vit = FilmVisionTransformer(CONFIG, 10)
    seen = []
    vit.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    out = vit(torch.randn(2, 3, 32, 32), torch.randn(2, 10))
    assert out.shape == (2, 16, 16)
    assert seen[0].shape == (2, 1 + 2 + 16, 16)
    assert torch.equal(seen[0][0, 0], vit.cls_token[0, 0])
    assert torch.equal(seen[0][1, 1:3], vit.reg_token[0])


def test_position_is_added_to_patches_only():
    vit = FilmVisionTransformer(CONFIG, 10)
    assert vit.pos_embed.shape == (1, 16, 16)


def test_the_feature_depth_is_a_number_and_later_blocks_are_dead():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, n_blocks_used=1, final_norm=False)
    vit = FilmVisionTransformer(config, 10)
    pixels, c = torch.randn(1, 3, 32, 32), torch.randn(1, 10)
    before = vit(pixels, c)
    torch.nn.init.normal_(vit.blocks[1].block.attn.qkv.weight)
    torch.nn.init.normal_(vit.norm.weight)
    assert torch.equal(vit(pixels, c), before)
    torch.nn.init.normal_(vit.blocks[0].block.attn.qkv.weight)
    assert not torch.equal(vit(pixels, c), before)


def test_views_are_interleaved_patch_by_patch_under_the_mean_latent():
    torch.manual_seed(0)
    model = FilmVisionModel(CONFIG, 10).eval()
    pixels, latents = torch.randn(2, 2, 3, 32, 32), torch.randn(2, 4, 10)
    out = model(pixels, latents)
    mean = latents.sum(1) / 4
    for view in (0, 1):
        single = model.vision_model(pixels[:, view], mean)
        torch.testing.assert_close(out[:, view::2], single, atol=1e-5, rtol=1e-5)


def test_folding_merges_cells_of_patches_into_one_token():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, shuffle=2)
    assert (config.tokens_per_image, config.token_dim) == (4, 64)
    model = FilmVisionModel(config, 10)
    pixels, latents = torch.randn(1, 1, 3, 32, 32), torch.randn(1, 4, 10)
    plain = model.vision_model(pixels[:, 0], latents.mean(1)).view(1, 4, 4, 16)
    torch.testing.assert_close(model(pixels, latents), pixel_shuffle(plain).flatten(1, 2))
