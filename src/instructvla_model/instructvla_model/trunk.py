"""The expert's transformer: Llama-type layers under two attention regimes.

`block_causal` (the paper): the token blocks are vision, latents (with the state), action; a token sees
its own block and the earlier ones. The prefix (vision and latents) then never depends on the actions, so
its keys and values are computed once and any number of action groups attend to them, exactly.

`additive_bias` (the released checkpoints): +1 is added to the logits of the pairs allowed above and
nothing to the others, so everything sees everything. From the second layer on the prefix depends on the actions;
exactly cacheable are what the first layer projects from it, the rotation table and the bias. In the last layer only
the action rows are computed, since nothing reads the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instructvla_model.attention import attend
from instructvla_model.config import ExpertConfig
from instructvla_model.norm import RMSNorm
from instructvla_model.rope import rope_table, rotate

Table = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class KeyValues:
    """Rotated keys and values of the prefix, one pair per layer, each [B, H, P + room, head_dim].

    The room (in inference mode: for one action group) belongs to `suffix`, which writes there instead of making
    longer copies in every step.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    n_prefix: int


@dataclass(frozen=True)
class Opening:
    """What the actions leave unchanged under `additive_bias`: the prefix tokens [B, P, D] and their rotated queries,
    rotated keys and values in the first layer [B, H, P, head_dim]; the bias [P + F, P + F]; the actions' table."""

    tokens_BPD: Tensor
    first: tuple[Tensor, Tensor, Tensor]
    bias_SS: Tensor
    table: Table  # of all P + F positions


