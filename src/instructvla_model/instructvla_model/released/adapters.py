"""peft adapter folders: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructvla_model.config import AdapterConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.released.layout import adapter_name
from instructvla_model.released.sources import read_json
from instructvla_model.weights import WeightFile

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def configuration(folders: Mapping[str, Path], config: AdapterConfig) -> AdapterConfig:
    """`config` with the rank and alpha of the folders, which must agree in both. Raises CheckpointError."""
    found = {name: _read(Path(folder)) for name, folder in folders.items()}
    kinds = set(found.values())
    if len(kinds) != 1:
        raise CheckpointError(f"adapters have (rank, alpha) {found}; expected one rank and alpha for all")
    rank, alpha = kinds.pop()
    return replace(config, names=tuple(folders), rank=rank, alpha=alpha)


def _read(folder: Path) -> tuple[int, float]:
    path = folder / CONFIG_FILE
    values: dict[str, Any] = read_json(path)
    if values.get("peft_type") != "LORA" or values.get("bias", "none") != "none" or values.get("use_dora"):
        raise CheckpointError(f"{path}: expected a plain LoRA adapter without bias; this is another kind")
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise CheckpointError(f"{path}: r is {rank!r} and lora_alpha {alpha!r}; expected numbers; get it again")
    return rank, float(alpha)


def tensors(folders: Mapping[str, Path], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[WeightFile, str]]:
    """Our name -> file and its name there, all of them. Raises CheckpointError for a missing or strange tensor."""
    found: dict[str, tuple[WeightFile, str]] = {}
    for adapter, folder in folders.items():
        file = WeightFile(Path(folder) / WEIGHTS_FILE)
        ours = {adapter_name(name, adapter): name for name in file.names}
        expected = {name for name in shapes if f".{adapter}." in name}
        for name in sorted(expected ^ ours.keys()):
            which = f"lacks a tensor for {name!r}" if name in expected else f"holds unknown tensor {ours[name]!r}"
            raise CheckpointError(f"{file.path} {which}; expected the policy's adapted layers; it is another model's")
        for name in expected:
            if file.shape(ours[name]) != shapes[name]:
                raise CheckpointError(
                    f"{file.path}: tensor {ours[name]!r} has shape {file.shape(ours[name])}; expected {shapes[name]}"
                )
            found[name] = (file, ours[name])
    return found
