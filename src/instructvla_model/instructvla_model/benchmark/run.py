"""One benchmark run: build, time each stage, compare with the released code's schedule, tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from instructvla_model.benchmark.legacy import LegacySchedule
from instructvla_model.benchmark.model import build
from instructvla_model.benchmark.stages import Stages
from instructvla_model.benchmark.timing import Timing, device_name, in_turns, peak_bytes
from instructvla_model.config import PolicyConfig


@dataclass(frozen=True)
class Settings:
    """What to measure. `against_legacy` also runs the released code's schedule, in turns with ours."""

    config: PolicyConfig
    device: torch.device
    dtype: torch.dtype
    stage: str = "generalist"
    vlm_weights: str = "full"
    rounds: int = 20
    warm_up: int = 3
    against_legacy: bool = False
    only: tuple[str, ...] = ()  # names of stages; empty: all


@dataclass(frozen=True)
class Result:
    """Timings by stage; `legacy` and `differences` (largest, of the outputs) where both schedules have the stage."""

    preset: str
    attention: str
    device: str
    dtype: str
    vlm_weights: str
    threads: int
    n_parameters: int
    peak_bytes: int
    stages: Mapping[str, Timing]
    legacy: Mapping[str, Timing]
    differences: Mapping[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times faster than the released code's schedule."""
        return {name: timing.p50_ms / self.stages[name].p50_ms for name, timing in self.legacy.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"ratios": self.ratios}

    def lines(self) -> list[str]:
        """A table for people."""
        head = (
            f"{self.preset}, expert {self.attention}, {self.dtype}, VLM weights {self.vlm_weights}; {self.device}; "
            f"{self.threads} threads; {self.n_parameters / 1e6:.0f} M numbers; "
            f"peak memory {self.peak_bytes / 1e9:.2f} GB"
        )
        rows = [
            head,
            f"{'stage':22s} {'p50 ms':>10s} {'p95 ms':>10s} {'legacy p50':>12s} {'ratio':>7s} {'difference':>11s}",
        ]
        for name, timing in self.stages.items():
            row = f"{name:22s} {timing.p50_ms:10.2f} {timing.p95_ms:10.2f}"
            if name in self.legacy:
                row += f" {self.legacy[name].p50_ms:12.2f} {self.ratios[name]:7.2f} {self.differences[name]:11.1e}"
            rows.append(row)
        return rows


def run(settings: Settings) -> Result:
    """Build the policy with random weights and measure it. ValueError for an unknown stage name."""
    bench = build(settings.config, settings.device, settings.dtype, settings.stage, settings.vlm_weights)
    stages = Stages(bench)
    ours = stages.calls()
    unknown = sorted(set(settings.only) - set(ours))
    if unknown:
        raise ValueError(f"stage {unknown[0]!r} does not exist; expected some of {list(ours)}")
    ours = {name: call for name, call in ours.items() if not settings.only or name in settings.only}
    legacy = LegacySchedule(stages).calls() if settings.against_legacy else {}
    legacy = {name: call for name, call in legacy.items() if name in ours}
    differences = {name: float((call() - ours[name]()).abs().max()) for name, call in legacy.items()}
    both = {f"ours {name}": call for name, call in ours.items()} | {f"legacy {name}": c for name, c in legacy.items()}
    timings = in_turns(both, settings.rounds, settings.warm_up, settings.device)
    return Result(
        preset=settings.config.name,
        attention=settings.config.expert.attention,
        device=device_name(settings.device),
        dtype=str(settings.dtype).removeprefix("torch."),
        vlm_weights=settings.vlm_weights,
        threads=torch.get_num_threads(),
        n_parameters=bench.n_parameters,
        peak_bytes=peak_bytes(settings.device),
        stages={name: timings[f"ours {name}"] for name in ours},
        legacy={name: timings[f"legacy {name}"] for name in legacy},
        differences=differences,
    )
