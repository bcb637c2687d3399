"""Released files -> a checkpoint folder: strictly, by name, one tensor at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instructvla_model import checkpoint, weights
from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import MANIFEST_FILE, CheckpointError, Manifest, new_manifest, write_manifest
from instructvla_model.normalization import Statistics
from instructvla_model.presets import in_regime
from instructvla_model.released import adapters as peft
from instructvla_model.released.about import describe_manifest
from instructvla_model.released.backbone import CONFIG_FILE, with_backbone_numbers
from instructvla_model.released.options import ImportOptions
from instructvla_model.released.plan import UNREAD, Plan, make_plan
from instructvla_model.released.sources import Source, open_source
from instructvla_model.released.statistics import check_statistics
from instructvla_model.released.variant import has_expert, mixed_adapters, stage_of, with_variant, with_views
from instructvla_model.tokenizer import TOKENIZER_FILE, PolicyTokenizer, load_released_tokenizer, with_queries

__all__ = ["ImportOptions", "Imported", "describe", "import_checkpoint"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """The result: manifest, what was left out and why, what did not come from a file, and what to know."""

    manifest: Manifest
    skipped: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...]
    tensors: tuple[str, ...]  # names of all that were written
    notes: tuple[str, ...] = ()


def import_checkpoint(
    source: str | Path,
    out: str | Path,
    preset: PolicyConfig,
    backbone: str | Path | None = None,
    statistics: Statistics | None = None,
    options: ImportOptions | None = None,
) -> Imported:
    """Read `source` (a `.pt`, or Eagle2-2B's folder) and write the checkpoint folder `out`, which must not exist.

    `preset` gives what no tensor tells: sizes, cameras, times; `backbone` is Eagle2-2B's folder: its tokenizer and, if
    there, its config.json (default: `source` itself, if a folder). Raises CheckpointError; nothing is left behind then.
    """
    options = options or ImportOptions()
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new folder; remove it or choose another name")
    opened = open_source(source)
    if backbone is None and not Path(source).is_dir():
        raise CheckpointError(
            f"no tokenizer is known for {source}, since a .pt file holds none; expected Eagle2-2B's folder; give it "
            "(--backbone DIR)"
        )
    folder = Path(backbone) if backbone is not None else Path(source)
    config, tokenizer = _configuration(opened, folder, preset, options)
    stage, config = _stage(opened, config, options)
    check_statistics(statistics, config)
    plan = make_plan(opened, config, stage, tokenizer.vocab_size, options)
    manifest = new_manifest(config, stage, statistics, _training(Path(source), opened, plan, options))
    manifest = _write(out, plan, tokenizer, manifest, options)
    return Imported(manifest, plan.skipped, tuple(plan.fresh), tuple(plan.shapes), _notes(plan, options))


def _training(source: Path, opened: Source, plan: Plan, options: ImportOptions) -> dict[str, object]:
    training: dict[str, object] = {"imported": source.name, "regime": _regime(opened, options)}
    if options.dataset is not None:
        training["dataset"] = options.dataset
    if options.dinov2 is not None:
        training |= {"dinov2": options.dinov2.name, "seed": options.seed}
    return training | {"skipped": {reason: list(names) for reason, names in plan.skipped.items()}}


def _write(out: Path, plan: Plan, tokenizer: PolicyTokenizer, manifest: Manifest, options: ImportOptions) -> Manifest:
    dtype = options.dtype or plan.dtype()
    out.mkdir(parents=True)
    try:
        digest = weights.write_stream(out / checkpoint.MODEL_FILE, plan.shapes, weights.DTYPES[dtype], plan.tensors())
        tokenizer.save(out)
        manifest = replace(manifest, weights_sha256=digest, storage_dtype=dtype)
        write_manifest(out, manifest)
    except BaseException:
        for name in (checkpoint.MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE):
            (out / name).unlink(missing_ok=True)
        out.rmdir()
        raise
    _log.info("imported %s as %s (%s)", plan.source.path, manifest.checkpoint_id, out)
    return manifest


def _regime(source: Source, options: ImportOptions) -> str:
    return options.regime or ("reference" if has_expert(source) else "paper")


def _configuration(
    source: Source, folder: Path, preset: PolicyConfig, options: ImportOptions
) -> tuple[PolicyConfig, PolicyTokenizer]:
    plain = load_released_tokenizer(folder)
    if (folder / CONFIG_FILE).is_file():
        preset = with_backbone_numbers(folder, preset)
    config = with_variant(source, preset, plain.get_vocab_size())
    if options.views is not None:
        config = with_views(config, options.views)
    if options.dt_s is not None:
        config = replace(config, dt_s=options.dt_s)
    config = in_regime(config, _regime(source, options))
    if options.drop_unread:
        config = config.without_unread_blocks()
    return config, with_queries(plain, config.n_queries)


def _stage(source: Source, config: PolicyConfig, options: ImportOptions) -> tuple[str, PolicyConfig]:
    """The stage of the new checkpoint, and the configuration with its adapters."""
    stage = stage_of(source)
    if options.dinov2 is not None and (has_expert(source) or stage != "base"):
        found = "an action expert" if has_expert(source) else "adapters"
        raise CheckpointError(
            f"{source.path} holds {found} already; expected a backbone alone, such as Eagle2-2B's folder, beside a "
            "DINOv2 (--dinov2); leave that out"
        )
    if options.adapters:
        if stage != "base":
            raise CheckpointError(f"{source.path} holds adapters already; expected none beside adapter folders")
        return ("expert" if len(options.adapters) == 1 else "generalist"), replace(
            config, adapters=peft.configuration(options.adapters, config.adapters)
        )
    n_adapters = mixed_adapters(source) if stage == "generalist" else 0
    names = options.adapter_names or tuple(str(i) for i in range(n_adapters))
    if len(names) != n_adapters:
        raise CheckpointError(
            f"{source.path} mixes {n_adapters} adapters; expected as many names (--adapter-names), got {names}"
        )
    return stage, replace(config, adapters=replace(config.adapters, names=names)) if n_adapters else config


def _notes(plan: Plan, options: ImportOptions) -> tuple[str, ...]:
    if options.drop_unread and UNREAD not in plan.skipped:
        return ("--drop-unread left nothing out: with these values every block is read, or none is there",)
    return ()


def describe(imported: Imported) -> list[tuple[str, str]]:
    """What was found, as label and value, for people."""
    rows = describe_manifest(imported.manifest, imported.tensors)
    rows += [("stored as", imported.manifest.storage_dtype)]
    rows += [("freshly initialised", text) for text in _gathered(imported.fresh)]
    rows += [("note", note) for note in imported.notes]
    return rows


def _gathered(names: Sequence[str]) -> list[str]:
    """The names; those of an expert, which are hundreds, as its parts with their numbers of tensors."""
    parts = Counter(name.split(".")[1] for name in names if name.startswith("expert."))
    others = [name for name in names if not name.startswith("expert.")]
    return others + [f"expert.{part}: {count} tensors" for part, count in parts.items()]
