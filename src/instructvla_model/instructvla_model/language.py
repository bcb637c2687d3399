"""Qwen2 of transformers with adapters: the modules, the masks and the cache are its own; only the three
forwards through which the adapter mix must travel are written here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.cache_utils import Cache, DynamicCache
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2MLP,
    apply_rotary_pos_emb,
)

from instructvla_model import attention
from instructvla_model.adapters import AdapterMix, wrap_linears
from instructvla_model.config import AdapterConfig, LanguageConfig
from instructvla_model.norm import RMSNorm


class _Attention(Qwen2Attention):
    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        mix: AdapterMix | None = None,
        **_: Any,
    ) -> Tensor:
        B, S, _H = hidden_states.shape
        q_BHSD = self.q_proj(hidden_states, mix).view(B, S, -1, self.head_dim).transpose(1, 2)
        k_BGSD = self.k_proj(hidden_states, mix).view(B, S, -1, self.head_dim).transpose(1, 2)
        v_BGSD = self.v_proj(hidden_states, mix).view(B, S, -1, self.head_dim).transpose(1, 2)
        cos, sin = (table.to(q_BHSD.dtype) for table in position_embeddings)
        q_BHSD, k_BGSD = apply_rotary_pos_emb(q_BHSD, k_BGSD, cos, sin)
        if past_key_values is not None:
            k_BGSD, v_BGSD = past_key_values.update(k_BGSD, v_BGSD, self.layer_idx)
        out_BHSD = attention.attend(
            q_BHSD, k_BGSD, v_BGSD, mask=attention_mask, is_causal=attention_mask is None and S > 1
        )
        return self.o_proj(out_BHSD.transpose(1, 2).reshape(B, S, -1), mix)


class _MLP(Qwen2MLP):
    def forward(self, x: Tensor, mix: AdapterMix | None = None) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x, mix), mix)


class _DecoderLayer(Qwen2DecoderLayer):
    input_layernorm: nn.Module  # type: ignore[assignment]
    post_attention_layernorm: nn.Module  # type: ignore[assignment]

    def __init__(self, config: Qwen2Config, layer_idx: int, adapters: AdapterConfig) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = _Attention(config, layer_idx)
        self.mlp = _MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        wrap_linears(self.self_attn, adapters)
        wrap_linears(self.mlp, adapters)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, mix: AdapterMix | None = None, **kwargs: Any
    ) -> Tensor:
        x = hidden_states
        x = x + self.self_attn(self.input_layernorm(x), mix=mix, **kwargs)
        return x + self.mlp(self.post_attention_layernorm(x), mix)


def qwen2_config(config: LanguageConfig) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        max_position_embeddings=config.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=config.rms_eps,
        tie_word_embeddings=config.tie_embeddings,
        initializer_range=config.initializer_range,
        use_cache=False,
        attn_implementation=attention.register(),  # type: ignore[call-arg]
    )


def build_language_model(config: LanguageConfig, adapters: AdapterConfig) -> Qwen2ForCausalLM:
    """Randomly initialised Qwen2 whose target linears can carry adapters; no download."""
    hf_config = qwen2_config(config)
    model = Qwen2ForCausalLM(hf_config)
    model.model.layers = nn.ModuleList(_DecoderLayer(hf_config, i, adapters) for i in range(config.n_layers))
    model.model.norm = RMSNorm(config.hidden_size, config.rms_eps)
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def new_cache(model: Qwen2ForCausalLM) -> DynamicCache:
    return DynamicCache(config=model.config)


def run(
    model: Qwen2ForCausalLM,
    embeds_BSH: Tensor,
    mix: AdapterMix | None = None,
    cache: Cache | None = None,
    position: int | None = None,
) -> Tensor:
    """Final-norm hidden states [B, S, H] of `embeds_BSH`, appended to `cache` where one is given.

    Batches are right-padded, and a causal model never lets a real token see what stands to its right:
    so no padding mask is needed, and the rows of padding tokens are to be ignored by the caller.

    `position` of the first token, where the cache's length does not tell it because another stream is in there as
    well: a token then sees all that was cached before, and the new ones up to itself.
    """
    options: dict[str, Tensor] = {}
    if cache is not None and position is not None:
        S, past, device = embeds_BSH.shape[1], cache.get_seq_length(), embeds_BSH.device
        mask_SK = torch.ones(S, past + S, dtype=torch.bool, device=device).tril(past)
        options = {
            "attention_mask": mask_SK[None, None],
            "position_ids": torch.arange(position, position + S, device=device)[None],
        }
    out = model.model(inputs_embeds=embeds_BSH, past_key_values=cache, use_cache=cache is not None, mix=mix, **options)
    hidden_BSH = out.last_hidden_state
    assert isinstance(hidden_BSH, torch.Tensor)
    return hidden_BSH
