"""The state dict of a DINOv2 (timm's ViT with registers) -> the expert's vision tower.

The released code builds its tower with timm, so the numbers come over as timm takes them: the grid of positions is
resampled to the tower's own (bicubic, with antialiasing). The makers' own file says the same with other names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

from instructvla_model.manifest import CheckpointError
from instructvla_model.released.sources import TorchFile, open_floats

TOWER = "expert.film_vision_model.vision_model."
_FILM = re.compile(r"\.blocks\.\d+\.(scale|shift)\.")
_MASK = "mask_token"  # of its training; timm's files are without
_MEND = "give the file of vit_large_patch14_reg4_dinov2, or of the ViT that the preset describes"


@dataclass(frozen=True)
class Tower:
    """`tensors`: our name -> its numbers, mapped from `path`. `left`: names in the file that have no place here."""

    path: Path
    tensors: Mapping[str, Tensor]
    left: frozenset[str]


def read_tower(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tower:
    """All of the tower but FiLM, for the policy whose tensors have these names and `shapes`.

    Raises CheckpointError for a tensor that is missing or of another shape, with its name in the file.
    """
    found = _as_timm(_read(path), path)
    wanted = {name: _released(name) for name in shapes if name.startswith(TOWER) and not _FILM.search(name)}
    tensors = {}
    for ours, theirs in wanted.items():
        if theirs not in found:
            raise CheckpointError(f"{path} lacks tensor {theirs!r}; expected shape {shapes[ours]}; {_MEND}")
        tensor = found[theirs]
        if theirs == "pos_embed" and tensor.ndim == 3:
            tensor = resampled(tensor, math.isqrt(shapes[ours][1]), path)
        if tuple(tensor.shape) != shapes[ours]:
            raise CheckpointError(
                f"{path}: tensor {theirs!r} has shape {tuple(tensor.shape)}; expected {shapes[ours]}; {_MEND}"
            )
        tensors[ours] = tensor
    return Tower(path, tensors, frozenset(found.keys() - set(wanted.values())))


def _released(name: str) -> str:
    """timm's name for one of our tensors: FiLM stands beside its blocks here, and they one level deeper."""
    return name.removeprefix(TOWER).replace(".block.", ".", 1)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; expected the state dict of a DINOv2 (.safetensors, .pth or .bin); correct the path"
        )
    file = open_floats(path) if path.suffix == ".safetensors" else TorchFile(path)
    return {name: file.tensor(name) for name in sorted(file.names)}


def _as_timm(found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The makers' file has a position for the class token, first of all; timm keeps the two as one sum."""
    if "register_tokens" not in found:
        return found
    others = {name: tensor for name, tensor in found.items() if name not in ("register_tokens", _MASK)}
    nothing = found["register_tokens"].new_empty(0)
    token, positions = found.get("cls_token", nothing), found.get("pos_embed", nothing)
    if not token.ndim == positions.ndim == 3 or token.shape != positions[:, :1].shape:
        raise CheckpointError(f"{path}: 'cls_token' and 'pos_embed' do not go together; expected DINOv2's; {_MEND}")
    return others | {
        "reg_token": found["register_tokens"], "cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:],
    }  # fmt: skip


def resampled(positions_1PD: Tensor, side: int, path: Path) -> Tensor:
    """Positions of a square grid of patches -> of `side` x `side` patches [1, side^2, D], in the same number type.

    Raises CheckpointError for positions of no square grid.
    """
    n_patches = positions_1PD.shape[1]
    old = math.isqrt(n_patches)
    if old * old != n_patches or not old:
        raise CheckpointError(
            f"{path}: 'pos_embed' has {n_patches} positions; expected those of a square grid of patches, without the "
            f"class token's; {_MEND}"
        )
    if old == side:
        return positions_1PD
    grid_1DSS = positions_1PD.float().mT.unflatten(2, (old, old))
    resized_1DSS = interpolate(grid_1DSS, size=(side, side), mode="bicubic", antialias=True)
    return resized_1DSS.flatten(2).mT.to(positions_1PD.dtype)
