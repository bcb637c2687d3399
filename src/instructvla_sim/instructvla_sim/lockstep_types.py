"""Values of the lockstep loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from instructvla_ros.control import ArmController
from instructvla_ros.control.types import ActionChunk
from instructvla_sim.types import Progress, Task
from instructvla_sim.world import Snapshot


@dataclass(frozen=True)
class Observation:
    """What a policy sees: images (H, W, 3) uint8 RGB by camera, state (8,) float32, simulated stamp."""

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    stamp_s: float


Policy = Callable[[Observation], "ActionChunk | np.ndarray"]
"""Returns a chunk, or plain actions (F, 7) or (7,) in the units of the action step."""


@dataclass(frozen=True)
class StepResult:
    """Outcome of one policy step."""

    success: bool
    mode: str
    reason: str
    fault_id: str


@dataclass(frozen=True)
class EpisodeResult:
    """Outcome of one episode. `success` is the state at the end; `steps` policy steps were taken."""

    seed: int
    task: Task
    success: bool
    steps: int
    progress: Progress
    faults: Mapping[str, int]


@dataclass(frozen=True)
class Fork:
    """A point in an episode to come back to."""

    world: Snapshot
    controller: ArmController
    seq: int
