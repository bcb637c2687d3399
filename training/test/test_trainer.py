"""The loop: resume, averaging, parts of a step, the stop on a non-finite loss."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_stage import CONFIG, SmallStage
from torch import nn

from instructvla_training import state
from instructvla_training.refusals import RunError
from instructvla_training.report import read_log
from instructvla_training.trainer import NonFiniteLoss, Trainer


def _trainer(folder, config=CONFIG, parts=1):
    return Trainer(SmallStage(), config, folder, parts=parts)


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_repeats_the_next_20_losses_of_an_uninterrupted_one(tmp_path):
    config = replace(CONFIG, steps=23)
    _trainer(tmp_path / "whole", config).run()
    first = _trainer(tmp_path / "parts", config)
    save = first.save

    def save_and_stop():
        save()
        raise KeyboardInterrupt

    first.save = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = _trainer(tmp_path / "parts", config)
    assert second.resume() and second.step == 3
    second.run()
    whole = _losses(tmp_path / "whole")
    assert len(whole) == 23 and _losses(tmp_path / "parts") == whole


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    whole, parts = _trainer(tmp_path / "whole"), _trainer(tmp_path / "parts")
    whole.run()
    parts.run(until=4)
    assert parts.step == 4
    parts.run()
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")
    for one, other in zip(whole.parameters, parts.parameters, strict=True):
        assert torch.equal(one, other)


def test_optimiser_average_and_unmoved_parameters_come_back(tmp_path):
    trained = _trainer(tmp_path)
    trained.run()
    resumed = _trainer(tmp_path)
    resumed.resume()
    for one, other in zip(trained.average, resumed.average, strict=True):
        assert torch.equal(one, other)
    for name, parameter in trained.named.items():
        before, after = trained.optimiser.state.get(parameter), resumed.optimiser.state.get(resumed.named[name])
        assert (before is None) == (after is None) == (name == "unused")
        assert before is None or all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("damaged", ["state.json", "*.safetensors"])
def test_a_damaged_save_is_named_with_the_way_out(tmp_path, damaged):
    _trainer(tmp_path).run()
    path = next(next((tmp_path / "state").glob("step-*")).glob(damaged))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RunError, match=rf"{path.parent}: found a save that cannot be read .*move {tmp_path} away"):
        _trainer(tmp_path).resume()


def test_nothing_to_resume_is_said(tmp_path):
    assert _trainer(tmp_path).resume() is False


def test_resuming_another_stage_is_refused(tmp_path):
    _trainer(tmp_path).run()
    other = SmallStage()
    other.body = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 1))
    with pytest.raises(ValueError, match=r"not this recipe's \(for example \['body.0.bias'"):
        Trainer(other, CONFIG, tmp_path).resume()


def test_a_save_that_breaks_off_anywhere_leaves_the_one_before(tmp_path, monkeypatch):
    _trainer(tmp_path).run(until=3)
    for breaking in ("shutil.rmtree", "dcp.save", "asdict", "os.replace"):
        trainer = _trainer(tmp_path)
        trainer.resume()
        trainer.step = 4
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"instructvla_training.state.{breaking}", _interrupted)
            trainer.save()
        assert state.newest(tmp_path / "state").name == "step-0000003"
    resumed = _trainer(tmp_path)
    assert resumed.resume() and resumed.step == 3


def _interrupted(*_, **__):
    raise KeyboardInterrupt


def test_rows_after_the_last_save_and_a_line_cut_in_two_are_forgotten(tmp_path):
    _trainer(tmp_path).run(until=3)
    with (tmp_path / "log.jsonl").open("a") as lines:
        lines.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    _trainer(tmp_path).resume()
    assert list(read_log(tmp_path)["step"]) == [1, 2, 3]


def test_a_step_is_the_mean_over_its_parts_and_the_first_part_alone_is_a_step_of_one(tmp_path):
    assert np.random.default_rng([42, 7]).integers(1 << 40) == np.random.default_rng([42, 7, 0]).integers(1 << 40)
    trainer = _trainer(tmp_path, parts=2)
    parts = [(part, trainer.stage.make_batch(np.random.default_rng([42, 0, part]))) for part in range(2)]
    together = trainer._update(parts)
    alone = [_trainer(tmp_path / str(part))._update([parts[part]])["loss"] for part in range(2)]
    assert alone[0] != alone[1]
    assert together["loss"] == pytest.approx(np.mean(alone), rel=1e-6)


def test_a_number_of_parts_that_the_processes_cannot_share_is_refused(tmp_path):
    from instructvla_training.parallel import Processes

    with pytest.raises(ValueError, match="3 parts a step for 2 processes"):
        Trainer(SmallStage(), CONFIG, tmp_path, Processes(0, 2), parts=3)


def test_a_non_finite_loss_stops_before_the_weights_move_and_names_the_rows(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.stage.frozen.data[:] = float("inf")
    before = {name: p.detach().clone() for name, p in trainer.named.items()}
    first = trainer.stage.make_batch(np.random.default_rng([42, 0]))
    with pytest.raises(NonFiniteLoss, match=r"\[\[42, 0, 0\]\]") as caught:
        trainer.run()
    assert first.drawn.ids[3] in str(caught.value)
    assert all(torch.equal(trainer.named[name], value) for name, value in before.items())


def test_averaged_weights_are_swapped_in_and_out(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.run()
    trained = trainer.parameters[1].detach().clone()
    with trainer.averaged():
        assert torch.equal(trainer.parameters[1], trainer.average[1])
        assert not torch.equal(trainer.parameters[1], trained)
    assert torch.equal(trainer.parameters[1], trained)


def test_effective_shares_and_rates_are_logged(tmp_path):
    _trainer(tmp_path).run()
    columns = read_log(tmp_path)
    assert set(columns["share/data/right"]) == {0.75} and set(columns["share/data/left"]) == {0.25}
    assert (columns["samples_per_s"] > 0).all() and (columns["waited_share"] >= 0).all()


def test_the_rate_warms_up_and_falls():
    rates = [CONFIG.rate(step) for step in range(6)]
    assert rates[0] == pytest.approx(0.05) and rates[1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[2:]))


def test_a_final_fraction_of_one_keeps_the_rate():
    constant = replace(CONFIG, warmup_steps=0, final_fraction=1.0)
    assert {constant.rate(step) for step in range(6)} == {0.1}


def test_a_stage_without_trainable_parameters_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        Trainer(SmallStage().requires_grad_(False), CONFIG, tmp_path)
