"""Flow matching: path, target, times, loss and Euler sampling."""

import dataclasses

import pytest
import torch
from test_expert import build, given

from instructvla_model import flow
from instructvla_model.config import FlowConfig

CONFIG = FlowConfig()


def test_the_path_starts_at_noise_and_ends_at_data_with_a_little_noise():
    noise, data = torch.randn(2, 1, 4, 7), torch.randn(2, 1, 4, 7)
    at = lambda t: flow.interpolate(noise, data, torch.full((2, 1), t), CONFIG)  # noqa: E731
    torch.testing.assert_close(at(0.0), noise)
    torch.testing.assert_close(at(1.0), data + 0.001 * noise)
    torch.testing.assert_close(at(0.25), (1 - 0.999 * 0.25) * noise + 0.25 * data)


def test_the_target_is_the_time_derivative_of_the_path():
    noise, data = torch.randn(1, 1, 4, 7, dtype=torch.double), torch.randn(1, 1, 4, 7, dtype=torch.double)
    t = torch.full((1, 1), 0.3, dtype=torch.double)
    step = 1e-5
    slope = (flow.interpolate(noise, data, t + step, CONFIG) - flow.interpolate(noise, data, t - step, CONFIG)) / (
        2 * step
    )
    torch.testing.assert_close(flow.target(noise, data, CONFIG), slope, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("beta_b", [1.0, 2.0])
def test_times_follow_the_beta_law_and_stay_below_the_maximum(beta_b):
    config = dataclasses.replace(CONFIG, beta_b=beta_b)
    t = flow.sample_time((200_000,), config, torch.Generator().manual_seed(0))
    law = torch.distributions.Beta(1.5, beta_b)
    z = 1 - t / 0.999
    assert t.min() >= 0
    assert t.max() <= 0.999
    assert abs(float(z.mean()) - float(law.mean)) < 0.005
    assert abs(float(z.var()) - float(law.variance)) < 0.005


def test_the_loss_is_the_mean_squared_velocity_error():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    actions, noise = torch.randn(2, 4, 7), g["noisy"]
    got = flow.loss(expert, prefix, actions, noise_BKFA=noise, time_BK=g["time"])
    total = 0.0
    for k in range(3):
        t = g["time"][:, k].view(2, 1, 1)
        x = (1 - 0.999 * t) * noise[:, k] + t * actions
        v = expert.velocity(prefix, x[:, None], g["time"][:, k : k + 1])[:, 0]
        total = total + ((v - (actions - 0.999 * noise[:, k])) ** 2).mean() / 3
    torch.testing.assert_close(got, total, atol=1e-5, rtol=1e-5)


def test_weights_leave_out_contexts_and_steps():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    actions = torch.randn(2, 4, 7)
    options = {"noise_BKFA": g["noisy"], "time_BK": g["time"]}
    squared = flow.errors(expert, prefix, actions, **options)
    weights = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    got = flow.loss(expert, prefix, actions, weights_BF=weights, **options)
    torch.testing.assert_close(got, squared[0, :, :2].mean())
    plain = flow.loss(expert, prefix, actions, weights_BF=torch.ones(2, 1), **options)
    torch.testing.assert_close(plain, squared.mean())


def test_a_generator_makes_the_loss_repeatable():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    actions = torch.randn(2, 4, 7)
    a, b, c = (
        flow.loss(expert, prefix, actions, n_draws=2, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@torch.no_grad()
def test_sampling_is_forward_euler_from_noise_with_times_k_over_n():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    noise = torch.randn(2, 3, 4, 7)
    x = noise.clone()
    for k in range(10):
        x = x + 0.1 * expert.velocity(prefix, x, torch.full((2, 3), k / 10))
    got = flow.sample(expert, prefix, noise_BKFA=noise)
    torch.testing.assert_close(got, x, atol=1e-5, rtol=1e-5)
    assert got.dtype == torch.float32


def test_one_seed_gives_one_chunk_and_another_seed_another():
    expert = build()
    g = given(expert)
    prefix = expert.encode_prefix(g["pixels"], g["latents"], g["state"])
    a, b, c = (
        flow.sample(expert, prefix, n_steps=2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert a.shape == (2, 1, 4, 7)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
