"""The released code's schedule, restated with this library's weights, for comparison only.

What it does and this library does not: all blocks of the expert's vision tower and their norm; the whole sequence in
every Euler step, attention weights in full; prompt, text and queries from the start for latents, twice; logits of
every position. Results are the same up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructvla_model import flow
from instructvla_model.adapters import AdapterMix
from instructvla_model.benchmark.stages import Call, Stages
from instructvla_model.expert import ActionExpert
from instructvla_model.rope import rope_table, rotate
from instructvla_model.trunk import Layer, block_bias


class LegacySchedule:
    """Calls under the names of `Stages` that the released code's schedule also has."""

    def __init__(self, stages: Stages) -> None:
        self._stages, self._bench = stages, stages.bench

    def calls(self) -> dict[str, Call]:
        calls = {
            "latents": self.latents,
            "latents after text": self.latents_after_text,
            "DINO + FiLM": self.see,
            "trunk and flow loop": self.flow,
            "expert, whole chunk": self.chunk,
        }
        return {name: torch.inference_mode()(call) for name, call in calls.items()}

    # ---- language model ---------------------------------------------------------------------------------

    def _passes(self, image_tokens: Tensor, *ids: Tensor) -> Tensor:
        """Both passes over the whole sequence, with logits of every position -> hidden states at the queries."""
        vlm = self._bench.vlm
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

    def latents(self) -> Tensor:
        return self._passes(self._stages.image_tokens, self._bench.prompt_ids, self._bench.query_ids)

    def latents_after_text(self) -> Tensor:
        """The text becomes part of a new prompt; the image is encoded again as well."""
        bench = self._bench
        image_tokens = bench.vlm.encode_images(bench.pixels)
        return self._passes(image_tokens, bench.prompt_ids, bench.text_ids, bench.query_ids)

    # ---- expert ------------------------------------------------------------------------------------------

    def see(self) -> Tensor:
        """Every block, and the norm that nothing reads; features are those of the block that is read."""
        bench, vision = self._bench, self._bench.expert.film_vision_model
        tower, film = vision.vision_model, bench.config.film
        condition = self._stages.latents_1NH.mean(dim=1).repeat_interleave(len(bench.config.views), dim=0)
        patches = tower(bench.views.flatten(0, 1), condition)
        others = patches.new_zeros(patches.shape[0], 1 + film.n_registers, patches.shape[-1])
        x = torch.cat([others, patches], dim=1)
        for block in tower.blocks[film.blocks_used :]:
            x = block(x, condition)
        if tower.norm is not None and not film.final_norm:
            tower.norm(x)
        return bench.expert.visual_projector(vision.arrange(patches, len(bench.config.views)))

    def flow(self) -> Tensor:
        stages, bench = self._stages, self._bench
        expert = _WholeSequence(bench.expert, stages.vision_1PD, stages.latents_1NH, bench.state)
        prefix = bench.expert.prefix_of(stages.vision_1PD[:, :1], stages.latents_1NH[:, :1], bench.state)
        return flow.sample(expert, prefix, noise_BKFA=bench.noise)  # type: ignore[arg-type]

    def chunk(self) -> Tensor:
        self.see()
        return self.flow()


class _WholeSequence:
    """An expert whose every velocity is a forward over the whole sequence."""

    def __init__(self, expert: ActionExpert, vision: Tensor, latents: Tensor, state: Tensor | None) -> None:
        self.config, self._expert = expert.config, expert
        parts = [vision, expert.cog_projector(latents)]
        if expert.state_embed is not None:
            parts.append(expert.state_embed(state)[:, None])
        self._prefix = torch.cat(parts, dim=1)
        self._n_vision = vision.shape[1]

    def velocity(self, _: object, noisy_BKFA: Tensor, time_BK: Tensor) -> Tensor:
        expert, (B, K, F, A) = self._expert, noisy_BKFA.shape
        action = expert.action_embed(noisy_BKFA.to(self._prefix.dtype), time_BK)[:, 0]
        states = self._trunk(torch.cat([self._prefix, action], dim=1))[:, -F:]
        return expert.action_head(states.reshape(B, K, -1)).float().view(B, K, F, A)

    def _trunk(self, x: Tensor) -> Tensor:
        config, trunk = self.config.expert, self._expert.VideoGPT.model
        n_latent = self._prefix.shape[1] - self._n_vision
        bias = block_bias(self._n_vision, n_latent, x.shape[1] - self._prefix.shape[1], x.device)
        if config.attention == "block_causal":
            bias = torch.where(bias > 0, 0.0, float("-inf"))
        positions = torch.arange(x.shape[1], device=x.device)
        table = rope_table(positions, config.dim // config.n_heads, config.rope_theta, x.dtype)
        for layer in trunk.layers:
            assert isinstance(layer, Layer)
            x = _layer(layer, x, bias.to(x.dtype), table)
        return _norm(trunk.norm, x)


def _layer(layer: Layer, x: Tensor, bias: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
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
