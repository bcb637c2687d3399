"""One benchmark run: build, time each stage, compare with another schedule, tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from instructvla_model.benchmark import legacy, whole
from instructvla_model.benchmark.model import Call, build_expert, build_language
from instructvla_model.benchmark.stages import EXPERT, LANGUAGE, ExpertStages, LanguageStages
from instructvla_model.benchmark.timing import Timing, device_name, in_turns, peak_bytes
from instructvla_model.config import PolicyConfig

STAGES = (*LANGUAGE, *EXPERT)


@dataclass(frozen=True)
class Baseline:
    """Another schedule: its calls for the stages that it has."""

    language: Callable[[LanguageStages], dict[str, Call]]
    expert: Callable[[ExpertStages], dict[str, Call]]


BASELINES = {
    "legacy-schedule": Baseline(legacy.language_calls, legacy.expert_calls),
    "no-cache": Baseline(whole.language_calls, whole.expert_calls),
}


@dataclass(frozen=True)
class Settings:
    """What to measure. `against`: one of BASELINES, run in turns with ours."""

    config: PolicyConfig
    device: torch.device
    dtype: torch.dtype
    stage: str = "generalist"
    vlm_weights: str = "full"
    compiled: bool = False  # the vision towers by torch.compile
    rounds: int = 20
    warm_up: int = 3
    against: str | None = None
    only: tuple[str, ...] = STAGES


@dataclass(frozen=True)
class Result:
    """Timings by stage; `baseline` and `differences` (largest, of the outputs) where both schedules have the stage."""

    preset: str
    attention: str
    device: str
    dtype: str
    vlm_weights: str
    compiled: bool
    threads: int
    date: str
    n_parameters: int  # of the parts that were needed
    peak_bytes: int
    against: str | None
    stages: Mapping[str, Timing]
    baseline: Mapping[str, Timing]
    differences: Mapping[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times faster than the baseline."""
        return {name: timing.p50_ms / self.stages[name].p50_ms for name, timing in self.baseline.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"ratios": self.ratios}

    def lines(self) -> list[str]:
        """A table for people."""
        head = (
            f"{self.preset}, expert {self.attention}, {self.dtype}, VLM weights {self.vlm_weights}"
            f"{', vision compiled' if self.compiled else ''}; {self.device}; "
            f"{self.threads} threads; {self.n_parameters / 1e6:.0f} M numbers; "
            f"peak memory {self.peak_bytes / 1e9:.2f} GB; {self.date}"
        )
        columns = f"{'stage':20s} {'p50 ms':>10s} {'p95 ms':>10s}"
        if self.against:
            columns += f" {self.against:>16s} {'ratio':>7s} {'difference':>11s}"
        rows = [head, columns]
        for name, timing in self.stages.items():
            row = f"{name:20s} {timing.p50_ms:10.2f} {timing.p95_ms:10.2f}"
            if name in self.baseline:
                row += f" {self.baseline[name].p50_ms:16.2f} {self.ratios[name]:7.2f} {self.differences[name]:11.1e}"
            rows.append(row)
        return rows


@dataclass(frozen=True)
class _Part:
    """One half of the policy: how many numbers, its stages, and the baseline's."""

    n_parameters: int
    calls: dict[str, Call]
    baseline: dict[str, Call]


def _language(settings: Settings, baseline: Baseline | None) -> _Part:
    where, how = (settings.config, settings.device, settings.dtype), (settings.stage, settings.vlm_weights)
    bench = build_language(*where, *how, compiled=settings.compiled)
    stages = LanguageStages(bench)
    return _Part(bench.n_parameters, stages.calls(), baseline.language(stages) if baseline else {})


def _expert(settings: Settings, baseline: Baseline | None) -> _Part:
    bench = build_expert(settings.config, settings.device, settings.dtype, compiled=settings.compiled)
    stages = ExpertStages(bench)
    return _Part(bench.n_parameters, stages.calls(), baseline.expert(stages) if baseline else {})


def run(settings: Settings) -> Result:
    """Build what the stages need, with random weights, and measure it. ValueError for an unknown name."""
    only = set(settings.only)
    if not only or not only <= set(STAGES):
        raise ValueError(f"stages {sorted(only - set(STAGES))}; expected some of {', '.join(STAGES)}")
    if settings.against is not None and settings.against not in BASELINES:
        raise ValueError(f"against {settings.against!r}; expected one of {', '.join(BASELINES)}")
    other = BASELINES[settings.against] if settings.against is not None else None
    parts = [build(settings, other) for names, build in ((LANGUAGE, _language), (EXPERT, _expert)) if only & set(names)]
    ours = {name: call for part in parts for name, call in part.calls.items() if name in only}
    baseline = {
        name: torch.inference_mode()(call) for part in parts for name, call in part.baseline.items() if name in only
    }
    differences = {name: float((call() - ours[name]()).abs().max()) for name, call in baseline.items()}
    both = {f"ours {n}": c for n, c in ours.items()} | {f"baseline {n}": c for n, c in baseline.items()}
    timings = in_turns(both, settings.rounds, settings.warm_up, settings.device)
    return Result(
        preset=settings.config.name,
        attention=settings.config.expert.attention,
        device=device_name(settings.device),
        dtype=str(settings.dtype).removeprefix("torch."),
        vlm_weights=settings.vlm_weights,
        compiled=settings.compiled,
        threads=torch.get_num_threads(),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        n_parameters=sum(part.n_parameters for part in parts),
        peak_bytes=peak_bytes(settings.device),
        against=settings.against,
        stages={name: timings[f"ours {name}"] for name in ours},
        baseline={name: timings[f"baseline {name}"] for name in baseline},
        differences=differences,
    )
