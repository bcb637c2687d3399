"""A checkpoint folder -> the released layouts: one `.pt`, Eagle2-2B's folder, or peft adapter folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructvla_model import weights
from instructvla_model.checkpoint import open_files
from instructvla_model.manifest import CheckpointError, Manifest
from instructvla_model.released import backbone
from instructvla_model.released.adapters import CONFIG_FILE, WEIGHTS_FILE
from instructvla_model.released.layout import PARTS, Piece, released_name, table
from instructvla_model.released.statistics import STATISTICS_FILE, released_statistics
from instructvla_model.tokenizer import TOKENIZER_FILE, load_tokenizer, without_queries

FORMS = ("pt", "eagle", "peft")


def export_checkpoint(folder: str | Path, out: str | Path, form: str = "pt") -> list[Path]:
    """Write `out` (which must not exist) and return the files. Numbers are written in the folder's storage dtype.

    pt: `{"model": {part: {name: tensor}}}`, in the layout of the checkpoint's stage; written as
    `<run>/checkpoints/<name>.pt` it gets the run's config.json and dataset_statistics.json too. eagle: the backbone
    alone, as a folder of safetensors without query rows. peft: one folder for each adapter. Raises CheckpointError.
    """
    if form not in FORMS:
        raise CheckpointError(f"form {form!r}; expected one of {FORMS}")
    folder, out = Path(folder), Path(out)
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new path; remove it or choose another name")
    files, manifest = open_files(folder)
    write = {"pt": _write_pt, "eagle": _write_eagle, "peft": _write_peft}[form]
    return write(files, manifest, folder, out)


Files = Mapping[str, weights.WeightFile]


def _write_pt(files: Files, manifest: Manifest, folder: Path, out: Path) -> list[Path]:
    model: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    made: dict[tuple[Piece, ...], Tensor] = {}  # tied tables are one tensor, so that they are written once
    for theirs, pieces in table(files, manifest.config, manifest.stage).items():
        if pieces not in made:
            tensors = [files[piece.name].tensor(piece.name) for piece in pieces]
            made[pieces] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        part, _, key = theirs.partition(".")
        model[part][key] = made[pieces]
    beside = _run_files(manifest, out)
    for path in beside:
        if path.exists():
            raise CheckpointError(f"{path} exists; expected a new run's folder; remove it or choose another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {part: tensors for part, tensors in model.items() if tensors}}, out)
    return [out, *(_write_json(path, values) for path, values in beside.items())]


def _run_files(manifest: Manifest, out: Path) -> dict[Path, dict[str, Any]]:
    """What the released code reads beside `<run>/checkpoints/x.pt`. It takes a file's stage from there alone."""
    if out.absolute().parent.name != "checkpoints":
        return {}
    run = out.absolute().parent.parent
    stage = "stage2" if manifest.stage == "generalist" else "stage1"
    files: dict[Path, dict[str, Any]] = {
        run / backbone.CONFIG_FILE: {"stage": stage, "num_of_meta_query": manifest.n_queries}
    }
    if manifest.statistics is not None:
        dataset = str(manifest.training.get("dataset") or manifest.preset)
        files[run / STATISTICS_FILE] = {dataset: released_statistics(manifest.statistics)}
    return files


def _stream(files: Files, names: Mapping[str, str], manifest: Manifest, path: Path) -> Path:
    """Write tensors under other names (theirs -> ours), one at a time."""
    shapes = {theirs: files[ours].shape(ours) for theirs, ours in names.items()}
    tensors = ((theirs, files[ours].tensor(ours)) for theirs, ours in names.items())
    weights.write_stream(path, shapes, weights.DTYPES[manifest.storage_dtype], tensors)
    return path


def _write_json(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


def _write_eagle(files: Files, manifest: Manifest, folder: Path, out: Path) -> list[Path]:
    config = manifest.config
    left = ("expert.", "vlm.gate.", "vlm.query_")
    ours = [name for name in files if not name.startswith(left) and ".lora_" not in name]
    names = {released_name(name, config, "base"): name for name in ours}
    out.mkdir(parents=True)
    tokenizer = out / TOKENIZER_FILE
    tokenizer.write_text(without_queries(load_tokenizer(folder)), encoding="utf-8")
    written = _stream(files, names, manifest, out / "model.safetensors")
    return [written, tokenizer, _write_json(out / backbone.CONFIG_FILE, backbone.backbone_json(config))]


def _write_peft(files: Files, manifest: Manifest, folder: Path, out: Path) -> list[Path]:
    config = manifest.config.adapters
    present = [name for name in config.names if any(f".lora_A.{name}." in tensor for tensor in files)]
    if not present:
        raise CheckpointError(f"{folder} is of stage {manifest.stage!r} and holds no adapters; expected another stage")
    written = []
    for adapter in present:
        target = out / adapter
        target.mkdir(parents=True)
        ours = [name for name in files if f".lora_A.{adapter}." in name or f".lora_B.{adapter}." in name]
        names = {_peft_name(name, adapter): name for name in ours}
        values = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "target_modules": list(config.targets),
            "bias": "none",
        }
        written += [_stream(files, names, manifest, target / WEIGHTS_FILE), _write_json(target / CONFIG_FILE, values)]
    return written


def _peft_name(name: str, adapter: str) -> str:
    key = name.removeprefix("vlm.language_model.")
    for matrix in ("lora_A", "lora_B"):
        key = key.replace(f".{matrix}.{adapter}.", f".{matrix}.")
    return f"base_model.model.{key}"
