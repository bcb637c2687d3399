"""Pointing: a dense auxiliary signal that binds words to places in the image (used in training only).

Behaviour cloning alone teaches a small model how to move long before it teaches which object is meant. The
loss says how much of an attention row falls on the patches that show the object: -log of that mass.
"""

from __future__ import annotations

from torch import Tensor, nn


def mass_loss(logits_BNP: Tensor, hit_BP: Tensor) -> Tensor:
    """Mean of -log(softmax mass on the patches ``hit``), over the rows of samples with any hit.

    ``logits_BNP``: attention logits of N queries over P keys; ``hit_BP``: bool, keys of the object.
    Samples in which no key is hit (object hidden) do not count. Returns 0 where none counts.
    """
    log_p_BNP = logits_BNP.float().log_softmax(-1)
    masked = log_p_BNP.masked_fill(~hit_BP[:, None, :], -1e4)
    loss_BN = -masked.logsumexp(-1)
    counts_B = hit_BP.any(-1)
    weight = counts_B.float()[:, None].expand_as(loss_BN)
    return (loss_BN * weight).sum() / weight.sum().clamp(min=1.0)


def hit_rate(logits_BNP: Tensor, hit_BP: Tensor) -> Tensor:
    """Share of samples (with any hit) whose strongest key, over the mean of the queries, is the object's."""
    best_B = logits_BNP.float().softmax(-1).mean(1).argmax(-1)
    right = hit_BP.gather(1, best_B[:, None])[:, 0]
    counted = hit_BP.any(-1)
    return (right & counted).sum() / counted.sum().clamp(min=1)


def patches_of(grid_BHW: Tensor, object_B: Tensor) -> Tensor:
    """(B, H·W) bool: the patches that show ``object`` (negative index: none)."""
    flat = grid_BHW.flatten(1).long()
    return (flat == object_B[:, None]) & (object_B[:, None] >= 0)


def pool_grid(hit_BP: Tensor, factor: int) -> Tensor:
    """Hits on a grid ``factor`` times coarser: a cell is hit where any of its patches is."""
    side = int(hit_BP.shape[1] ** 0.5)
    cells = hit_BP.view(-1, side // factor, factor, side // factor, factor)
    return cells.any(4).any(2).flatten(1)


class PointingHead(nn.Module):
    """Scaled dot product of query hidden states with image-token hidden states of the VLM, one per role.

    Roles: the object to take and the place to bring it to.
    """

    def __init__(self, width: int, dim: int = 64, roles: int = 2):
        super().__init__()
        self.query = nn.ModuleList(nn.Linear(width, dim) for _ in range(roles))
        self.key = nn.Linear(width, dim)
        self.scale = dim**-0.5

    def forward(self, query_BND: Tensor, image_BPD: Tensor, role: int) -> Tensor:
        return self.query[role](query_BND) @ self.key(image_BPD).transpose(1, 2) * self.scale
