"""Vision of the VLM: SigLIP-type tower -> pixel shuffle -> projector."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from instructvla_model import attention
from instructvla_model.config import VisionConfig
from instructvla_model.stem import patch_embedding


class _Embeddings(SiglipVisionEmbeddings):
    """SigLIP's embeddings with the configured patch embedding; the stream keeps autocast's dtype."""

    patch_embedding: nn.Module  # type: ignore[assignment]

    def __init__(self, hf_config: SiglipVisionConfig, config: VisionConfig) -> None:
        super().__init__(hf_config)
        if config.stem_layers:
            self.patch_embedding = patch_embedding(config.hidden_size, config.patch_size, config.stem_layers)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        patches_BPC = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches_BPC + self.position_embedding.weight.to(patches_BPC.dtype)


def siglip_config(config: VisionConfig) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.layer_norm_eps,
        hidden_act=config.activation,
        vision_use_head=False,
        attn_implementation=attention.register(),  # type: ignore[call-arg]
    )


def build_vision_model(config: VisionConfig) -> SiglipVisionModel:
    """Randomly initialised SigLIP-type tower; no download."""
    hf_config = siglip_config(config)
    model = SiglipVisionModel(hf_config)
    model.embeddings = _Embeddings(hf_config, config)
    if config.stem_layers:
        nn.init.normal_(model.embeddings.position_embedding.weight, std=0.02)
    return model


def build_projector(config: VisionConfig, hidden_size: int) -> nn.Sequential:
    """`mlp1`: LayerNorm, Linear, GELU (erf), Linear; parameters under the keys 0, 1 and 3."""
    folded = config.hidden_size * config.shuffle**2
    return nn.Sequential(
        nn.LayerNorm(folded), nn.Linear(folded, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
    )
