"""DINOv2-type vision transformer with FiLM conditioning on the mean latent.

Parameter names inside `block` are timm's; FiLM's `scale` and `shift` stand beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructvla_model.attention import attend
from instructvla_model.config import FilmVitConfig
from instructvla_model.stem import patch_embedding, pixel_shuffle


class PatchEmbed(nn.Module):
    def __init__(self, config: FilmVitConfig) -> None:
        super().__init__()
        self.proj = patch_embedding(config.dim, config.patch_size, config.stem_layers)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.proj(pixels_BCHW).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        B, S, D = x_BSD.shape
        q, k, v = self.qkv(x_BSD).view(B, S, 3, self.n_heads, D // self.n_heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(B, S, D))


class Mlp(nn.Module):
    def __init__(self, dim: int, mlp_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, mlp_size)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(mlp_size, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.to(x.dtype)


class Block(nn.Module):
    """The two residual branches; FilmBlock composes them."""

    def __init__(self, config: FilmVitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.attn = Attention(config.dim, config.n_heads)
        self.ls1 = LayerScale(config.dim, config.layer_scale_init)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(config.dim, config.mlp_size)
        self.ls2 = LayerScale(config.dim, config.layer_scale_init)

    def attend(self, x_BSD: Tensor) -> Tensor:
        return self.ls1(self.attn(self.norm1(x_BSD)))

    def feed(self, x_BSD: Tensor) -> Tensor:
        return self.ls2(self.mlp(self.norm2(x_BSD)))


class FilmBlock(nn.Module):
    """x <- x + attention(x); x <- x * (1 + gamma(c)) + beta(c); x <- x + mlp(x), on every token."""

    def __init__(self, config: FilmVitConfig, condition_dim: int) -> None:
        super().__init__()
        self.block = Block(config)
        self.scale = nn.Linear(condition_dim, config.dim)
        self.shift = nn.Linear(condition_dim, config.dim)
        if config.film_init_std is not None:
            for layer in (self.scale, self.shift):
                nn.init.normal_(layer.weight, std=config.film_init_std)
                nn.init.zeros_(layer.bias)

    def forward(self, x_BSD: Tensor, condition_BH: Tensor) -> Tensor:
        x_BSD = x_BSD + self.block.attend(x_BSD)
        gain_B1D = 1.0 + self.scale(condition_BH)[:, None].to(x_BSD.dtype)
        x_BSD = torch.addcmul(self.shift(condition_BH)[:, None].to(x_BSD.dtype), x_BSD, gain_B1D)
        return x_BSD + self.block.feed(x_BSD)


class FilmVisionTransformer(nn.Module):
    """Class token, registers, patches; output: patch tokens after the last used block."""

    def __init__(self, config: FilmVitConfig, condition_dim: int) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.reg_token = nn.Parameter(torch.empty(1, config.n_registers, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, config.patches_per_side**2, dim))
        for parameter in (self.cls_token, self.reg_token, self.pos_embed):
            nn.init.normal_(parameter, std=0.02)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(FilmBlock(config, condition_dim) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps) if config.has_norm else None

    def forward(self, pixels_BCHW: Tensor, condition_BH: Tensor) -> Tensor:
        patches_BPD = self.patch_embed(pixels_BCHW)
        B, dtype = patches_BPD.shape[0], patches_BPD.dtype
        patches_BPD = patches_BPD + self.pos_embed.to(dtype)
        prefix_1QD = torch.cat([self.cls_token, self.reg_token], dim=1).to(dtype)
        x_BSD = torch.cat([prefix_1QD.expand(B, -1, -1), patches_BPD], dim=1)
        for block in self.blocks[: self.config.blocks_used]:
            x_BSD = block(x_BSD, condition_BH)
        if self.config.final_norm and self.norm is not None:
            x_BSD = self.norm(x_BSD)
        return x_BSD[:, prefix_1QD.shape[1] :]


class FilmVisionModel(nn.Module):
    """Encode every view under FiLM from the mean latent, and interleave the views patch by patch."""

    def __init__(self, config: FilmVitConfig, condition_dim: int) -> None:
        super().__init__()
        self.side, self.shuffle, self.conditioned = config.patches_per_side, config.shuffle, config.conditioned
        self.vision_model = FilmVisionTransformer(config, condition_dim)

    def forward(self, pixels_BVCHW: Tensor, latents_BNH: Tensor) -> Tensor:
        """-> [B, P * V, token_dim]; token p * V + v is patch (or cell of patches) p of view v."""
        V = pixels_BVCHW.shape[1]
        condition_BH = latents_BNH.mean(dim=1) if self.conditioned else torch.zeros_like(latents_BNH[:, 0])
        condition_XH = condition_BH.repeat_interleave(V, dim=0)
        return self.arrange(self.vision_model(pixels_BVCHW.flatten(0, 1), condition_XH), V)

    def arrange(self, tokens_XPD: Tensor, n_views: int) -> Tensor:
        """Patches of all views, view by view -> cells of patches, views interleaved."""
        if self.shuffle > 1:
            grid_XHWD = tokens_XPD.reshape(-1, self.side, self.side, tokens_XPD.shape[-1])
            tokens_XPD = pixel_shuffle(grid_XHWD, self.shuffle).flatten(1, 2)
        X, P, D = tokens_XPD.shape
        B = X // n_views
        return tokens_XPD.view(B, n_views, P, D).transpose(1, 2).reshape(B, P * n_views, D)
