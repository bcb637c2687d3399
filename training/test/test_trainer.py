"""Resume, averaging and the stop on a non-finite loss."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from instructvla_training.trainer import NonFiniteLoss, Optimisation, Trainer

CONFIG = Optimisation(
    steps=6, learning_rate=0.1, warmup_steps=2, log_every=1, save_every=3, autocast="float32", ema_decay=0.5
)


def _trainer(folder, config=CONFIG):
    torch.manual_seed(0)
    return Trainer(nn.Linear(3, 1), config, folder, torch.device("cpu"))


def _run(trainer, until=None):
    def losses(x):
        noise = torch.randn(())  # as dropout and flow noise: must come back after a resume too
        return {"loss": (trainer.module(x) - noise).square().mean()}

    trainer.run(lambda rng: torch.from_numpy(rng.normal(size=(4, 3))).float(), losses, until=until)


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_repeats_the_losses_of_an_uninterrupted_one(tmp_path):
    _run(_trainer(tmp_path / "whole"))
    first = _trainer(tmp_path / "parts")
    saved = first.save

    def save_and_stop():
        saved()
        raise KeyboardInterrupt

    first.save = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        _run(first)
    second = _trainer(tmp_path / "parts")
    assert second.resume() and second.step == 3
    _run(second)
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")


def test_nothing_to_resume_is_said(tmp_path):
    assert _trainer(tmp_path).resume() is False


def test_resuming_another_module_is_refused(tmp_path):
    _run(_trainer(tmp_path))
    other = Trainer(nn.Sequential(nn.Linear(3, 1)), CONFIG, tmp_path, torch.device("cpu"))
    with pytest.raises(ValueError, match="not this recipe's"):
        other.resume()


def test_a_non_finite_loss_stops_before_the_weights_move(tmp_path):
    trainer = _trainer(tmp_path)
    before = trainer.module.weight.detach().clone()
    with pytest.raises(NonFiniteLoss, match=r"seed \[42, 0\]"):
        trainer.run(lambda rng: None, lambda _: {"loss": trainer.module.weight.sum() * float("nan")})
    assert torch.equal(trainer.module.weight, before)


def test_averaged_weights_are_swapped_in_and_out(tmp_path):
    trainer = _trainer(tmp_path)
    _run(trainer)
    trained = trainer.module.weight.detach().clone()
    with trainer.averaged():
        assert torch.equal(trainer.module.weight, trainer.average[0])
        assert not torch.equal(trainer.module.weight, trained)
    assert torch.equal(trainer.module.weight, trained)


def test_the_rate_warms_up_and_falls():
    rates = [CONFIG.rate(step) for step in range(6)]
    assert rates[0] == pytest.approx(0.05) and rates[1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[2:]))


def test_a_module_without_trainable_parameters_is_refused(tmp_path):
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        Trainer(frozen, CONFIG, tmp_path, torch.device("cpu"))


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    whole, parts = _trainer(tmp_path / "whole"), _trainer(tmp_path / "parts")
    _run(whole)
    _run(parts, until=4)
    assert parts.step == 4
    _run(parts)
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")
    for one, other in zip(whole.parameters, parts.parameters, strict=True):
        assert torch.equal(one, other)
