"""The benchmark measures every stage, and the two schedules that it compares compute the same."""

import json
from dataclasses import replace

import pytest
import torch

from instructvla_model import compiled
from instructvla_model.benchmark.model import build_expert, build_language
from instructvla_model.benchmark.run import STAGES, Settings, run
from instructvla_model.benchmark.stages import EXPERT, ExpertStages, LanguageStages
from instructvla_model.benchmark.timing import device_name, in_turns, peak_bytes
from instructvla_model.presets import in_regime, preset

CPU = torch.device("cpu")


def settings(**changes):
    return replace(Settings(preset("tiny"), CPU, torch.float32, rounds=2, warm_up=0), **changes)


SHARED = {
    "legacy-schedule": {"latents", "latents-after-text", *EXPERT},
    "no-cache": {"latents-after-text", "flow-loop", "chunk"},
}


@pytest.mark.parametrize("against", SHARED)
@pytest.mark.parametrize("regime", ["paper", "reference"])
@pytest.mark.parametrize("stage", ["expert", "generalist"])
def test_both_schedules_agree_in_every_stage_they_share(regime, stage, against):
    config = in_regime(preset("tiny"), regime)
    config = replace(config, views=("a", "b"), film=replace(config.film, depth=3))
    result = run(settings(config=config, stage=stage, against=against))
    assert set(result.baseline) == SHARED[against]
    assert max(result.differences.values()) < 1e-4
    assert set(result.ratios) == set(result.baseline)
    assert tuple(result.stages) == STAGES
    assert all(t.rounds == 2 and t.p95_ms >= t.p50_ms > 0 for t in result.stages.values())
    json.dumps(result.as_dict())
    assert len(result.lines()) == 2 + len(STAGES)


def test_compiled_vision_is_measured_gives_the_same_and_says_so(monkeypatch):
    """Traced as for a GPU or CPU, but run by PyTorch, since making machine code takes minutes."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    result = run(settings(only=("vision", "dino-film"), compiled=True, against="legacy-schedule"))
    assert result.compiled and "vision compiled" in result.lines()[0]
    assert set(result.differences) == {"dino-film"} and max(result.differences.values()) < 1e-4
    assert "compiled" not in run(settings(only=("vision",))).lines()[0]


def test_only_what_a_stage_needs_is_built_and_unknown_names_are_refused():
    vision = run(settings(only=("vision",), vlm_weights="int8", dtype=torch.bfloat16))
    chunk, everything = run(settings(only=("chunk",))), run(settings())
    assert (list(vision.stages), list(chunk.stages), vision.ratios) == (["vision"], ["chunk"], {})
    assert 0 < chunk.n_parameters < everything.n_parameters
    with pytest.raises(ValueError, match=r"stages \['lunch'\]; expected some of vision, prefill"):
        run(settings(only=("lunch",)))
    with pytest.raises(ValueError, match="against 'time'"):
        run(settings(against="time"))


def test_random_weights_give_finite_numbers_and_one_seed_the_same():
    config = preset("tiny")
    for build, stages, name in ((build_expert, ExpertStages, "chunk"), (build_language, LanguageStages, "latents")):
        a, b, c = (stages(build(config, CPU, torch.float32, seed=seed)).calls()[name]() for seed in (1, 1, 2))
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
