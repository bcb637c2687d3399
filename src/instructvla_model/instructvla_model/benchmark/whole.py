"""Schedules without caches, in which every Euler step and every read-out of latents starts from the beginning.

`RecomputedExpert` is the frame of every baseline; the calls here are this library without its caches: the same fused
operations, so that a comparison shows what the caches alone bring.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instructvla_model import flow
from instructvla_model.benchmark.model import Call, ExpertBench
from instructvla_model.benchmark.stages import ExpertStages, LanguageStages
from instructvla_model.expert import ActionExpert, ExpertPrefix
from instructvla_model.rope import rope_table
from instructvla_model.trunk import Layer, Table, block_bias

RunLayer = Callable[[Layer, Tensor, Tensor, Table], Tensor]  # layer, tokens, bias on the logits, rotation


class RecomputedExpert:
    """An expert whose every velocity is a forward over the whole sequence."""

    def __init__(
        self,
        bench: ExpertBench,
        expert: ActionExpert,
        vision_BPD: Tensor,
        layer: RunLayer,
        norm: Callable[[nn.Module, Tensor], Tensor],
    ) -> None:
        self._expert, self.config = expert, bench.config
        self._layer, self._norm = layer, norm
        parts = [vision_BPD, expert.cog_projector(bench.latents)]
        if expert.state_embed is not None:
            parts.append(expert.state_embed(bench.state)[:, None])
        tokens, n_vision = torch.cat(parts, dim=1), vision_BPD.shape[1]
        self._prefix = ExpertPrefix(tokens, n_vision, tokens.shape[1] - n_vision, None)

    def sample(self, noise_BKFA: Tensor) -> Tensor:
        """All Euler steps."""
        return flow.sample(self, self._prefix, noise_BKFA=noise_BKFA)  # type: ignore[arg-type]

    def velocity(self, prefix: ExpertPrefix, noisy_BKFA: Tensor, time_BK: Tensor) -> Tensor:
        expert, (B, K, F, A) = self._expert, noisy_BKFA.shape
        action = expert.action_embed(noisy_BKFA.to(prefix.tokens_BPD.dtype), time_BK)[:, 0]
        states = self._trunk(torch.cat([prefix.tokens_BPD, action], dim=1), prefix)[:, -F:]
        return expert.action_head(states.reshape(B, K, -1)).float().view(B, K, F, A)

    def _trunk(self, x: Tensor, prefix: ExpertPrefix) -> Tensor:
        config, trunk = self.config.expert, self._expert.VideoGPT.model
        bias = block_bias(prefix.n_vision, prefix.n_latent, config.horizon, x.device)
        if config.attention == "block_causal":
            bias = torch.where(bias > 0, 0.0, float("-inf"))
        positions = torch.arange(x.shape[1], device=x.device)
        table = rope_table(positions, config.dim // config.n_heads, config.rope_theta, x.dtype)
        for layer in trunk.layers:
            assert isinstance(layer, Layer)
            x = self._layer(layer, x, bias.to(x.dtype), table)
        return self._norm(trunk.norm, x)


def language_calls(stages: LanguageStages) -> dict[str, Call]:
    """Latents after text by encoding prompt, text and queries again; the image's tokens are kept."""
    bench = stages.bench
    return {"latents-after-text": lambda: stages.encode(bench.text_ids, bench.query_ids)}


def expert_calls(stages: ExpertStages) -> dict[str, Call]:
    """The flow over the whole sequence in every step."""
    bench = stages.bench

    def run(vision_BPD: Tensor) -> Tensor:
        return RecomputedExpert(bench, bench.expert, vision_BPD, _fused_layer, lambda norm, x: norm(x)).sample(
            bench.noise
        )

    return {"flow-loop": lambda: run(stages.vision_1PD), "chunk": lambda: run(stages.see())}


def _fused_layer(layer: Layer, x: Tensor, bias: Tensor, table: Table) -> Tensor:
    q, k, v = layer.self_attn.project(layer.input_layernorm(x), table)
    return layer.feed(x, layer.self_attn.mix(q, k, v, bias))
