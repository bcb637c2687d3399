"""Shared by the parity tests: reads the golden tensors and maps their names to this library's.

The fixtures hold tiny randomly initialised weights and outputs produced by running the reference
implementation on a CPU.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from instructvla_model.config import (
    AdapterConfig,
    ExpertConfig,
    FilmVitConfig,
    LanguageConfig,
    PolicyConfig,
    VisionConfig,
)

FIXTURES = Path(os.environ.get("INSTRUCTVLA_PARITY_DIR", Path(__file__).parent / "fixtures"))


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(str(FIXTURES / f"{name}.safetensors"), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def weights(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors under `w.<prefix>`, the prefix removed."""
    start = f"w.{prefix}"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def language_weights(tensors: dict[str, Tensor], prefix: str, adapters: dict[str, str]) -> dict[str, Tensor]:
    """Reference language-model names -> ours: plain linears get `base_layer`, adapters their names."""
    out: dict[str, Tensor] = {}
    targets = AdapterConfig().targets
    for name, tensor in weights(tensors, prefix).items():
        for theirs, ours in adapters.items():
            name = name.replace(f".lora_A.{theirs}.", f".lora_A.{ours}.").replace(
                f".lora_B.{theirs}.", f".lora_B.{ours}."
            )
        parts = name.split(".")
        if len(parts) > 2 and parts[-2] in targets:
            name = ".".join([*parts[:-1], "base_layer", parts[-1]])
        out[name] = tensor
    return out


def tiny_reference_config(
    *, views: int = 1, state_dim: int = 0, latent_dim: int = 40, horizon: int = 6, n_queries: int = 8
) -> PolicyConfig:
    """Sizes of the tiny fixtures, with the reference's parity values."""
    return PolicyConfig(
        name="reference-tiny",
        vision=VisionConfig(image_size=56, patch_size=14, hidden_size=24, n_layers=2, n_heads=2, mlp_size=48),
        language=LanguageConfig(
            vocab_size=130 - n_queries, hidden_size=latent_dim, n_layers=2, n_heads=4, n_kv_heads=2, mlp_size=64
        ),
        adapters=AdapterConfig(names=("action", "language"), rank=4, alpha=8.0, dropout=0.0, gate_size=16),
        film=FilmVitConfig(
            image_size=56, patch_size=14, dim=64, depth=4, n_heads=4, mlp_size=256, n_registers=4,
            n_blocks_used=3, final_norm=False,
        ),
        expert=ExpertConfig(
            dim=48, n_layers=2, n_heads=4, mlp_size=96, horizon=horizon, head_widths=(192, 96, 24),
            state_dim=state_dim, attention="additive_bias",
        ),
        n_queries=n_queries,
        views=tuple(f"view{i}" for i in range(views)),
    )  # fmt: skip


def with_language(config: PolicyConfig, **changes: object) -> PolicyConfig:
    return dataclasses.replace(config, language=dataclasses.replace(config.language, **changes))


def whole_model_config(config: PolicyConfig, stage: int) -> PolicyConfig:
    """Adapter sizes of the whole-model fixtures: rank 128 in stage 1, 4 in stage 2, scale 2."""
    rank = 128 if stage == 1 else 4
    adapters = dataclasses.replace(config.adapters, rank=rank, alpha=2.0 * rank)
    return dataclasses.replace(config, adapters=adapters)
