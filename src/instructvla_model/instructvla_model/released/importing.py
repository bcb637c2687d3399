"""Released files -> a checkpoint folder: strictly, by name, one tensor at a time.

Every tensor of the source is used or skipped by a rule with a name; every tensor of the policy comes from the source,
from an adapter folder, or is named as freshly initialised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from instructvla_model import checkpoint, weights
from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import MANIFEST_FILE, CheckpointError, Manifest, new_manifest, write_manifest
from instructvla_model.normalization import Statistics
from instructvla_model.presets import in_regime
from instructvla_model.released import adapters as peft
from instructvla_model.released.layout import GATE, HEAD, LANGUAGE, SIGLIP_HEAD, table
from instructvla_model.released.sources import Source, open_source
from instructvla_model.released.variant import stage_of, with_backbone_numbers, with_variant, with_views
from instructvla_model.tokenizer import TOKENIZER_FILE, PolicyTokenizer, load_released_tokenizer, with_queries
from instructvla_model.weights import WeightFile

_log = logging.getLogger(__name__)
_FRESH_SEED = 0
_MOST_BLOCKS = 64


@dataclass(frozen=True)
class ImportOptions:
    """What the files do not say. `regime` None: the released code's for a policy, the paper's for a bare backbone."""

    regime: str | None = None
    dtype: str = "float32"
    adapters: Mapping[str, Path] = field(default_factory=dict)  # our name -> peft folder
    adapter_names: tuple[str, ...] | None = None  # of a stage 2 file's adapters 0, 1, ...
    drop_unread: bool = False  # leave out the blocks of the expert's vision tower that nothing reads
    views: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """The result: manifest, what was left out and why, what did not come from a file."""

    manifest: Manifest
    skipped: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...]


def import_checkpoint(
    source: str | Path,
    out: str | Path,
    preset: PolicyConfig,
    backbone: str | Path | None = None,
    statistics: Statistics | None = None,
    options: ImportOptions | None = None,
) -> Imported:
    """Read `source` (a `.pt`, or Eagle2-2B's folder) and write the checkpoint folder `out`, which must not exist.

    `preset` gives the sizes that no tensor tells; `backbone` is Eagle2-2B's folder: its tokenizer and, if there,
    its config.json (default: `source` itself, if a folder). Raises CheckpointError; nothing is left behind then.
    """
    options = options or ImportOptions()
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new folder; remove it or choose another name")
    if options.dtype not in weights.DTYPES:
        raise CheckpointError(f"dtype {options.dtype!r}; expected one of {sorted(weights.DTYPES)}")
    opened = open_source(source)
    folder = Path(backbone) if backbone is not None else Path(source)
    config, tokenizer = _configuration(opened, folder, preset, options)
    stage, config = _stage(opened, config, options)
    plan = _plan(opened, config, stage, tokenizer, options)
    training = {"imported": Path(source).name, "regime": _regime(opened, options), "skipped": sorted(plan.skipped)}
    manifest = new_manifest(config, stage, statistics, training)
    out.mkdir(parents=True)
    try:
        digest = weights.write_stream(
            out / checkpoint.MODEL_FILE, plan.shapes, weights.DTYPES[options.dtype], plan.tensors()
        )
        tokenizer.save(out)
        manifest = replace(manifest, weights_sha256=digest, storage_dtype=options.dtype)
        write_manifest(out, manifest)
    except BaseException:
        for name in (checkpoint.MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE):
            (out / name).unlink(missing_ok=True)
        out.rmdir()
        raise
    _log.info("imported %s as %s (%s)", source, manifest.checkpoint_id, out)
    return Imported(manifest, plan.skipped, tuple(plan.fresh))


def _regime(source: Source, options: ImportOptions) -> str:
    has_expert = any(name.startswith("action_model.") for name in source.names)
    return options.regime or ("reference" if has_expert else "paper")


def _configuration(
    source: Source, folder: Path, preset: PolicyConfig, options: ImportOptions
) -> tuple[PolicyConfig, PolicyTokenizer]:
    plain = load_released_tokenizer(folder)
    if (folder / "config.json").is_file():
        preset = with_backbone_numbers(folder, preset)
    config = with_variant(source, preset, plain.get_vocab_size())
    if options.views is not None:
        config = with_views(config, options.views)
    config = in_regime(config, _regime(source, options))
    if options.drop_unread:
        config = config.without_unread_blocks()
    return config, with_queries(plain, config.n_queries)


def _stage(source: Source, config: PolicyConfig, options: ImportOptions) -> tuple[str, PolicyConfig]:
    """The stage of the new checkpoint, and the configuration with its adapters."""
    stage = stage_of(source)
    if options.adapters:
        if stage != "base":
            raise CheckpointError(f"{source.path} holds adapters already; expected none beside adapter folders")
        return ("expert" if len(options.adapters) == 1 else "generalist"), replace(
            config, adapters=peft.configuration(options.adapters, config.adapters)
        )
    if stage == "generalist":
        output = GATE + "layers.9.bias"
        n_adapters = source.shape(output)[0] if output in source.names else 0
        names = options.adapter_names or tuple(str(i) for i in range(n_adapters))
        if len(names) != n_adapters:
            raise CheckpointError(f"{source.path} mixes {n_adapters} adapters; expected as many names, got {names}")
        config = replace(config, adapters=replace(config.adapters, names=names))
    return stage, config


# ---- the plan: where each of our tensors comes from ------------------------------------------------------


@dataclass
class _Plan:
    """Where our tensors come from, in the order in which they are written."""

    source: Source
    shapes: dict[str, tuple[int, ...]]
    rows: dict[str, tuple[str, int | None]]  # ours -> released name, first row
    adapters: dict[str, tuple[WeightFile | Source, str]]
    fresh: dict[str, Tensor]
    skipped: dict[str, tuple[str, ...]]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, shape in self.shapes.items():
            if name in self.fresh:
                yield name, self.fresh[name]
                continue
            if name in self.adapters:
                source, theirs = self.adapters[name]
                tensor = source.tensor(theirs)
            else:
                theirs, first = self.rows[name]
                tensor = self.source.tensor(theirs)
                tensor = tensor if first is None else tensor[first : first + shape[0]]
            weights.require_finite(tensor, theirs, self.source.path)
            yield name, tensor


def _plan(
    source: Source, config: PolicyConfig, stage: str, tokenizer: PolicyTokenizer, options: ImportOptions
) -> _Plan:
    with_expert = any(name.startswith("action_model.") for name in source.names)
    file_stage = stage_of(source)
    shapes = checkpoint.tensor_shapes(config, stage, checkpoint.PARTS if with_expert else ("vlm",))
    given = peft.tensors(options.adapters, shapes)
    fresh = _fresh(config, stage, shapes, source, options, with_expert)
    wanted = table((n for n in shapes if n not in given and n not in fresh), config, file_stage)
    skipped = _skipped(source, wanted, config, file_stage, options)
    rows: dict[str, tuple[str, int | None]] = {}
    for theirs, pieces in wanted.items():
        if theirs == LANGUAGE[file_stage] + HEAD and config.language.tie_embeddings:
            continue
        if theirs not in source.names:
            raise CheckpointError(
                f"{source.path} lacks tensor {theirs!r}; expected shape {shapes[pieces[0].name]}; it belongs to "
                "another configuration, or is incomplete"
            )
        _check_shape(source, theirs, [(p.first, shapes[p.name]) for p in pieces], padded=not with_expert)
        rows |= {piece.name: (theirs, piece.first) for piece in pieces}
    return _Plan(source, shapes, rows, given, fresh, skipped)


def _check_shape(source: Source, name: str, pieces: list[tuple[int | None, tuple[int, ...]]], padded: bool) -> None:
    found = source.shape(name)
    first, last = pieces[-1]
    expected = last if first is None else (first + last[0], *last[1:])
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
    unread = [f"{tower}blocks.{i}." for i in range(config.film.depth, _MOST_BLOCKS)] if options.drop_unread else []
    unread += [] if config.film.has_norm else [f"{tower}norm."]
    head = [LANGUAGE[stage] + HEAD] if config.language.tie_embeddings else []
    rules = {
        "SigLIP's pooling head, which nothing reads": [SIGLIP_HEAD],
        "the output table, which is the embedding's": head,
        "blocks and norm of the expert's vision tower that nothing reads": unread,
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


def _fresh(
    config: PolicyConfig,
    stage: str,
    shapes: Mapping[str, tuple[int, ...]],
    source: Source,
    options: ImportOptions,
    with_expert: bool,
) -> dict[str, Tensor]:
    """What no file holds: the query rows of a bare backbone, and the gate over adapters that were never mixed."""
    generator = torch.Generator().manual_seed(_FRESH_SEED)
    fresh: dict[str, Tensor] = {}
    if not with_expert:
        for name in ("vlm.query_embed", "vlm.query_head"):
            if name in shapes:
                fresh[name] = torch.randn(shapes[name], generator=generator) * config.language.initializer_range
    if stage == "generalist" and options.adapters:
        for name in (n for n in shapes if n.startswith("vlm.gate.")):
            bound = shapes[name][-1] ** -0.5 if name.endswith("weight") else 0.0
            fresh[name] = (2.0 * torch.rand(shapes[name], generator=generator) - 1.0) * bound
    return fresh


def describe(imported: Imported) -> list[tuple[str, str]]:
    """What was found, as label and value, for people."""
    manifest = imported.manifest
    rows = [("checkpoint", manifest.checkpoint_id), ("preset", manifest.preset), ("stage", manifest.stage)]
    rows += [(key, str(value)) for key, value in manifest.parity.items()]
    rows += [("left out", f"{len(names)} tensors: {reason}") for reason, names in imported.skipped.items()]
    rows += [("freshly initialised", name) for name in imported.fresh]
    return rows
