"""LoRA mixture and gate against the plain equations."""

import pytest
import torch
from torch import nn

from instructvla_model.adapters import AdapterMix, Gate, MoELoRALinear, moe_linears
from instructvla_model.config import AdapterConfig

CONFIG = AdapterConfig(rank=3, alpha=6.0, dropout=0.0, gate_size=8, gate_dropout=0.0)


def linear() -> MoELoRALinear:
    torch.manual_seed(0)
    layer = MoELoRALinear(nn.Linear(5, 7), CONFIG)
    for name in CONFIG.names:
        layer.add_adapter(name)
        nn.init.normal_(layer.lora_B[name].weight)
    return layer


def test_gated_mix_is_the_base_plus_weighted_scaled_low_rank_products():
    layer = linear()
    x, weights = torch.randn(2, 4, 5), torch.rand(2, 4, 2)
    expected = x @ layer.base_layer.weight.T + layer.base_layer.bias
    for i, name in enumerate(CONFIG.names):
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        expected = expected + 2.0 * weights[..., i : i + 1] * (x @ a.T @ b.T)
    got = layer(x, AdapterMix(CONFIG.names, weights))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_single_mode_adds_one_adapter_with_weight_one():
    layer = linear()
    x = torch.randn(2, 4, 5)
    a, b = layer.lora_A["action"].weight, layer.lora_B["action"].weight
    torch.testing.assert_close(
        layer(x, AdapterMix(("action",))), layer.base_layer(x) + 2.0 * (x @ a.T @ b.T), atol=1e-5, rtol=1e-5
    )


def test_weights_of_one_equal_single_mode_of_all_adapters():
    layer = linear()
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(
        layer(x, AdapterMix(CONFIG.names, torch.ones(2, 4, 2))), layer(x, AdapterMix(CONFIG.names))
    )


def test_base_mode_and_new_adapters_leave_the_linear_layer_alone():
    layer = MoELoRALinear(nn.Linear(5, 7), CONFIG)
    x = torch.randn(3, 5)
    assert torch.equal(layer(x), layer.base_layer(x))
    layer.add_adapter("action")
    assert torch.equal(layer(x, AdapterMix(("action",))), layer.base_layer(x))


def test_adapter_dropout_acts_on_the_adapter_input_only_in_training():
    layer = linear()
    layer.dropout.p = 0.5
    x = torch.randn(2, 4, 5)
    mix = AdapterMix(CONFIG.names, torch.rand(2, 4, 2))
    layer.eval()
    assert torch.equal(layer(x, mix), layer(x, mix))
    layer.train()
    assert not torch.equal(layer(x, mix), layer(x, mix))
    assert torch.equal(layer(x), layer.base_layer(x))


def test_the_gate_is_a_relu_mlp_with_softmax():
    torch.manual_seed(1)
    gate = Gate(6, CONFIG).eval()
    x = torch.randn(2, 3, 6)
    state = gate.state_dict()
    h = x
    for key in ("0", "3", "6"):
        h = torch.clamp(h @ state[f"layers.{key}.weight"].T + state[f"layers.{key}.bias"], min=0)
    z = h @ state["layers.9.weight"].T + state["layers.9.bias"]
    expected = torch.exp(z) / torch.exp(z).sum(-1, keepdim=True)
    torch.testing.assert_close(gate(x), expected, atol=1e-6, rtol=1e-5)
    assert len(state) == 8


def test_all_named_projections_but_not_the_gate_projection_are_wrapped(make_policy):
    layer = make_policy("expert").vlm.language_model.model.layers[0]
    wrapped = {name for name, m in layer.named_modules() if isinstance(m, MoELoRALinear)}
    assert wrapped == {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                       "mlp.up_proj", "mlp.down_proj"}  # fmt: skip
    assert isinstance(layer.mlp.gate_proj, nn.Linear)


def test_gate_weights_come_from_the_base_stream_and_are_shared_by_all_layers(make_policy):
    vlm = make_policy("generalist").vlm
    embeds = torch.randn(2, 5, 24)
    mix = vlm.mix_for(embeds)
    base = vlm.hidden(embeds, None)
    torch.testing.assert_close(mix.weights_BSA, vlm.gate(base))
    torch.testing.assert_close(mix.weights_BSA.sum(-1), torch.ones(2, 5))
    assert not torch.allclose(vlm.hidden(embeds, mix), base)


def test_the_gate_learns_only_through_the_adapted_stream(make_policy):
    vlm = make_policy("generalist").vlm
    embeds = torch.randn(1, 4, 24, requires_grad=True)
    mix = vlm.mix_for(embeds)
    vlm.hidden(embeds, mix).square().mean().backward()
    assert vlm.gate.layers[0].weight.grad.abs().sum() > 0
    assert not vlm.gate_inputs(embeds).requires_grad


def test_adding_an_adapter_twice_keeps_the_first(make_policy):
    vlm = make_policy("expert").vlm
    before = moe_linears(vlm)[0].lora_B["action"].weight
    vlm.add_adapters("action")
    assert moe_linears(vlm)[0].lora_B["action"].weight is before


def test_modes_that_cannot_run_are_refused(make_policy):
    vlm = make_policy("base").vlm
    with pytest.raises(ValueError, match="not loaded"):
        vlm.set_mode("single", "action")
    with pytest.raises(ValueError, match="gate"):
        vlm.set_mode("gated")
    with pytest.raises(ValueError, match="expected one of"):
        vlm.set_mode("mixture")
    with pytest.raises(ValueError, match="unknown"):
        vlm.add_adapters("singing")


def test_a_gate_added_to_a_model_in_eval_mode_does_not_drop(make_policy):
    vlm = make_policy("base").vlm.eval()
    vlm.add_adapters("action", "language")
    vlm.add_gate()
    assert not vlm.gate.training
