"""Packed linear layers compute what plain ones do, and only large models on a CPU in fp32 get them."""

import pytest
import torch
from torch import nn

from instructvla_model import checkpoint, packed
from instructvla_model.manifest import new_manifest
from instructvla_model.packed import PackedLinear, pack_linears, packs
from instructvla_model.runtime import PolicyRuntime

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (1, 64)])
def test_the_result_is_the_plain_layers_up_to_rounding(bias, shape):
    torch.manual_seed(0)
    plain, x = nn.Linear(64, 300, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        y, expected = PackedLinear(plain)(x), plain(x)
        assert torch.equal(PackedLinear(plain)(x.mT.contiguous().mT), y)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


def test_a_packed_policy_computes_the_same_and_keeps_its_adapters(make_policy):
    policy = make_policy("generalist")
    embeds = torch.randn(1, 6, 24)
    with torch.inference_mode():
        before = policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds))
        n = pack_linears(policy.vlm, least=100)
        after = policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds))
    assert n == sum(isinstance(m, PackedLinear) for m in policy.vlm.modules()) > 14
    linears = [name for name, m in policy.vlm.named_modules() if type(m) is nn.Linear]
    assert all("lora_" in name or "lm_head" in name or name.startswith("gate.") for name in linears)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_only_large_models_on_a_cpu_in_fp32_are_packed(monkeypatch):
    monkeypatch.setattr(packed, "SMALL_MODEL", 10)
    large, small = nn.Linear(4, 4), nn.Linear(2, 2)
    assert packs(large, CPU, torch.float32)
    assert not packs(small, CPU, torch.float32)
    assert not packs(large, CPU, torch.bfloat16)
    assert not packs(large, torch.device("cuda"), torch.float32)


def test_a_large_checkpoint_is_packed_where_it_is_loaded(make_policy, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "SMALL_MODEL", 10)
    monkeypatch.setattr(pack_linears, "__defaults__", (100,))
    policy = make_policy("expert")
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "expert", None))
    kinds = {
        dtype: {type(PolicyRuntime.load(tmp_path, device="cpu", dtype=dtype).expert.action_head[0])}
        for dtype in ("float32", "bfloat16")
    }
    assert kinds == {"float32": {PackedLinear}, "bfloat16": {nn.Linear}}
