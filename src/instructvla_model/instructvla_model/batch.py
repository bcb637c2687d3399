"""Typed batches: what training and evaluation hand to the policy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

IGNORE = -100  # label of an unsupervised token


@dataclass(frozen=True)
class LanguageBatch:
    """Right-padded token sequences and the images they look at.

    Images come as pixels [I, 3, S, S] or as already encoded tokens [I, T, H] (a frozen tower can be
    cached). `image_index_B` names the image of each row, -1 for a text-only row; None means row i looks at
    image i. So several texts about one image cost one encoding.
    """

    input_ids_BS: Tensor  # int64
    attention_mask_BS: Tensor  # bool or int, ones first: right-padded
    labels_BS: Tensor | None = None  # int64, IGNORE where unsupervised, same positions as input_ids
    pixels_ICHW: Tensor | None = None
    image_tokens_ITH: Tensor | None = None
    image_index_B: Tensor | None = None

    @property
    def size(self) -> int:
        return int(self.input_ids_BS.shape[0])


@dataclass(frozen=True)
class ActionBatch:
    """Frames for the expert. `context_index_B` names the language row whose latents each frame uses."""

    pixels_BVCHW: Tensor
    actions_BFA: Tensor  # normalised to [-1, 1]
    state_BS: Tensor | None = None  # normalised
    context_index_B: Tensor | None = None
    inside_BF: Tensor | None = None  # bool: False for steps past the episode's end


@dataclass(frozen=True)
class PolicyBatch:
    language: LanguageBatch
    action: ActionBatch | None = None


@dataclass(frozen=True)
class Losses:
    """Scalars; `total` = lm + fm, one to one."""

    total: Tensor
    lm: Tensor
    fm: Tensor
