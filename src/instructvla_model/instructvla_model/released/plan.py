"""Where each tensor of a new checkpoint comes from: a released file, an adapter folder, a DINOv2, or fresh numbers.

Every tensor of the source is used or skipped by a rule with a name; every tensor of the policy is found or named as
freshly initialised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from instructvla_model import checkpoint, weights
from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.released import adapters as peft
from instructvla_model.released.dinov2 import Tower, read_tower
from instructvla_model.released.fresh import fresh_expert, fresh_numbers
from instructvla_model.released.layout import HEAD, LANGUAGE, SIGLIP_HEAD, Piece, table
from instructvla_model.released.options import ImportOptions
from instructvla_model.released.sources import FLOAT_CODES, Source, shape_of
from instructvla_model.released.variant import MOST_LAYERS, has_expert, holds_queries, stage_of
from instructvla_model.weights import WeightFile

UNREAD = "blocks and norm of the expert's vision tower that nothing reads"


@dataclass(frozen=True)
class Plan:
    """Where our tensors come from, in the order in which they are written."""

    source: Source
    shapes: dict[str, tuple[int, ...]]
    rows: dict[str, tuple[str, int | None]]  # ours -> released name, first row
    adapters: dict[str, tuple[WeightFile, str]]
    fresh: dict[str, Tensor]
    skipped: dict[str, tuple[str, ...]]  # reason -> released names
    tower: Tower | None = None  # the expert's vision tower, of a DINOv2

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Our tensors one at a time, finite. Raises CheckpointError with the file's and the tensor's name."""
        for name, shape in self.shapes.items():
            if name in self.fresh:
                yield name, self.fresh[name]
            elif name in self.adapters:
                file, theirs = self.adapters[name]
                yield name, _finite(file.tensor(theirs), theirs, file)
            elif self.tower is not None and name in self.tower.tensors:
                yield name, _finite(self.tower.tensors[name], name, self.tower)
            else:
                theirs, first = self.rows[name]
                tensor = self.source.tensor(theirs)
                tensor = tensor if first is None else tensor[first : first + shape[0]]
                yield name, _finite(tensor, theirs, self.source)

    def dtype(self) -> str:
        """The number type in which every number that is found is kept: the files' own where they have one alone."""
        found = {self.source.dtype(theirs) for theirs, _ in self.rows.values()}
        found |= {FLOAT_CODES[file.code(theirs)] for file, theirs in self.adapters.values()}
        found |= {tensor.dtype for tensor in self.tower.tensors.values()} if self.tower is not None else set()
        names = [name for name, dtype in weights.DTYPES.items() if found == {dtype}]
        return names[0] if names else "float32"


def _finite(tensor: Tensor, name: str, file: WeightFile | Source | Tower) -> Tensor:
    weights.require_finite(tensor, name, file.path)
    return tensor


def make_plan(source: Source, config: PolicyConfig, stage: str, n_tokens: int, options: ImportOptions) -> Plan:
    """Find every tensor. Raises CheckpointError for one that is missing, strange or of another shape."""
    file_stage, queries = stage_of(source), holds_queries(source, n_tokens)
    whole = has_expert(source) or options.dinov2 is not None
    shapes = checkpoint.tensor_shapes(config, stage, checkpoint.PARTS if whole else ("vlm",))
    given = peft.tensors(options.adapters, shapes)
    fresh = fresh_numbers(config, stage, shapes, options, queries)
    tower = read_tower(options.dinov2, shapes) if options.dinov2 is not None else None
    if tower is not None:
        fresh |= fresh_expert(config, options.seed, tower.tensors)
    elsewhere = given.keys() | fresh.keys() | (tower.tensors.keys() if tower is not None else set())
    wanted = table((n for n in shapes if n not in elsewhere), config, file_stage)
    skipped = _skipped(source, wanted, config, file_stage, options)
    if tower is not None:
        skipped |= _left_of(tower, config, options)
    rows: dict[str, tuple[str, int | None]] = {}
    for theirs, pieces in wanted.items():
        if theirs == LANGUAGE[file_stage] + HEAD and config.language.tie_embeddings:
            continue
        _check_shape(source, theirs, pieces, shapes, padded=not queries)
        rows |= {piece.name: (theirs, piece.first) for piece in pieces}
    return Plan(source, shapes, rows, given, fresh, skipped, tower)


def _check_shape(
    source: Source, name: str, pieces: tuple[Piece, ...], shapes: Mapping[str, tuple[int, ...]], padded: bool
) -> None:
    first, last = pieces[-1].first, shapes[pieces[-1].name]
    expected = last if first is None else (first + last[0], *last[1:])
    if name not in source.names:
        raise CheckpointError(
            f"{source.path} lacks tensor {name!r}; expected shape {expected}; it belongs to another configuration, or "
            "is incomplete"
        )
    found = shape_of(source, name, len(expected))
    longer = padded and first is not None and found[1:] == expected[1:] and found[0] >= expected[0]
    if found != expected and not longer:
        raise CheckpointError(
            f"{source.path}: tensor {name!r} has shape {found}; expected {expected}; it belongs to another "
            "configuration: check the preset and the tokenizer"
        )


def _skipped(
    source: Source,
    wanted: Mapping[str, object],
    config: PolicyConfig,
    stage: str,
    options: ImportOptions,
) -> dict[str, tuple[str, ...]]:
    """Names that are knowingly left out, by reason. Raises CheckpointError for any other name."""
    tower = "action_model.film_vision_model.vision_model."
    unread = [f"{tower}blocks.{i}." for i in range(config.film.depth, MOST_LAYERS)] if options.drop_unread else []
    unread += [] if config.film.has_norm else [f"{tower}norm."]
    head = [LANGUAGE[stage] + HEAD] if config.language.tie_embeddings else []
    rules = {
        "SigLIP's pooling head, which nothing reads": [SIGLIP_HEAD],
        "the output table, which is the embedding's": head,
        UNREAD: unread,
    }
    found: dict[str, tuple[str, ...]] = {}
    left = sorted(source.names - set(wanted))
    for reason, prefixes in rules.items():
        names = tuple(name for name in left if name.startswith(tuple(prefixes)))
        if names:
            found[reason] = names
            left = [name for name in left if name not in names]
    if left:
        raise CheckpointError(
            f"{source.path} holds unknown tensor {left[0]!r} (and {len(left) - 1} more); expected only tensors of "
            f"preset {config.name!r}; it belongs to another model"
        )
    return found


def _left_of(tower: Tower, config: PolicyConfig, options: ImportOptions) -> dict[str, tuple[str, ...]]:
    """Names of the DINOv2 that are knowingly left out, by reason. Raises CheckpointError for any other name."""
    unread = [f"blocks.{i}." for i in range(config.film.depth, MOST_LAYERS)] if options.drop_unread else []
    unread += [] if config.film.has_norm else ["norm."]
    names = tuple(sorted(name for name in tower.left if name.startswith(tuple(unread))))
    strange = sorted(tower.left - set(names))
    if strange:
        raise CheckpointError(
            f"{tower.path} holds unknown tensor {strange[0]!r} (and {len(strange) - 1} more); expected only the vision "
            f"tower of preset {config.name!r}, of {config.film.depth} blocks; it is another ViT's"
        )
    return {UNREAD: names} if names else {}
