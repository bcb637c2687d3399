"""The pointing loss against plain computations."""

from __future__ import annotations

import numpy as np
import torch

from instructvla_training.pointing import hit_rate, mass_loss, patches_of, pool_grid


def test_mass_loss_is_minus_log_of_the_attention_on_the_object():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    hit = torch.tensor([[True, False, True, False, False], [False, False, False, False, True]])
    attention = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    expected = -np.log((attention * hit.numpy()[:, None]).sum(-1)).mean()
    assert abs(float(mass_loss(logits, hit)) - expected) < 1e-5


def test_hidden_objects_do_not_count():
    logits = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    hit = torch.tensor([[True, False, False, False], [False] * 4])
    assert torch.allclose(mass_loss(logits, hit), mass_loss(logits[:1], hit[:1]))
    assert float(mass_loss(logits, torch.zeros(2, 4, dtype=torch.bool))) == 0.0


def test_hit_rate_counts_the_strongest_key():
    logits = torch.tensor([[[0.0, 9.0, 0.0]], [[9.0, 0.0, 0.0]]])
    hit = torch.tensor([[False, True, False], [False, True, False]])
    assert float(hit_rate(logits, hit)) == 0.5


def test_patches_of_nothing_are_none_and_pooling_keeps_any_hit():
    grid = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    grid[0, 2, 3] = 7
    assert int(patches_of(grid, torch.tensor([-1])).sum()) == 0
    hit = patches_of(grid, torch.tensor([7]))
    assert hit[0].nonzero().flatten().tolist() == [11]
    assert pool_grid(hit, 2)[0].tolist() == [False, False, False, True]
