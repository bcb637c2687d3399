"""Weight-only int8: rounding no larger than half a step, a quarter of the bytes, adapters untouched."""

import torch
from torch import nn

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
