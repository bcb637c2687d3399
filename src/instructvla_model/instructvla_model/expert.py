"""The action expert: pixels, latents and state -> velocity of a noisy action chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instructvla_model.config import PolicyConfig
from instructvla_model.film_vit import FilmVisionModel
from instructvla_model.trunk import KeyValues, Opening, Trunk

Probe = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class ExpertPrefix:
    """The part of the expert's sequence that does not depend on the actions."""

    tokens_BPD: Tensor
    n_vision: int
    n_latent: int  # latents and the state token
    key_values: KeyValues | None  # block_causal
    opening: Opening | None = None  # additive_bias
    probe_logits_BHNP: Tensor | None = None
    probe_states_BND: Tensor | None = None


def mlp2(inputs: int, width: int) -> nn.Sequential:
    """Linear, SiLU, Linear (parameters under 0 and 2)."""
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def time_embedding(time_X: Tensor, dim: int, max_period: float) -> Tensor:
    """[sin(t f), cos(t f)], f_i = max_period^(-i / (dim/2 - 1)): [...] -> [..., dim], fp32."""
    half = dim // 2
    index = torch.arange(half, device=time_X.device, dtype=torch.float32)
    frequency_D2 = torch.exp(-math.log(max_period) * index / (half - 1))
    angle_XD2 = time_X.float()[..., None] * frequency_D2
    return torch.cat([angle_XD2.sin(), angle_XD2.cos()], dim=-1)


class ActionEmbed(nn.Module):
    """Noisy action and time, one token per step: Linear, [time, action], Linear, SiLU, Linear."""

    def __init__(self, action_dim: int, dim: int, max_period: float) -> None:
        super().__init__()
        self.dim, self.max_period = dim, max_period
        self.linear_1 = nn.Linear(action_dim, dim)
        self.linear_2 = nn.Linear(2 * dim, dim)
        self.linear_3 = nn.Linear(dim, dim)

    def forward(self, actions_BKFA: Tensor, time_BK: Tensor) -> Tensor:
        action_BKFD = self.linear_1(actions_BKFA)
        time_BKD = time_embedding(time_BK, self.dim, self.max_period).to(action_BKFD.dtype)
        time_BKFD = time_BKD[:, :, None].expand_as(action_BKFD)
        return self.linear_3(nn.functional.silu(self.linear_2(torch.cat([time_BKFD, action_BKFD], dim=-1))))


class _Backbone(nn.Module):
    """Holds the trunk under the parameter prefix `VideoGPT.model` of the released checkpoints."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.model = trunk


class ActionExpert(nn.Module):
    """Flow-matching expert. Token order: vision (views interleaved), latents, state, action."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        expert, hidden = config.expert, config.language.hidden_size
        D = expert.dim
        self.film_vision_model = FilmVisionModel(config.film, hidden)
        self.visual_projector = mlp2(config.film.token_dim, D)
        self.cog_projector = mlp2(hidden, D)
        self.state_embed = mlp2(expert.state_dim, D) if expert.state_dim else None
        self.action_embed = ActionEmbed(expert.action_dim, D, expert.time_max_period)
        self.VideoGPT = _Backbone(Trunk(expert))
        w0, w1, w2 = expert.head_widths
        self.action_head = nn.Sequential(
            nn.Linear(D * expert.horizon, w0), nn.SiLU(), nn.Linear(w0, w1), nn.SiLU(),
            nn.Linear(w1, w2), nn.SiLU(), nn.Linear(w2, expert.action_dim * expert.horizon),
        )  # fmt: skip

    def encode_prefix(
        self,
        pixels_BVCHW: Tensor,
        latents_BNH: Tensor,
        state_BS: Tensor | None = None,
        probe: Probe | None = None,
    ) -> ExpertPrefix:
        """Everything that the actions do not change, computed once per context.

        `probe` = (layer, head indices) also returns the attention logits [B, heads, N, P] of the latent
        rows over all prefix keys (vision first), before softmax, and the latent rows that leave the layer;
        block_causal only.
        """
        self._check(pixels_BVCHW, state_BS)
        return self.prefix_of(self.see(pixels_BVCHW, latents_BNH), latents_BNH, state_BS, probe)

    def see(self, pixels_BVCHW: Tensor, latents_BNH: Tensor) -> Tensor:
        """Vision tokens [B, P, D] of all views under FiLM; none without the image stream."""
        if not self.config.expert.image_stream:
            return latents_BNH.new_zeros(len(latents_BNH), 0, self.config.expert.dim)
        return self.visual_projector(self.film_vision_model(pixels_BVCHW, latents_BNH))

    def prefix_of(
        self, vision_BPD: Tensor, latents_BNH: Tensor, state_BS: Tensor | None = None, probe: Probe | None = None
    ) -> ExpertPrefix:
        """The prefix of vision tokens (see `encode_prefix`)."""
        parts = [vision_BPD, self.cog_projector(latents_BNH)]
        if self.state_embed is not None:
            parts.append(self.state_embed(state_BS)[:, None])
        tokens_BPD = torch.cat([part.to(vision_BPD.dtype) for part in parts], dim=1)
        n_vision = vision_BPD.shape[1]
        n_latent = tokens_BPD.shape[1] - n_vision
        if self.config.expert.attention == "additive_bias":
            if probe is not None:
                raise ValueError("probe needs block_causal attention; this expert is additive_bias")
            opening = self.VideoGPT.model.open(tokens_BPD, n_vision, n_latent, self.config.expert.horizon)
            return ExpertPrefix(tokens_BPD, n_vision, n_latent, None, opening)
        key_values, logits, states = self.VideoGPT.model.prefix(tokens_BPD, n_vision, latents_BNH.shape[1], probe)
        return ExpertPrefix(tokens_BPD, n_vision, n_latent, key_values, None, logits, states)

    def velocity(self, prefix: ExpertPrefix, noisy_BKFA: Tensor, time_BK: Tensor) -> Tensor:
        """Velocity of K noisy chunks per context, fp32 [B, K, F, A]; time in [0, 1], 0 = noise."""
        B, K, F, A = noisy_BKFA.shape
        action_BKFD = self.action_embed(noisy_BKFA.to(self.action_embed.linear_1.weight.dtype), time_BK)
        trunk = self.VideoGPT.model
        if prefix.key_values is not None:
            x_BXD = action_BKFD.flatten(1, 2).to(prefix.tokens_BPD.dtype)
            states = trunk.suffix(x_BXD, prefix.key_values, K)
        else:
            assert prefix.opening is not None
            states = trunk.close(action_BKFD.flatten(0, 1).to(prefix.tokens_BPD.dtype), prefix.opening)
        flat_BKX = states.reshape(B, K, F * states.shape[-1])
        return self.action_head(flat_BKX).float().view(B, K, F, A)

    def _check(self, pixels_BVCHW: Tensor, state_BS: Tensor | None) -> None:
        size, views = self.config.film.image_size, len(self.config.views)
        shape = tuple(pixels_BVCHW.shape)
        if shape[1:] != (views, 3, size, size):
            raise ValueError(
                f"expert pixels have shape {shape}; expected (B, {views}, 3, {size}, {size}) "
                f"for views {self.config.views}; use the checkpoint's image recipe"
            )
        if (self.state_embed is None) != (state_BS is None):
            raise ValueError(
                f"state is {'missing' if state_BS is None else 'given'}; this checkpoint expects "
                f"{self.config.expert.state_dim} state numbers"
            )