class SelfAttention(nn.Module):
    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.n_heads, self.head_dim = config.n_heads, config.dim // config.n_heads
        self.dropout = config.dropout
        self.q_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.o_proj = nn.Linear(config.dim, config.dim, bias=False)

    def project(self, x_BSD: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, values: each [B, H, S, head_dim]."""
        B, S, _ = x_BSD.shape
        q, k, v = (
            layer(x_BSD).view(B, S, self.n_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, table), rotate(k, table), v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return attend(q, k, v, mask=mask, dropout=dropout)

    def output(self, out_BHSD: Tensor) -> Tensor:
        return self.o_proj(out_BHSD.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.mlp_size, bias=False)
        self.up_proj = nn.Linear(config.dim, config.mlp_size, bias=False)
        self.down_proj = nn.Linear(config.mlp_size, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        if torch.is_grad_enabled():
            return self.down_proj(nn.functional.silu(gate) * self.up_proj(x))
        # the same numbers without two more buffers of this size, whose fresh pages cost as much as the arithmetic
        return self.down_proj(nn.functional.silu(gate, inplace=True).mul_(self.up_proj(x)))


class Layer(nn.Module):
    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.dim, config.rms_eps)
        self.post_attention_layernorm = RMSNorm(config.dim, config.rms_eps)

    def feed(self, x_BSD: Tensor, attended_BHSD: Tensor) -> Tensor:
        x_BSD = _sum(x_BSD, self.self_attn.output(attended_BHSD))
        return _sum(x_BSD, self.mlp(self.post_attention_layernorm(x_BSD)))


def _sum(x: Tensor, branch: Tensor) -> Tensor:
    """x + branch, in the branch's memory where no gradient and no other number type (autocast) forbids it."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)


def block_bias(n_vision: int, n_latent: int, n_action: int, device: torch.device) -> Tensor:
    """[S, S], 1.0 where the block-causal rule allows row to look at column, else 0.0."""
    position_S = torch.arange(n_vision + n_latent + n_action, device=device)
    block_S = (position_S >= n_vision).int() + (position_S >= n_vision + n_latent).int()
    return (block_S[:, None] >= block_S[None, :]).float()


def _with_room(x_BHSD: Tensor, room: int) -> Tensor:
    """The same with `room` unset rows behind it; itself for no room."""
    if not room:
        return x_BHSD
    B, H, S, D = x_BHSD.shape
    longer = x_BHSD.new_empty(B, H, S + room, D)
    longer[:, :, :S] = x_BHSD
    return longer


def _continued(held_BHSD: Tensor, new_BHSD: Tensor, n_held: int) -> Tensor:
    """The first `n_held` rows, then the new ones: in the room where they fill it, else a copy."""
    room = held_BHSD.shape[2] - n_held
    if room == new_BHSD.shape[2] and torch.is_inference_mode_enabled():
        held_BHSD[:, :, n_held:] = new_BHSD
        return held_BHSD
    return torch.cat([held_BHSD[:, :, :n_held], new_BHSD], dim=2)


class Trunk(nn.Module):
    """Layers and final norm (`layers.{i}`, `norm`)."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.rms_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)

    def _each(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _table(self, start: int, length: int, repeats: int, x: Tensor) -> Table:
        positions_S = torch.arange(start, start + length, device=x.device).repeat(repeats)
        head_dim = self.config.dim // self.config.n_heads
        return rope_table(positions_S, head_dim, self.config.rope_theta, x.dtype)

    def prefix(
        self, x_BPD: Tensor, n_vision: int, n_latent: int, probe: tuple[int, tuple[int, ...]] | None = None
    ) -> tuple[KeyValues, Tensor | None, Tensor | None]:
        """Keys and values of the prefix tokens [vision | latents | state] under `block_causal`.

        `probe` = (layer, heads): also the attention logits [B, heads, n_latent, P] of the latent rows over
        all prefix keys in that layer, before softmax, and the latent rows [B, n_latent, D] that leave the layer
        (None for the last one).
        """
        P = x_BPD.shape[1]
        table = self._table(0, P, 1, x_BPD)
        room = self.config.horizon if torch.is_inference_mode_enabled() else 0
        pairs: list[tuple[Tensor, Tensor]] = []
        logits, states = None, None
        for index, layer in enumerate(self._each()):
            attn = layer.self_attn
            q, k, v = attn.project(layer.input_layernorm(x_BPD), table)
            pairs.append((_with_room(k, room), _with_room(v, room)))
            if probe is not None and probe[0] == index:
                heads = list(probe[1])
                rows = q[:, heads, n_vision : n_vision + n_latent] * attn.head_dim**-0.5
                logits = rows @ k[:, heads].transpose(-1, -2)
            if index + 1 == len(self.layers):
                break  # nothing reads the prefix's own output of the last layer
            seen = attn.mix(q[:, :, :n_vision], k[:, :, :n_vision], v[:, :, :n_vision])
            later = attn.mix(q[:, :, n_vision:], k, v)
            x_BPD = layer.feed(x_BPD, torch.cat([seen, later], dim=2))
            if probe is not None and probe[0] == index:
                states = x_BPD[:, n_vision : n_vision + n_latent]
        return KeyValues(tuple(pairs), P), logits, states

    def suffix(self, x_BXD: Tensor, prefix: KeyValues, n_groups: int) -> Tensor:
        """Final-norm states of `n_groups` independent action groups [B, groups * F, D] over one prefix.

        Every group takes the same positions after the prefix and sees the prefix and itself.
        """
        start = prefix.n_prefix
        F = x_BXD.shape[1] // n_groups
        table = self._table(start, F, n_groups, x_BXD)
        mask = None
        if n_groups > 1:
            group_X = torch.arange(n_groups, device=x_BXD.device).repeat_interleave(F)
            own_XX = group_X[:, None] == group_X[None, :]
            mask = torch.cat([own_XX.new_ones(own_XX.shape[0], start), own_XX], dim=1)
        for layer, (prefix_k, prefix_v) in zip(self._each(), prefix.layers, strict=True):
            q, k, v = layer.self_attn.project(layer.input_layernorm(x_BXD), table)
            k, v = _continued(prefix_k, k, start), _continued(prefix_v, v, start)
            x_BXD = layer.feed(x_BXD, layer.self_attn.mix(q, k, v, mask))
        return self.norm(x_BXD)

    def open(self, x_BPD: Tensor, n_vision: int, n_latent: int, n_action: int) -> Opening:
        """Everything of `close` that does not depend on the actions; once for each context."""
        P = x_BPD.shape[1]
        table = self._table(0, P + n_action, 1, x_BPD)
        first = self._each()[0]
        projected = first.self_attn.project(first.input_layernorm(x_BPD), (table[0][:P], table[1][:P]))
        bias_SS = block_bias(n_vision, n_latent, n_action, x_BPD.device).to(x_BPD.dtype)
        return Opening(x_BPD, projected, bias_SS, table)

    def close(self, x_BFD: Tensor, opening: Opening) -> Tensor:
        """Final-norm states of the action rows [B, F, D] under `additive_bias`.

        B may be a multiple of the opening's: that many groups for each context, context by context.
        """
        groups = x_BFD.shape[0] // opening.tokens_BPD.shape[0]
        prefix, *first = (opening.tokens_BPD, *opening.first)
        if groups > 1:
            prefix, *first = (t.repeat_interleave(groups, dim=0) for t in (prefix, *first))
        P = prefix.shape[1]
        x_BSD = torch.cat([prefix, x_BFD], dim=1)
        rows = (opening.table[0][P:], opening.table[1][P:])
        layers = self._each()
        for index, layer in enumerate(layers):
            attn = layer.self_attn
            if index == 0:
                new = attn.project(layer.input_layernorm(x_BFD), rows)
                q, k, v = (torch.cat([old, added], dim=2) for old, added in zip(first, new, strict=True))
            else:
                q, k, v = attn.project(layer.input_layernorm(x_BSD), opening.table)
            bias_SS = opening.bias_SS
            if index + 1 == len(layers):
                q, x_BSD, bias_SS = q[:, :, P:], x_BSD[:, P:], bias_SS[P:]
            x_BSD = layer.feed(x_BSD, attn.mix(q, k, v, bias_SS))
        return self.norm(x_BSD)
