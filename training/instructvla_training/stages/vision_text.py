"""A batch of texts about images, and what the VLM's passes over it give: shared by the stages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instructvla_model.batch import LanguageBatch
from instructvla_model.image import ImageRecipe
from instructvla_model.policy import InstructVLA
from instructvla_model.prompts import Encoded, collate
from instructvla_training.data.episode_frames import PixelColumn
from instructvla_training.number_type import autocast
from instructvla_training.pointing import PointingHead, hit_rate, mass_loss, patches_of, pool_grid

logger = logging.getLogger(__name__)

ENCODE_AT_ONCE = 32
"""Images. Many at once are slower on a processor: each layer's activations are given new memory by the system."""


@dataclass(frozen=True)
class RoleTargets:
    """What latents should point at: the patch grid of each row's image and an object index for each role."""

    grid_BHW: Tensor  # uint8
    roles_BR: Tensor  # int64, negative: nothing


def language_batch(samples: Sequence[Encoded], pad_id: int, image_index: np.ndarray | None = None) -> LanguageBatch:
    """Collated texts; ``image_index`` (rows,) names each row's image, -1 for none."""
    batch = collate(samples, pad_id)
    index = None if image_index is None else torch.from_numpy(image_index.astype(np.int64))
    return replace(batch, image_index_B=index)


def encode_all(
    policy: InstructVLA, images: np.ndarray | PixelColumn, image_recipe: ImageRecipe, device: torch.device
) -> Tensor:
    """Image tokens of all uint8 ``images`` [I, H, W, 3], in bfloat16 [I, T, H]."""
    logger.info("encoding %d images", len(images))
    kept = []
    for start in range(0, len(images), ENCODE_AT_ONCE):
        pixels = image_recipe.normalize(torch.from_numpy(images[start : start + ENCODE_AT_ONCE]))
        with autocast(device):
            kept.append(policy.vlm.encode_images(pixels.to(device)).to(torch.bfloat16))
    return torch.cat(kept)


def hidden_states(policy: InstructVLA, batch: LanguageBatch, at_once: int | None = None) -> Tensor:
    """Final-norm hidden states [B, S, H]. ``at_once``: so many rows in a pass of the language model, none of which is
    carried on past the longest of them; what lies there is 0 then. None: all rows in one."""
    vlm = policy.vlm
    if at_once is None:
        return vlm.hidden_of(batch)
    embeds_BSH = vlm.embed_batch(batch)
    lengths_B = batch.attention_mask_BS.sum(dim=1)
    order_B = lengths_B.argsort()
    groups = []
    for rows in order_B.split(at_once):
        part = embeds_BSH[rows, : int(lengths_B[rows[-1]])]
        hidden = vlm.hidden(part, vlm.mix_for(part))
        groups.append(F.pad(hidden, (0, 0, 0, embeds_BSH.shape[1] - part.shape[1])))
    return torch.cat(groups)[order_B.argsort()]


def with_queries(policy: InstructVLA, ids_BS: Tensor) -> Tensor:
    """Indices of the rows that hold latent queries."""
    return torch.nonzero((ids_BS >= policy.vlm.first_query_id).any(1))[:, 0]


def image_states(policy: InstructVLA, hidden_BSH: Tensor, ids_BS: Tensor) -> Tensor:
    """Hidden states at the image tokens [B, T, H]; every row must hold one image."""
    at_BS = ids_BS == policy.vlm.image_token_id
    return hidden_BSH[at_BS].view(len(hidden_BSH), policy.config.vision.tokens_per_image, hidden_BSH.shape[-1])


def vlm_pointing(
    policy: InstructVLA, head: PointingHead, hidden_BSH: Tensor, ids_BS: Tensor, targets: RoleTargets
) -> tuple[Tensor, Tensor]:
    """Loss and hit rate of the latents pointing at image tokens, over both roles. Rows: images with queries."""
    latents_BNH = policy.vlm.latents_of(hidden_BSH, ids_BS)
    images_BTH = image_states(policy, hidden_BSH, ids_BS)
    losses, rates = [], []
    for role in range(targets.roles_BR.shape[1]):
        hit_BT = pool_grid(patches_of(targets.grid_BHW, targets.roles_BR[:, role]), pool_factor(policy, targets))
        logits_BNT = head(latents_BNH, images_BTH, role)
        losses.append(mass_loss(logits_BNT, hit_BT))
        rates.append(hit_rate(logits_BNT, hit_BT))
    return torch.stack(losses).sum(), rates[0]


def pool_factor(policy: InstructVLA, targets: RoleTargets) -> int:
    """How many grid patches make the side of one image token."""
    side = int(policy.config.vision.tokens_per_image**0.5)
    return targets.grid_BHW.shape[-1] // side
