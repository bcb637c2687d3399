"""Wall times of calls: warmed up, taken in turns, as median and 95th percentile."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Timing:
    """Of one call, in milliseconds."""

    p50_ms: float
    p95_ms: float
    rounds: int


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int,
    device: torch.device,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every call `rounds` times, one after the other in each round, so that a busy moment meets them all."""

    def once(call: Callable[[], object]) -> float:
        begin = now()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return now() - begin

    for _ in range(warm_up):
        for call in calls.values():
            once(call)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(once(call))
    return {name: _timing(values) for name, values in seconds.items()}


def _timing(seconds: list[float]) -> Timing:
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3
    return Timing(float(p50), float(p95), len(seconds))


def device_name(device: torch.device) -> str:
    """The device as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(models) or 1} cores"


def peak_bytes(device: torch.device) -> int:
    """Largest memory so far: PyTorch's on a GPU, the process's resident set on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
