"""Shared by the parity tests: reads the golden tensors and maps their names to this library's.

The fixtures hold tiny randomly initialised weights and outputs produced by running the reference
implementation on a CPU. INSTRUCTVLA_PARITY_DIR points the same tests at another folder of the same form.

A parity test computes every output of a file from its inputs and weights and hands all of them to `compare`, which
fails for an output that was not computed, so that no golden tensor can be left aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from instructvla_model.config import (
    AdapterConfig,
    ExpertConfig,
    FilmVitConfig,
    LanguageConfig,
    PolicyConfig,
    VisionConfig,
)
from instructvla_model.released import layout

OWN = Path(__file__).parent / "fixtures"
FIXTURES = Path(os.environ.get("INSTRUCTVLA_PARITY_DIR", OWN))
# Some whole-model weights multiply rounding errors by a hundred: there even the reference is 9e-6 from its own numbers
# in fp64. Fused attention, which sums in another order, stays under 1e-5 here; other seeds get room for both errors.
FUSED_ATOL = 1e-5 if FIXTURES == OWN else 3e-5


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(str(FIXTURES / f"{name}.safetensors"), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def read_json(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def compare(computed: Mapping[str, Tensor], golden: Mapping[str, Tensor], atol: float) -> None:
    """Every golden output was computed, and nothing else; floats agree within `atol`, integers exactly."""
    outputs = {name for name in golden if not name.startswith("w.") and ".in." not in f".{name}"}
    assert set(computed) == outputs - {"freqs_in"}
    for name, tensor in computed.items():
        expected = golden[name]
        assert tuple(tensor.shape) == tuple(expected.shape), name
        if expected.is_floating_point():
            worst = (tensor.float() - expected).abs().max().item()
            assert worst <= atol, f"{name}: largest difference {worst:.2e}, allowed {atol:.0e}"
        else:
            assert torch.equal(tensor, expected), name


@contextlib.contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention in the reference's order of operations in place of PyTorch's fused kernels."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None, dropout_p: float, is_causal: bool, scale: float
    ) -> Tensor:
        assert dropout_p == 0.0
        logits = torch.matmul(q, k.transpose(-1, -2)) * scale
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            boolean = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, float("-inf")) if boolean else logits + attn_mask
        return torch.matmul(torch.softmax(logits, dim=-1), v)

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attend):
        yield


def seeded(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """Normal numbers that follow from a name alone (fp32)."""
    seed = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
    numbers = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    return torch.from_numpy(numbers.astype(np.float32))


def seeded_parameter(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """A parameter of the full-size expert as the fixture's maker drew it from its name."""
    n = seeded(f"full.{name}", shape, salt)
    if name.endswith(".gamma"):
        return 0.5 + 0.1 * n
    if len(shape) == 1:
        return 1.0 + 0.1 * n if name.endswith("weight") else 0.02 * n
    if name.endswith(("cls_token", "reg_token", "pos_embed")):
        return n / 50.0
    return n / math.sqrt(math.prod(shape[1:]))


def weights(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors under `w.<prefix>`, the prefix removed."""
    start = f"w.{prefix}"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def fill(
    module: nn.Module,
    released: Mapping[str, Tensor],
    config: PolicyConfig,
    stage: str,
    *,
    prefix: str = "",
    order: list[int] | None = None,
) -> None:
    """Load released tensors into a module through the importer's table of names; all of both are used.

    `prefix` stands before the module's names in ours; `order` rearranges the rows of the token tables first.
    """
    ours = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    wanted = layout.table(ours, config, stage)
    assert set(wanted) == set(released)
    for name, pieces in wanted.items():
        tensor = released[name]
        if order is not None and pieces[0].first is not None:
            tensor = tensor[order]
        for piece in pieces:
            target = ours[piece.name]
            part = tensor if piece.first is None else tensor[piece.first : piece.first + len(target)]
            assert part.shape == target.shape, name
            target.copy_(part)


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
        vlm_recipe="siglip_squash",
        expert_recipe="dino_crop",
    )  # fmt: skip


def with_language(config: PolicyConfig, **changes: object) -> PolicyConfig:
    return dataclasses.replace(config, language=dataclasses.replace(config.language, **changes))


def whole_model_config(config: PolicyConfig, stage: int) -> PolicyConfig:
    """Adapter sizes of the whole-model fixtures: rank 128 in stage 1, 4 in stage 2, scale 2."""
    rank = 128 if stage == 1 else 4
    adapters = dataclasses.replace(config.adapters, rank=rank, alpha=2.0 * rank)
    return dataclasses.replace(config, adapters=adapters)
