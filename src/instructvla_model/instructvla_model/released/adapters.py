"""peft adapter folders: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructvla_model.config import AdapterConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.released.layout import adapter_name
from instructvla_model.released.sources import open_floats, read_json
from instructvla_model.weights import WeightFile

_LARGEST = 1e9
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def configuration(folders: Mapping[str, Path], config: AdapterConfig) -> AdapterConfig:
    """`config` with the rank and alpha of the folders, which must agree in both. Raises CheckpointError."""
    found = {name: _read(Path(folder), config.targets) for name, folder in folders.items()}
    kinds = set(found.values())
    if len(kinds) != 1:
        raise CheckpointError(f"adapters have (rank, alpha) {found}; expected one rank and alpha for all")
    rank, alpha = kinds.pop()
    return replace(config, names=tuple(folders), rank=rank, alpha=alpha)


# settings that change what an adapter does to a layer, or to which layers; this library has none of them
_OTHER_MATHEMATICS = (
    "use_rslora", "use_dora", "use_qalora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "lora_bias",
    "layers_to_transform", "layers_pattern", "layer_replication", "modules_to_save", "exclude_modules",
    "target_parameters", "trainable_token_indices", "alora_invocation_tokens",
)  # fmt: skip
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others also change the layer below the adapter


def _read(folder: Path, targets: tuple[str, ...]) -> tuple[int, float]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(
            f"adapter folder {folder} does not exist; expected peft's {CONFIG_FILE} and {WEIGHTS_FILE} in it; correct "
            "the path"
        )
    values: dict[str, Any] = read_json(path)
    if values.get("peft_type") != "LORA" or values.get("bias", "none") != "none":
        raise CheckpointError(f"{path}: expected a plain LoRA adapter without bias; this is another kind")
    for name in _OTHER_MATHEMATICS:
        if values.get(name):
            raise CheckpointError(f"{path}: {name} is {values[name]!r}; expected a plain LoRA without it")
    start = values.get("init_lora_weights")
    if not any(start is plain or (isinstance(start, str) and start == plain) for plain in _PLAIN_STARTS):
        raise CheckpointError(
            f"{path}: init_lora_weights is {start!r}, which changes the layers below; expected one of {_PLAIN_STARTS}"
        )
    _check_targets(values.get("target_modules"), targets, path)
    rank, alpha = _number(values.get("r")), _number(values.get("lora_alpha"))
    if rank < 1.0 or rank != int(rank) or alpha <= 0.0:
        raise CheckpointError(
            f"{path}: r is {values.get('r')!r} and lora_alpha {values.get('lora_alpha')!r}; expected numbers above 0, "
            "r a whole one; get it again"
        )
    return int(rank), alpha


def _number(value: object) -> float:
    """0 for what is no number, as true and false are not, or beyond any that is meant."""
    counts = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    return float(value) if counts and isinstance(value, int | float) else 0.0


def _check_targets(found: object, targets: tuple[str, ...], path: Path) -> None:
    """`found` None: the tensors alone say which layers are adapted."""
    if found is None:
        return
    names = {str(name).rpartition(".")[2] for name in found} if isinstance(found, list) else set()
    if names != set(targets):
        raise CheckpointError(f"{path}: target_modules is {found!r}; expected {list(targets)}; it is another model's")


def tensors(folders: Mapping[str, Path], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[WeightFile, str]]:
    """Our name -> file and its name there, all of them. Raises CheckpointError for a missing or strange tensor."""
    found: dict[str, tuple[WeightFile, str]] = {}
    for adapter, folder in folders.items():
        file = open_floats(Path(folder) / WEIGHTS_FILE)
        ours = {adapter_name(name, adapter): name for name in file.names}
        expected = {name for name in shapes if f".lora_A.{adapter}." in name or f".lora_B.{adapter}." in name}
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
