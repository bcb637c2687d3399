"""The loop that every stage shares: optimiser, schedule, moving average, log, exact resume."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from .prefetch import Prefetcher

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Numbers of one run. ``learning_rate`` is reached after ``warmup_steps`` and falls along a cosine
    to ``final_fraction`` of itself at ``steps``."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    final_fraction: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    seed: int = 42
    log_every: int = 25
    save_every: int = 500
    autocast: str = "bfloat16"  # "bfloat16" or "float32"

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (0-based)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


class NonFiniteLoss(RuntimeError):
    """The loss of a step is NaN or infinite; the run stops before the weights are touched."""


class Trainer:
    """Trains the parameters of ``module`` that require gradients.

    The batch of step s comes from ``numpy.random.default_rng([seed, s])`` and torch's generator is seeded by
    s too, so that a resumed run goes on exactly as an uninterrupted one would have.
    """

    def __init__(self, module: nn.Module, config: Optimisation, run_dir: Path, device: torch.device):
        self.module, self.config, self.run_dir, self.device = module, config, Path(run_dir), device
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.names = [n for n, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(
                "found no parameter that requires a gradient; choose the stage's trainable set first"
            )
        decay = [p for p in self.parameters if p.ndim >= 2]
        plain = [p for p in self.parameters if p.ndim < 2]
        groups = [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.seconds = 0.0

    @property
    def state_path(self) -> Path:
        return self.run_dir / "state.pt"

    def resume(self) -> bool:
        """Continues from the run folder's last save; False where there is none.

        Raises ValueError where the saved parameters are not the module's.
        """
        if not self.state_path.exists():
            return False
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        if state["names"] != self.names:
            differing = sorted(set(state["names"]) ^ set(self.names))[:5]
            raise ValueError(
                f"{self.state_path}: its parameters are not this recipe's (for example {differing}); "
                "use another run folder or delete it"
            )
        with torch.no_grad():
            for parameter, average, saved, saved_average in zip(
                self.parameters, self.average, state["parameters"], state["average"], strict=True
            ):
                parameter.copy_(saved)
                average.copy_(saved_average)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("resumed %s at step %d", self.run_dir.name, self.step)
        return True

    def save(self) -> None:
        """Writes the whole state to a temporary file and renames it: a kill leaves the previous one."""
        state = {
            "names": self.names,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.state_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_path)

    def run(
        self,
        make_batch: Callable[[np.random.Generator], Batch],
        losses_of: Callable[[Batch], Mapping[str, torch.Tensor]],
        on_save: Callable[[int], None] | None = None,
        until: int | None = None,
    ) -> None:
        """Train to step ``until`` (default ``config.steps``). ``losses_of`` returns named losses, one of them "loss".

        ``make_batch`` runs one step ahead in another thread and may use nothing but its generator.
        """
        config = self.config
        stop = config.steps if until is None else min(until, config.steps)

        def make(step: int) -> Batch:
            return make_batch(np.random.default_rng([config.seed, step]))

        with Prefetcher(make, self.step, stop) as batches:
            self._loop(batches, stop, losses_of, on_save)

    def _loop(
        self,
        batches: Prefetcher[Batch],
        stop: int,
        losses_of: Callable[[Batch], Mapping[str, torch.Tensor]],
        on_save: Callable[[int], None] | None,
    ) -> None:
        config = self.config
        sums: dict[str, float] = {}
        counted = 0
        started = time.monotonic()
        self.module.train()
        for batch in batches:
            torch.manual_seed(config.seed * 1_000_003 + self.step)
            losses = self._update(losses_of, batch)
            self.step += 1
            counted += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            last = self.step == stop
            if self.step % config.log_every == 0 or last:
                self.seconds += time.monotonic() - started
                started = time.monotonic()
                self._log({name: value / counted for name, value in sums.items()})
                sums, counted = {}, 0
            if self.step % config.save_every == 0 or last:
                self.save()
                if on_save is not None:
                    on_save(self.step)
                    self.module.train()

    def _update(
        self, losses_of: Callable[[Batch], Mapping[str, torch.Tensor]], batch: Batch
    ) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        enabled = self.config.autocast == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            losses = losses_of(batch)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]) or not math.isfinite(float(norm)):
            raise NonFiniteLoss(
                f"step {self.step}: loss {values}, gradient norm {float(norm)}; expected finite values. "
                f"The batch is that of seed [{self.config.seed}, {self.step}]; lower the rate or mend the data"
            )
        self.optimiser.step()
        with torch.no_grad():
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return values | {"gradient_norm": float(norm)}

    def _log(self, means: Mapping[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), "rate": self.config.rate(self.step - 1)}
        row |= {name: round(value, 5) for name, value in means.items()}
        with (self.run_dir / "log.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        logger.info(" ".join(f"{k}={v:.4g}" for k, v in row.items()))

    def averaged(self) -> _Swap:
        """Context in which the module holds the averaged weights."""
        return _Swap(self.parameters, self.average)


class _Swap:
    def __init__(self, parameters: list[nn.Parameter], average: list[torch.Tensor]):
        self.parameters, self.average = parameters, average

    def __enter__(self) -> None:
        self.kept = [p.detach().clone() for p in self.parameters]
        self._set(self.average)

    def __exit__(self, *_: object) -> None:
        self._set(self.kept)

    def _set(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)
