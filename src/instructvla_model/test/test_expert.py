"""Trunk and expert: attention regimes, prefix cache, draws, probe, embeddings."""

import dataclasses
import math

import pytest
import torch

from instructvla_model.attention import attend
from instructvla_model.expert import ActionExpert, time_embedding
from instructvla_model.norm import RMSNorm
from instructvla_model.presets import preset
from instructvla_model.rope import rope_table, rotate
from instructvla_model.trunk import block_bias


def build(attention="block_causal", state_dim=8, views=("primary",)):
    torch.manual_seed(0)
    config = preset("tiny")
    expert = dataclasses.replace(config.expert, attention=attention, state_dim=state_dim)
    return ActionExpert(dataclasses.replace(config, expert=expert, views=views)).eval()


def given(expert, batch=2, draws=3):
    torch.manual_seed(1)
    config = expert.config
    F, A = config.expert.horizon, config.expert.action_dim
    return {
        "pixels": torch.randn(batch, len(config.views), 3, 32, 32),
        "latents": torch.randn(batch, config.n_queries, 24),
        "state": torch.randn(batch, config.expert.state_dim) if config.expert.state_dim else None,
        "noisy": torch.randn(batch, draws, F, A),
        "time": torch.rand(batch, draws),
    }


def plain_trunk(expert, tokens, logit_change):
    """Whole-sequence Llama layers in plain algebra; `logit_change(logits)` applies the regime."""
    trunk, config = expert.VideoGPT.model, expert.config.expert
    B, S, D = tokens.shape
    h, d = config.n_heads, D // config.n_heads
    x = tokens

    def norm(x, w):
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * w

    def rope(q):
        half = d // 2
        angle = torch.arange(S)[:, None] * 1000.0 ** (-torch.arange(half) * 2.0 / d)
        a, b = q[..., :half], q[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    for layer in trunk.layers:
        s = layer.state_dict()
        y = norm(x, s["input_layernorm.weight"])
        q, k, v = ((y @ s[f"self_attn.{n}_proj.weight"].T).view(B, S, h, d).transpose(1, 2) for n in ("q", "k", "v"))
        logits = logit_change(rope(q) @ rope(k).transpose(2, 3) / math.sqrt(d))
        y = (torch.softmax(logits, -1) @ v).transpose(1, 2).reshape(B, S, D)
        x = x + y @ s["self_attn.o_proj.weight"].T
        y = norm(x, s["post_attention_layernorm.weight"])
        gate = y @ s["mlp.gate_proj.weight"].T
        y = gate * torch.sigmoid(gate) * (y @ s["mlp.up_proj.weight"].T)
        x = x + y @ s["mlp.down_proj.weight"].T
    return norm(x, trunk.norm.weight)


def full_recompute(expert, g, draw, logit_change):
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    action = expert.action_embed(g["noisy"][:, draw : draw + 1], g["time"][:, draw : draw + 1])[:, 0]
    states = plain_trunk(expert, torch.cat([prefix.tokens_BPD, action], 1), logit_change)
    F = action.shape[1]
    return expert.action_head(states[:, -F:].flatten(1)).view(g["noisy"][:, draw].shape), prefix


@pytest.mark.parametrize("state_dim", [0, 8])
@torch.no_grad()
def test_block_causal_with_cache_equals_full_recompute_under_the_mask(state_dim):
    expert = build(state_dim=state_dim)
    g = given(expert)
    V = expert.config.film.tokens_per_image
    L = expert.config.n_queries + (state_dim > 0)

    def masked(logits):
        S = logits.shape[-1]
        allowed = torch.zeros(S, S, dtype=torch.bool)
        allowed[:V, :V] = True
        allowed[V : V + L, : V + L] = True
        allowed[V + L :] = True
        return logits.masked_fill(~allowed, float("-inf"))

    for draw in range(3):
        expected, prefix = full_recompute(expert, g, draw, masked)
        got = expert.velocity(prefix, g["noisy"], g["time"])[:, draw]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_additive_bias_adds_one_to_allowed_pairs_and_hides_nothing():
    expert = build("additive_bias")
    g = given(expert)
    V, L = expert.config.film.tokens_per_image, expert.config.n_queries + 1

    def biased(logits):
        bias = torch.zeros(logits.shape[-2:])
        bias[:V, :V] = bias[V : V + L, : V + L] = 1.0
        bias[V + L :] = 1.0
        return logits + bias

    for draw in range(3):
        expected, prefix = full_recompute(expert, g, draw, biased)
        assert prefix.key_values is None
        got = expert.velocity(prefix, g["noisy"], g["time"])[:, draw]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_the_block_rule_of_the_bias():
    bias = block_bias(2, 1, 1, torch.device("cpu"))
    assert bias.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@torch.no_grad()
def test_draws_in_one_call_equal_draws_one_by_one():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    together = expert.velocity(prefix, g["noisy"], g["time"])
    for draw in range(3):
        alone = expert.velocity(prefix, g["noisy"][:, draw : draw + 1], g["time"][:, draw : draw + 1])
        torch.testing.assert_close(together[:, draw : draw + 1], alone, atol=1e-5, rtol=0)


def test_gradients_of_several_draws_are_the_sum_of_separate_ones():
    expert = build()
    g = given(expert)

    def gradients(noisy, time):
        expert.zero_grad()
        prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
        expert.velocity(prefix, noisy, time).sum().backward()
        return {n: p.grad.clone() for n, p in expert.named_parameters() if p.grad is not None}

    together = gradients(g["noisy"], g["time"])
    separate = [gradients(g["noisy"][:, i : i + 1], g["time"][:, i : i + 1]) for i in range(3)]
    for name, gradient in together.items():
        expected = sum(s[name] for s in separate)
        torch.testing.assert_close(gradient, expected, atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_the_probe_returns_logits_of_latent_rows_over_all_prefix_keys_and_changes_nothing():
    expert = build()
    g = given(expert)
    plain = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    probed = expert.encode_prefix(g["pixels"], g["latents"], g["state"], probe=(0, (1,)))
    assert plain.probe_logits_BHNP is None
    for a, b in zip(plain.key_values.layers, probed.key_values.layers, strict=True):
        assert torch.equal(a[0], b[0])
    V, N, P = plain.n_vision, expert.config.n_queries, plain.tokens_BPD.shape[1]
    assert probed.probe_logits_BHNP.shape == (2, 1, N, P)
    layer = expert.VideoGPT.model.layers[0]
    x = layer.input_layernorm(plain.tokens_BPD)
    table = rope_table(torch.arange(P), 8, 1000.0, torch.float32)
    q, k, _ = layer.self_attn.project(x, table)
    expected = q[:, 1:2, V : V + N] @ k[:, 1:2].transpose(2, 3) / math.sqrt(8)
    torch.testing.assert_close(probed.probe_logits_BHNP, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_probe_returns_the_latent_rows_that_leave_the_layer():
    expert = build()
    g = given(expert)
    first = expert.encode_prefix(g["pixels"], g["latents"], g["state"], probe=(0, (0,)))
    layer, V, N = expert.VideoGPT.model.layers[1], first.n_vision, expert.config.n_queries
    rows = layer.input_layernorm(first.probe_states_BND)
    keys = layer.self_attn.k_proj(rows).view(2, N, 2, 8).transpose(1, 2)
    table = rope_table(torch.arange(V, V + N), 8, 1000.0, torch.float32)
    stored = first.key_values.layers[1][0][:, :, V : V + N]
    torch.testing.assert_close(rotate(keys, table), stored, atol=1e-5, rtol=0)
    last = expert.encode_prefix(g["pixels"], g["latents"], g["state"], probe=(1, (0,)))
    assert last.probe_states_BND is None


def test_the_last_layer_can_be_probed_and_supervised():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"], probe=(1, (0, 1)))
    prefix.probe_logits_BHNP.square().mean().backward()
    assert expert.VideoGPT.model.layers[1].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_a_probe_under_additive_bias_is_refused():
    expert = build("additive_bias")
    g = given(expert)
    with pytest.raises(ValueError, match="block_causal"):
        expert.encode_prefix(g["pixels"], g["latents"], g["state"], probe=(0, (0,)))


@torch.no_grad()
def test_in_block_causal_vision_never_depends_on_latents_in_the_trunk_nor_prefix_on_actions():
    expert = build()
    trunk = expert.VideoGPT.model
    tokens = torch.randn(1, 10, 16)
    changed = tokens.clone()
    changed[:, 7:] += 1.0
    a, *_ = trunk.prefix(tokens, 6, 4)
    b, *_ = trunk.prefix(changed, 6, 4)
    assert torch.equal(a.layers[1][0][:, :, :6], b.layers[1][0][:, :, :6])
    assert not torch.equal(a.layers[1][0][:, :, 6:7], b.layers[1][0][:, :, 6:7])


def test_the_time_embedding_is_sine_then_cosine_of_geometric_frequencies():
    t = torch.tensor([0.0, 0.3, 1.0])
    got = time_embedding(t, 8, 100.0)
    for row, value in enumerate((0.0, 0.3, 1.0)):
        for i in range(4):
            f = 100.0 ** (-i / 3)
            assert math.isclose(got[row, i], math.sin(value * f), abs_tol=1e-6)
            assert math.isclose(got[row, 4 + i], math.cos(value * f), abs_tol=1e-6)


def test_the_action_embedding_joins_time_first_and_then_the_action():
    expert = build()
    s = expert.action_embed.state_dict()
    actions, t = torch.randn(1, 1, 4, 7), torch.tensor([[0.4]])
    a = actions @ s["linear_1.weight"].T + s["linear_1.bias"]
    e = time_embedding(t, 16, 100.0)[:, :, None].expand(1, 1, 4, 16)
    h = torch.cat([e, a], -1) @ s["linear_2.weight"].T + s["linear_2.bias"]
    expected = (h * torch.sigmoid(h)) @ s["linear_3.weight"].T + s["linear_3.bias"]
    torch.testing.assert_close(expert.action_embed(actions, t), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_token_order_is_interleaved_views_then_latents_then_state():
    expert = build(views=("primary", "wrist"))
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    assert prefix.n_vision == 32
    assert prefix.n_latent == 5
    torch.testing.assert_close(prefix.tokens_BPD[:, 32:36], expert.cog_projector(g["latents"]))
    torch.testing.assert_close(prefix.tokens_BPD[:, 36], expert.state_embed(g["state"]))


def test_inputs_that_do_not_fit_are_refused():
    expert = build()
    g = given(expert)
    with pytest.raises(ValueError, match="expected \\(B, 1, 3, 32, 32\\)"):
        expert.encode_prefix(torch.randn(2, 2, 3, 32, 32), g["latents"], g["state"])
    with pytest.raises(ValueError, match="state is missing"):
        expert.encode_prefix(g["pixels"], g["latents"], None)
    with pytest.raises(ValueError, match="state is given"):
        build(state_dim=0).encode_prefix(g["pixels"], g["latents"], g["state"])


def test_rotation_by_position_zero_is_the_identity_and_norms_are_kept():
    x = torch.randn(1, 2, 5, 8)
    y = rotate(x, rope_table(torch.arange(5), 8, 1000.0, torch.float32))
    torch.testing.assert_close(y[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8)])
def test_rms_norm_and_its_cpu_backward_equal_the_plain_equation(shape):
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(shape, requires_grad=True)
    probe = torch.randn(shape)
    (norm(x) * probe).sum().backward()
    y = x.detach().clone().requires_grad_()
    w = norm.weight.detach().clone().requires_grad_()
    plain = y / torch.sqrt((y**2).mean(-1, keepdim=True) + 1e-6) * w
    (plain * probe).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(norm(x), plain)
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.weight.grad, w.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
def test_attention_for_training_equals_attention_for_inference(kind):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 6, 8, requires_grad=True)
    k, v = (torch.randn(2, 2, 6, 8, requires_grad=True) for _ in range(2))
    mask = None
    if kind == "bool":
        mask = torch.ones(6, 6, dtype=torch.bool).tril()
    elif kind == "float":
        mask = torch.randn(6, 6)
    options = {"mask": mask, "is_causal": kind == "causal"}
    training = attend(q, k, v, **options)
    assert training.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, **options), training, atol=1e-5, rtol=0)


