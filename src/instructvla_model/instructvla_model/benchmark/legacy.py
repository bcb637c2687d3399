"""The released code's schedule, restated over the same weights as plain PyTorch layers, for comparison only.

What it does and this library does not: all blocks of the expert's vision tower and their norm; the whole sequence in
every Euler step, attention weights in full; prompt, text and queries from the start for latents, twice; logits of
every position. Results are the same up to rounding. (Of the VLM there is one copy, prepared as ours.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructvla_model.adapters import AdapterMix
from instructvla_model.benchmark.model import Call
from instructvla_model.benchmark.stages import ExpertStages, LanguageStages
from instructvla_model.benchmark.whole import RecomputedExpert
from instructvla_model.rope import rotate
from instructvla_model.trunk import Layer, Table


def language_calls(stages: LanguageStages) -> dict[str, Call]:
    """Latents without text and after it. With text the image is encoded again as well."""
    bench = stages.bench

    def after_text() -> Tensor:
        image_tokens = bench.vlm.encode_images(bench.pixels)
        return _two_passes(stages, image_tokens, bench.prompt_ids, bench.text_ids, bench.query_ids)

    return {
        "latents": lambda: _two_passes(stages, stages.image_tokens, bench.prompt_ids, bench.query_ids),
        "latents-after-text": after_text,
    }


def _two_passes(stages: LanguageStages, image_tokens: Tensor, *ids: Tensor) -> Tensor:
    """Both passes over the whole sequence, with logits of every position -> hidden states at the queries."""
    vlm = stages.bench.vlm
    embeds = vlm.embed(torch.cat(ids, dim=1), image_tokens)
    if vlm.gate is not None and vlm.mode == "gated":
        hidden = vlm.gate_inputs(embeds)
        vlm.logits(hidden)
        mix: AdapterMix | None = AdapterMix(vlm.config.adapters.names, vlm.gate(hidden))
    else:
        mix = vlm.mix_for(embeds)
    hidden = vlm.hidden(embeds, mix)
    vlm.logits(hidden)
    return hidden[:, -vlm.config.n_queries :]


def expert_calls(stages: ExpertStages) -> dict[str, Call]:
    """The vision tower to its end, and the flow over the whole sequence in every step."""
    bench = stages.bench

    def run(vision_BPD: Tensor) -> Tensor:
        return RecomputedExpert(bench, bench.whole, vision_BPD, _layer, _norm).sample(bench.noise)

    return {
        "dino-film": lambda: _see(stages),
        "flow-loop": lambda: run(stages.vision_1PD),
        "chunk": lambda: run(_see(stages)),
    }


def _see(stages: ExpertStages) -> Tensor:
    """Every block, and the norm that nothing reads; features are those of the block that is read."""
    bench, vision = stages.bench, stages.bench.whole.film_vision_model
    tower, film, n_views = vision.vision_model, bench.config.film, len(bench.config.views)
    condition = bench.latents.mean(dim=1).repeat_interleave(n_views, dim=0)
    patches = tower(bench.views.flatten(0, 1), condition)
    others = patches.new_zeros(patches.shape[0], 1 + film.n_registers, patches.shape[-1])
    x = torch.cat([others, patches], dim=1)
    for block in tower.blocks[film.blocks_used :]:
        x = block(x, condition)
    if tower.norm is not None and not film.final_norm:
        tower.norm(x)
    return bench.whole.visual_projector(vision.arrange(patches, n_views))


def _layer(layer: Layer, x: Tensor, bias: Tensor, table: Table) -> Tensor:
    attn, normed = layer.self_attn, _norm(layer.input_layernorm, x)
    B, S, _ = x.shape
    q, k, v = (
        linear(normed).view(B, S, attn.n_heads, attn.head_dim).transpose(1, 2)
        for linear in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    q, k = rotate(q, table), rotate(k, table)
    logits = torch.matmul(q, k.transpose(2, 3)) * attn.head_dim**-0.5 + bias
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(q.dtype)
    x = x + attn.o_proj(torch.matmul(weights, v).transpose(1, 2).reshape(B, S, -1))
    return x + layer.mlp(_norm(layer.post_attention_layernorm, x))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """RMS normalisation in elementary operations, in fp32."""
    wide = x.float()
    unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return norm.get_parameter("weight") * unit.to(x.dtype)
