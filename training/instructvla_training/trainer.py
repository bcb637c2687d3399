"""The loop that every stage shares, for one process or many: batches, losses, optimiser, average, save, resume."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from . import state
from .number_type import autocast
from .optimisation import Optimisation
from .parallel import Processes, moved, whole
from .prefetch import Prefetcher
from .refusals import NonFiniteLoss, RunError
from .watch import Watch

__all__ = ["Drawn", "NonFiniteLoss", "Optimisation", "Trainer"]
logger = logging.getLogger(__name__)

STEPS_APART = 1_000_003  # of torch's seeds, between runs of different seed
PARTS_APART = 2_000_000_011  # and between the parts of one step
LONGEST_TOLD = 160  # characters of what a run is of


@dataclass(frozen=True)
class Drawn:
    """Where a batch comes from. ``ids``: of each row; ``counts``: "group/name" -> rows, the same names every time."""

    ids: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)


class Batch(Protocol):
    """Anything the stage understands; a dataclass of tensors, so that it can be moved to the device."""

    @property
    def drawn(self) -> Drawn: ...


class Stage(Protocol):
    """What is trained: a module that draws its own batches and returns named losses, "loss" among them."""

    def make_batch(self, rng: np.random.Generator) -> Any: ...

    def __call__(self, batch: Any) -> Mapping[str, Tensor]: ...


class Trainer:
    """Trains the parameters of ``stage`` that require gradients.

    A step is the mean over ``parts`` batches. Part p of step s is drawn from ``default_rng([seed, s, p])``, torch's
    generator is seeded by s and p too, and the processes share the parts out. So a resumed run goes on exactly as an
    uninterrupted one would have, and what a step computes does not depend on how many processes compute it.
    """

    def __init__(
        self, stage: nn.Module, config: Optimisation, run_dir: Path, group: Processes | None = None,
        parts: int = 1, watch: Watch | None = None, of: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        """``of``: what the run is of, kept with its state; a run of something else is not gone on with."""
        self.stage, self.config, self.run_dir, self.parts = stage, config, Path(run_dir), parts
        self.of = json.loads(json.dumps(of or {}))  # as it comes back
        self.group = group or Processes()
        if parts % self.group.count:
            raise RunError(
                f"found {parts} parts a step for {self.group.count} processes, expected a multiple of their number; "
                "start as many processes as divide the recipe's parts"
            )
        self.watch = watch or Watch(self.run_dir, config.steps, shown=self.group.is_first)
        state.check_shared(self.run_dir, self.group)
        self.named = {n: p for n, p in stage.named_parameters() if p.requires_grad}
        self.parameters: list[Tensor] = list(self.named.values())
        if not self.parameters:
            raise ValueError("found no parameter that requires a gradient; choose the stage's trainable set first")
        groups = [
            {"params": [p for p in self.parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.seconds = 0.0

    # ---- save and resume ------------------------------------------------------------------------------

    @property
    def state_dir(self) -> Path:
        return self.run_dir / "state"

    def resume(self, may_differ: Sequence[str] = ()) -> bool:
        """Continues from the run folder's last save; False where there is none.

        Raises RunError where the saved parameters are not the stage's, or the run is of something else, but for what
        ``may_differ``.
        """
        folder = state.newest(self.state_dir)
        if folder is None:
            self.watch.rewind(0)
            return False
        facts = state.read_facts(folder)
        check_same(self.run_dir, {name: value for name, value in facts.of.items() if name not in may_differ}, self.of)
        shapes = {name: list(p.shape) for name, p in self.named.items()}
        if dict(facts.shapes) != shapes:
            differing = sorted(n for n in shapes.keys() | facts.shapes.keys() if facts.shapes.get(n) != shapes.get(n))
            raise RunError(
                f"{folder}: its parameters are not this recipe's (for example {differing[:5]}); "
                "use another run folder or delete it"
            )
        if facts.parts != self.parts:
            logger.warning("the run goes on with %d parts a step instead of %d", self.parts, facts.parts)
        for name, updates in facts.updates.items():
            parameter = self.named[name]
            self.optimiser.state[parameter] = {
                "step": torch.tensor(float(updates), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
        state.load(folder, self._tensors(), self.group)
        self.step, self.seconds = facts.step, facts.seconds
        self.watch.rewind(self.step)
        logger.info("resumed %s at step %d", self.run_dir.name, self.step)
        return True

    def save(self) -> None:
        """Writes everything that ``resume`` needs; every process must call."""
        updates = {n: int(self.optimiser.state[p]["step"]) for n, p in self._moved().items()}
        shapes = {name: list(p.shape) for name, p in self.named.items()}
        facts = state.Facts(self.step, self.seconds, self.parts, shapes, updates, self.of)
        state.save(self.state_dir, self._tensors(), facts, self.group)

    def _moved(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimiser has moved; one that never had a gradient has no moments."""
        return {n: p for n, p in self.named.items() if p in self.optimiser.state}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"parameters/{n}": p.detach() for n, p in self.named.items()}
        tensors |= {f"average/{n}": value for n, value in zip(self.named, self.average, strict=True)}
        for name, parameter in self._moved().items():
            moments = self.optimiser.state[parameter]
            tensors |= {f"{kind}/{name}": moments[kind] for kind in ("exp_avg", "exp_avg_sq")}
        return tensors

    # ---- the loop -------------------------------------------------------------------------------------

    def run(self, on_save: Callable[[int], None] | None = None, until: int | None = None) -> None:
        """Trains up to step ``until`` (default ``config.steps``). Batches are made ahead, in another thread."""
        stop = self.config.steps if until is None else min(until, self.config.steps)
        own_parts = range(self.group.rank, self.parts, self.group.count)
        stage = cast(Stage, self.stage)

        def make(step: int) -> list[tuple[int, Any]]:
            draws = ((part, np.random.default_rng([self.config.seed, step, part])) for part in own_parts)
            return [(part, moved(_drawn(stage, rng, part), self.group.device)) for part, rng in draws]

        with Prefetcher(make, self.step, stop) as batches, self.watch:
            self._loop(batches, stop, on_save)

    def _loop(self, batches: Prefetcher[Any], stop: int, on_save: Callable[[int], None] | None) -> None:
        config = self.config
        sums: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        steps = rows = 0
        started = time.monotonic()
        waited_s = batches.waited_s
        self.stage.train()
        for parts in batches:
            sums.update(self._update(parts))
            for _, batch in parts:
                counts.update(batch.drawn.counts)
                rows += len(batch.drawn.ids)
            self.step += 1
            steps += 1
            last = self.step == stop
            self.watch.advance(self.step)
            if self.step % config.log_every == 0 or last:
                seconds = time.monotonic() - started
                self.seconds += seconds
                means = {name: value / steps for name, value in sums.items()}
                means["samples_per_s"] = rows * self.group.count / seconds
                means["waited_share"] = (batches.waited_s - waited_s) / seconds
                self._log(means | _shares(counts))
                sums, counts, steps, rows = Counter(), Counter(), 0, 0
                started, waited_s = time.monotonic(), batches.waited_s
            if self.step % config.save_every == 0 or last:
                self.save()
                self.watch.flush()
                if on_save is not None:
                    on_save(self.step)
                    self.stage.train()
                started, waited_s = time.monotonic(), batches.waited_s

    def _update(self, parts: list[tuple[int, Any]]) -> dict[str, float]:
        """One optimiser step over this process's parts -> mean losses and the gradient's norm."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part, batch in parts:
            torch.manual_seed(config.seed * STEPS_APART + self.step + part * PARTS_APART)
            with autocast(self.group.device, config.autocast):
                losses = self.stage(batch)
            (losses["loss"] / len(parts)).backward()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach().float() if name in sums else value.detach().float()
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip))
        values = torch.stack([*sums.values(), norm.float()]).tolist()  # one wait for the device
        means = {name: value / len(parts) for name, value in zip(sums, values, strict=False)}
        if not math.isfinite(means["loss"]) or not math.isfinite(values[-1]):
            raise NonFiniteLoss(self._non_finite(means, values[-1], parts))
        self.optimiser.step()
        with torch.no_grad():
            decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return means | {"gradient_norm": values[-1]}

    def _non_finite(self, means: Mapping[str, float], norm: float, parts: list[tuple[int, Any]]) -> str:
        where = "here" if not math.isfinite(means["loss"]) else "in the gradient, or in another process"
        ids = [identity for _, batch in parts for identity in batch.drawn.ids]
        return (
            f"step {self.step}: losses {means}, gradient norm {norm} ({where}); expected finite values. "
            f"Batches of seeds {[[self.config.seed, self.step, part] for part, _ in parts]}, rows {', '.join(ids)}; "
            "mend or leave out these data, or lower the rate"
        )

    def _log(self, means: Mapping[str, float]) -> None:
        values = self.group.mean(list(means.values()))
        row = {"step": self.step, "seconds": round(self.seconds, 1), "rate": self.config.rate(self.step - 1)}
        self.watch.row(row | {name: round(v, 5) for name, v in zip(means, values, strict=True)})

    def averaged(self) -> _Swap:
        """Context in which the stage holds the averaged weights."""
        return _Swap(self.parameters, self.average)


def check_same(run_dir: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises RunError where a run is of something else than it was. Older saves do not say what they are of."""
    differing = sorted(key for key in before.keys() & now.keys() if before[key] != now[key])
    if differing:
        told = "; ".join(f"{key}: {_told(before[key])}, now {_told(now[key])}" for key in differing)
        files = {"annotations", "conversations", "datasets"} & set(differing)
        mended = "; where only damaged files were mended: finetune --mended" if files else ""
        raise RunError(
            f"{run_dir}: found a run of other {', '.join(differing)} ({told}), expected the same to go on; "
            f"name another folder (finetune: --output), or delete this one{mended}"
        )


def _drawn(stage: Stage, rng: np.random.Generator, part: int) -> Any:
    """A part of a step; stages whose parts are not all alike draw by number."""
    by_number = getattr(stage, "make_part", None)
    return stage.make_batch(rng) if by_number is None else by_number(rng, part)


def _told(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_TOLD else text[:LONGEST_TOLD] + "…"


def _shares(counts: Counter[str]) -> dict[str, float]:
    """Effective shares of what was drawn: each name's part of its group."""
    totals: Counter[str] = Counter()
    for name, count in counts.items():
        totals[name.split("/")[0]] += count
    return {f"share/{name}": count / max(1, totals[name.split("/")[0]]) for name, count in counts.items()}


class _Swap:
    def __init__(self, parameters: list[Tensor], average: list[Tensor]):
        self.parameters, self.average = parameters, average

    def __enter__(self) -> None:
        self.kept = [p.detach().clone() for p in self.parameters]
        self._set(self.average)

    def __exit__(self, *_: object) -> None:
        self._set(self.kept)

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)
