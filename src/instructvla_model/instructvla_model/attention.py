"""One attention function for every module, and its registration with transformers.

PyTorch's fused CPU kernel is the fastest in inference, but its backward in bfloat16 is about three
times slower than plain matrix products at the sizes trained here (measured on AVX512-bf16). So while
gradients are wanted on a CPU the plain form is used; everywhere else scaled_dot_product_attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "instructvla"


def _plain(q_BHQD: Tensor, k_BHKD: Tensor, v_BHKD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    logits_BHQK = torch.matmul(q_BHQD * scale, k_BHKD.transpose(-1, -2))
    if mask is not None:
        if mask.dtype == torch.bool:
            logits_BHQK = logits_BHQK.masked_fill(~mask, float("-inf"))
        else:
            logits_BHQK = logits_BHQK + mask
    return torch.matmul(torch.softmax(logits_BHQK, dim=-1).to(v_BHKD.dtype), v_BHKD)


def attend(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attention with H query heads over G key/value heads (G divides H) -> [B, H, Q, D].

    `mask` broadcasts to [B, H, Q, K]: boolean (True = may look) or additive float. `is_causal` requires
    Q == K. `dropout` acts on the attention weights and is the caller's to switch off outside training.
    """
    groups = q_BHQD.shape[1] // k_BGKD.shape[1]
    if groups > 1:
        k_BGKD = k_BGKD.repeat_interleave(groups, dim=1)
        v_BGKD = v_BGKD.repeat_interleave(groups, dim=1)
    scale = q_BHQD.shape[-1] ** -0.5 if scale is None else scale
    plain = q_BHQD.device.type == "cpu" and dropout == 0.0 and torch.is_grad_enabled() and v_BGKD.requires_grad
    if plain:
        if is_causal:
            length = q_BHQD.shape[2]
            mask = torch.ones(length, length, dtype=torch.bool, device=q_BHQD.device).tril()
        return _plain(q_BHQD, k_BGKD, v_BGKD, mask, scale)
    return F.scaled_dot_product_attention(
        q_BHQD, k_BGKD, v_BGKD, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale
    )


def _transformers_entry(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`attend` behind the signature transformers calls its attention functions with."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    out_BHQD = attend(query, key, value, mask=attention_mask, is_causal=causal, dropout=dropout, scale=scaling)
    return out_BHQD.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make `attend` known to transformers (idempotent) and return the implementation's name."""
    AttentionInterface.register(NAME, _transformers_entry)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