def test_under_autocast_velocity_is_fp32_and_close():
    expert = build()
    g = given(expert)
    with torch.no_grad():
        full = expert.velocity(expert.encode_prefix(g["pixels"], g["latents"], g["state"]), g["noisy"], g["time"])
        with torch.autocast("cpu", torch.bfloat16):
            prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
            half = expert.velocity(prefix, g["noisy"], g["time"])
    assert half.dtype == torch.float32
    assert prefix.tokens_BPD.dtype == torch.bfloat16
    assert (half - full).abs().mean() < 0.1 * full.abs().mean() + 0.01


@pytest.mark.parametrize("draws", [1, 3])
@torch.no_grad()
def test_keys_and_values_kept_in_place_give_the_same_velocities(draws):
    """In inference mode one action group is written behind the prefix; several, and other modes, make copies."""
    expert = build()
    g = given(expert, draws=draws)

    def velocities(prefix):
        return [expert.velocity(prefix, g["noisy"] * scale, g["time"]) for scale in (1.0, 2.0, 1.0)]

    plain = velocities(expert.encode_prefix(g["pixels"], g["latents"], g["state"]))
    with torch.inference_mode():
        prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
        kept = velocities(prefix)
    assert prefix.key_values.layers[0][0].shape[2] == prefix.key_values.n_prefix + expert.config.expert.horizon
    copied = velocities(prefix)
    for a, b, c in zip(plain, kept, copied, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=0)
        torch.testing.assert_close(c, a, atol=1e-5, rtol=0)


def test_sums_keep_the_wider_number_type_with_and_without_gradients():
    """Under autocast the branches are bfloat16 and the stream is not; validation must see what training sees."""
    expert = build()
    tokens = torch.randn(1, 5, 16)
    layer = expert.VideoGPT.model.layers[0]
    attended = torch.randn(1, 2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = layer.feed(tokens, attended)
        with torch.no_grad():
            validated = layer.feed(tokens, attended)
    assert trained.dtype == validated.dtype == torch.float32
    torch.testing.assert_close(validated, trained, atol=2e-2, rtol=0)
