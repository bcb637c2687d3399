"""Frozen types at the boundary of the library: what goes in, what comes out of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Observation:
    """One instant as the robot saw it."""

    images: Mapping[str, np.ndarray]  # view name -> (H, W, 3) uint8 RGB
    state: np.ndarray | None  # (8,) float32: xyz [m], rpy [rad], 0, gripper opening 0..1
    stamp_s: float


@dataclass(frozen=True)
class Thought:
    """Text written so far. The last of a stream has `final` and carries the caches for the latents."""

    instruction: str
    text: str
    final: bool
    n_tokens: int
    latency_s: float
    cache: object | None = None  # generate.TextState; opaque to callers
    mode: str = "think"


@dataclass(frozen=True)
class LatentPlan:
    """Latent actions for one image and instruction."""

    latents: torch.Tensor  # (N, D) float32 on the CPU
    stamp_s: float  # of the image
    instruction_id: int
    seq: int
    gate_mean: tuple[float, ...]  # mean weight of each adapter over the tokens
    text: str


@dataclass(frozen=True)
class ActionChunk:
    """F steps; step k is to be executed in [stamp_s + k dt_s, stamp_s + (k + 1) dt_s)."""

    delta_xyz_m: np.ndarray  # (F, 3) float32, base axes
    delta_rpy_rad: np.ndarray  # (F, 3) float32, base axes
    gripper: np.ndarray  # (F,) float32, absolute opening 0 (closed) .. 1 (open)
    dt_s: float
    stamp_s: float  # of the image the chunk was made from
    instruction_id: int
    seq: int
    latent_seq: int
