"""A stage of a few numbers, for tests of the loop around it; as a program, runs of it that can be killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from instructvla_training.optimisation import Optimisation
from instructvla_training.parallel import processes, shard
from instructvla_training.trainer import Drawn, Trainer

CONFIG = Optimisation(
    steps=6, learning_rate=0.1, warmup_steps=2, log_every=1, save_every=3, autocast="float32", ema_decay=0.5
)


@dataclass(frozen=True)
class Numbers:
    values: Tensor
    drawn: Drawn


class SmallStage(nn.Module):
    """Predicts noise, as a flow does; one weight is never used, one row is trained alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(5, 3), requires_grad=False)

    def make_batch(self, rng: np.random.Generator) -> Numbers:
        seed = int(rng.integers(1000))
        rows = tuple(f"episode {seed} frame {row}" for row in range(4))
        values = torch.from_numpy(rng.normal(size=(4, 3))).float()
        return Numbers(values, Drawn(rows, {"data/left": 1, "data/right": 3}))

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        noise = torch.randn(4, 1)
        return {"loss": (self.body(batch.values * self.frozen[0]) - noise).square().mean()}


def train(folder: Path, config: Optimisation, parts: int = 1) -> Trainer:
    """A whole run in as many processes as torchrun has started."""
    with processes("cpu") as group:
        stage = SmallStage()
        shard(stage, group)
        trainer = Trainer(stage, config, folder, group, parts)
        trainer.resume()
        trainer.run()
        return trainer


if __name__ == "__main__":
    train(Path(sys.argv[1]), Optimisation(**{**CONFIG.__dict__, "steps": int(sys.argv[2])}), int(sys.argv[3]))
