"""The benchmark measures every stage, and the two schedules that it compares compute the same."""

import json
from dataclasses import replace

import pytest
import torch

from instructvla_model.benchmark.model import build
from instructvla_model.benchmark.run import Settings, run
from instructvla_model.benchmark.stages import Stages
from instructvla_model.benchmark.timing import device_name, in_turns, peak_bytes
from instructvla_model.presets import in_regime, preset

CPU = torch.device("cpu")


def settings(**changes):
    return replace(Settings(preset("tiny"), CPU, torch.float32, rounds=2, warm_up=0), **changes)


@pytest.mark.parametrize("regime", ["paper", "reference"])
@pytest.mark.parametrize("stage", ["expert", "generalist"])
def test_both_schedules_agree_in_every_stage_they_share(regime, stage):
    config = in_regime(preset("tiny"), regime)
    config = replace(config, views=("a", "b"), film=replace(config.film, depth=3))
    result = run(settings(config=config, stage=stage, against_legacy=True))
    assert set(result.legacy) == {
        "latents", "latents after text", "DINO + FiLM", "trunk and flow loop", "expert, whole chunk"
    }  # fmt: skip
    assert max(result.differences.values()) < 1e-4
    assert set(result.ratios) == set(result.legacy)
    assert all(t.rounds == 2 and t.p95_ms >= t.p50_ms > 0 for t in result.stages.values())
    json.dumps(result.as_dict())
    assert len(result.lines()) == 2 + len(result.stages) == 10


def test_one_stage_can_be_measured_alone_and_unknown_ones_are_refused():
    result = run(settings(only=("vision",), vlm_weights="int8", dtype=torch.bfloat16))
    assert list(result.stages) == ["vision"]
    assert result.ratios == {}
    with pytest.raises(ValueError, match="stage 'lunch' does not exist"):
        run(settings(only=("lunch",)))


def test_random_weights_give_finite_numbers_and_one_seed_the_same():
    a, b, c = (
        Stages(build(preset("tiny"), CPU, torch.float32, seed=seed)).calls()["expert, whole chunk"]()
        for seed in (1, 1, 2)
    )
    assert torch.isfinite(a).all()
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_calls_are_taken_in_turns_after_the_warm_up():
    said = []
    times = iter(range(100))
    calls = {name: (lambda name=name: said.append(name)) for name in ("a", "b")}
    timings = in_turns(calls, rounds=2, warm_up=1, device=CPU, now=lambda: next(times))
    assert said == ["a", "b"] * 3
    assert (timings["a"].p50_ms, timings["a"].p95_ms, timings["a"].rounds) == (1000.0, 1000.0, 2)


def test_the_device_and_the_memory_are_told():
    assert "cores" in device_name(CPU)
    assert peak_bytes(CPU) > 1 << 20
