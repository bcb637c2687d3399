"""Pointing: a dense auxiliary signal that binds words to places in the image (used in training only).

Behaviour cloning alone teaches a small model how to move long before it teaches which object is meant. The
loss says how much of an attention row falls on the patches that show the object: -log of that mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


@dataclass(frozen=True)
class Whereabouts:
    """Where things are in the expert's frames. ``symmetry_B``: turns of the target that look alike (cubes 4,
    long things 2, round ones 0, which have no heading)."""

    xyz_BR3: Tensor  # of the roles' objects, metres, bench frame
    yaw_B: Tensor  # of the target, radians
    symmetry_B: Tensor
    ee_xyz_B3: Tensor  # metres, bench frame
    ee_yaw_B: Tensor


class LocationHead(nn.Module):
    """Reads metres and headings from the expert's tokens: where the target and the place are, how the target
    lies, and both as seen from the gripper.

    ``seen``: from the vision tokens that show an object; ``meant``: from the mean latent row after the layer
    that looks. Pointing says which patch; this makes the patch carry its place on the table, so that the
    actions need no more than a difference.
    """

    CENTRE_M = (0.29, 0.0, 0.05)
    UNIT_M = 0.1

    def __init__(self, width: int, roles: int = 2):
        super().__init__()
        self.roles = roles
        self.seen = nn.ModuleList(nn.Linear(width, 3) for _ in range(roles))
        self.seen_heading = nn.Linear(width, 2)
        self.meant = nn.Linear(width, 3 * roles + 3 + 4)

    def losses(
        self, vision_BVD: Tensor, latent_BND: Tensor, hits_RBV: list[Tensor], where: Whereabouts
    ) -> tuple[Tensor, Tensor]:
        """Smooth L1 over everything that is in view, and the mean error of the target's xy in metres."""
        target_BR3 = (where.xyz_BR3 - where.xyz_BR3.new_tensor(self.CENTRE_M)) / self.UNIT_M
        way_B3 = (where.xyz_BR3[:, 0] - where.ee_xyz_B3) / self.UNIT_M
        heading_B2 = _heading(where.yaw_B, where.symmetry_B)
        turn_B2 = _heading(where.yaw_B - where.ee_yaw_B, where.symmetry_B)
        counted_B = hits_RBV[0].any(-1)
        lies_B = counted_B & (where.symmetry_B > 0)
        *meant_R3, way, heading, turn = self.meant(latent_BND.mean(1)).float().split([3] * self.roles + [3, 2, 2], -1)
        loss = _smooth(way, way_B3, counted_B)
        loss = loss + _smooth(heading, heading_B2, lies_B) + _smooth(turn, turn_B2, lies_B)
        seen_BV2 = self.seen_heading(vision_BVD).float()
        loss = loss + _smooth(seen_BV2, heading_B2[:, None].expand_as(seen_BV2), hits_RBV[0] & lies_B[:, None])
        for role in range(self.roles):
            hit_BV = hits_RBV[role]
            guess_BV3 = self.seen[role](vision_BVD).float()
            loss = loss + _smooth(guess_BV3, target_BR3[:, role, None].expand_as(guess_BV3), hit_BV)
            loss = loss + _smooth(meant_R3[role], target_BR3[:, role], hit_BV.any(-1))
        error_B = (meant_R3[0] - target_BR3[:, 0])[:, :2].detach().norm(dim=-1) * self.UNIT_M
        return loss, (error_B * counted_B).sum() / counted_B.sum().clamp(min=1)


def _heading(yaw_B: Tensor, symmetry_B: Tensor) -> Tensor:
    """An angle as a point on the circle that is the same for headings that look alike."""
    return torch.stack([torch.cos(symmetry_B * yaw_B), torch.sin(symmetry_B * yaw_B)], dim=-1)


def _smooth(guess_X3: Tensor, true_X3: Tensor, counted_X: Tensor) -> Tensor:
    loss_X = nn.functional.smooth_l1_loss(guess_X3, true_X3, beta=0.1, reduction="none").mean(-1)
    return (loss_X * counted_X).sum() / counted_X.sum().clamp(min=1)
