"""The numbers of one optimisation and its learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Numbers of one run. ``learning_rate`` is reached after ``warmup_steps`` and falls along a cosine
    to ``final_fraction`` of itself at ``steps``; a fraction of 1 keeps it constant."""

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    final_fraction: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    seed: int = 42
    log_every: int = 25
    save_every: int = 500
    autocast: str = "bfloat16"  # or "float32", as it is too on a processor that gains nothing by bfloat16
    gather: str = "float32"  # dtype in which sharded weights are gathered; "bfloat16" only where autocast is that too
    checkpoint_activations: bool = False  # recompute the language model's layers in the backward pass
    compile_layers: bool = False  # by torch.compile; by one process only

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (0-based)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)
