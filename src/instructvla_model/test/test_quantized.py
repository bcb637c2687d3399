"""Weight-only int8: rounding no larger than half a step, a quarter of the bytes, adapters untouched."""

import weakref

import torch
from torch import nn

from instructvla_model import checkpoint, linears
from instructvla_model.manifest import new_manifest
from instructvla_model.quantized import Int8Linear, quantize_linears


def test_the_error_is_at_most_half_a_step_of_each_row():
    torch.manual_seed(0)
    linear = nn.Linear(64, 3000)
    quantized = Int8Linear(linear)
    exact = linear.weight.detach()
    step = exact.abs().amax(dim=1, keepdim=True) / 127
    restored = quantized.weight_int8.float() * quantized.scale[:, None]
    assert ((restored - exact).abs() <= step * 0.5001).all()
    x = torch.randn(5, 64)
    torch.testing.assert_close(quantized(x), x @ restored.T + linear.bias, atol=1e-4, rtol=0)
    assert quantized.weight_int8.nbytes * 4 == exact.nbytes


def test_the_policys_matrices_are_replaced_and_its_adapters_are_not(make_policy):
    policy = make_policy("generalist")
    embeds = torch.randn(1, 6, 24)
    with torch.no_grad():
        before = policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds))
        n = quantize_linears(policy.vlm, least=100)
        after = policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds))
    layers = [m for m in policy.vlm.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == n > 14
    linears = [name for name, m in policy.vlm.named_modules() if type(m) is nn.Linear]
    assert all("lora_" in name or "lm_head" in name or name.startswith("gate.") for name in linears)
    assert 0 < (after - before).abs().max() < 0.3
    assert torch.cosine_similarity(after, before, dim=-1).min() > 0.99


def test_a_policy_is_loaded_in_bytes_layer_by_layer_never_all_in_floats(make_policy, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(linears.is_large, "__defaults__", (100,))
    policy = make_policy("generalist")
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "generalist", None))
    floats, most = [], 0

    def make(linear):
        nonlocal most
        floats.append(weakref.ref(linear.weight))
        most = max(most, sum(weight() is not None for weight in floats))
        return Int8Linear(linear)

    loaded = checkpoint.load_parts(tmp_path, parts=("vlm",), make_linear=make).vlm
    assert len(floats) == quantize_linears(policy.vlm, least=100) and most <= 2  # the last one's name is still held
    both = dict(loaded.named_buffers()), dict(policy.vlm.named_buffers())
    assert both[0].keys() == both[1].keys()
    for name, tensor in both[0].items():
        assert torch.equal(tensor, both[1][name]), name
