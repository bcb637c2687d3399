"""Tensors of released files by name, read one at a time. No file gets to run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from instructvla_model.manifest import CheckpointError
from instructvla_model.released.layout import PARTS
from instructvla_model.weights import FLOATS, WeightFile

INDEX_FILE = "model.safetensors.index.json"
FLOAT_CODES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Source(Protocol):
    """Named tensors in files. Reading a name costs no memory before `tensor` is called."""

    path: Path
    padded: bool  # a backbone, whose token tables may have rows behind the tokenizer's that mean nothing

    @property
    def names(self) -> frozenset[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def tensor(self, name: str) -> Tensor: ...


def shape_of(source: Source, name: str, n_dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there with so many dimensions. Raises CheckpointError."""
    if name not in source.names:
        raise CheckpointError(
            f"{source.path} lacks tensor {name!r}; expected a whole model; it is incomplete, or another model's"
        )
    shape = source.shape(name)
    if len(shape) != n_dimensions:
        raise CheckpointError(
            f"{source.path}: tensor {name!r} has shape {shape}; expected {n_dimensions} dimensions; the file is "
            "damaged, or another model's"
        )
    return shape


class TorchFile:
    """A released `.pt`: `{"model": {part: {name: tensor}}}`, or flat names with or without a leading `vlm.`.

    The file is mapped, not read; only tensors and plain containers are ever made from it.
    """

    padded = False

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; expected a released .pt file; correct the path")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # unpickling refuses with many types
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) cannot be read as weights alone: {_first_line(error)}; expected "
                "a complete zip file of tensors; it is truncated, of another kind, or holds code: get it again"
            ) from error
        model = content.get("model", content) if isinstance(content, dict) else content
        self._tensors = dict(_flatten(model, path))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _flatten(model: object, path: Path) -> list[tuple[str, Tensor]]:
    if not isinstance(model, Mapping) or not model:
        raise CheckpointError(f"{path} holds a {type(model).__name__}; expected state dicts of {PARTS}")
    found: list[tuple[str, Tensor]] = []
    for part, value in model.items():
        nested = value if isinstance(value, Mapping) else None
        entries = [(f"{part}.{key}", v) for key, v in nested.items()] if nested is not None else [(str(part), value)]
        for name, tensor in entries:
            if (kind := _strange(tensor)) is not None:
                raise CheckpointError(
                    f"{path}: {name!r} is {kind}; expected a tensor of floats (64, 32 or 16 bits) that is all there; "
                    "the file is damaged, or another model's"
                )
            found.append((name.removeprefix("vlm."), tensor))
    if len({name for name, _ in found}) < len(found):
        raise CheckpointError(f"{path} holds a name twice, with and without 'vlm.'; expected each once")
    return found


def _strange(value: object) -> str | None:
    """What keeps `value` from being numbers in memory that can be read piece by piece, in words."""
    if type(value) not in (Tensor, torch.nn.Parameter):
        return f"a {type(value).__name__}"
    assert isinstance(value, Tensor)
    if value.is_nested or value.layout != torch.strided:
        return f"a tensor of layout {'nested' if value.is_nested else value.layout}"
    if value.device.type != "cpu":
        return f"a tensor on the device {value.device.type!r}"
    if value.dtype not in FLOATS:
        return f"a tensor of {value.dtype}"
    if value.is_neg() or value.nbytes > value.untyped_storage().nbytes():
        return f"a view of shape {tuple(value.shape)} of {value.untyped_storage().nbytes()} bytes"
    return None


class SafetensorsFolder:
    """The safetensors files of a folder, by their index if there is one."""

    padded = True

    def __init__(self, path: Path) -> None:
        self.path = path
        index = path / INDEX_FILE
        shards = sorted(set(_index(index).values())) if index.is_file() else None
        files = [path / shard for shard in shards] if shards else sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(
                f"{path} holds no safetensors file; expected Eagle2-2B or an adapter; correct the path"
            )
        self._files: dict[str, WeightFile] = {}
        for file in (open_floats(file) for file in files):
            twice = sorted(self._files.keys() & file.names)
            if twice:
                raise CheckpointError(f"{file.path}: tensor {twice[0]!r} is also in another file; expected it once")
            self._files |= dict.fromkeys(file.names, file)
        if shards and (lost := sorted(set(_index(index)) ^ self._files.keys())):
            raise CheckpointError(f"{index} and the files disagree on tensor {lost[0]!r}; expected the same names")

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files[name].shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return FLOAT_CODES[self._files[name].code(name)]

    def tensor(self, name: str) -> Tensor:
        return self._files[name].tensor(name)


def open_floats(path: Path) -> WeightFile:
    """A safetensors file that holds floats alone. Raises CheckpointError."""
    file = WeightFile(path)
    for name in sorted(file.names):
        if file.code(name) not in FLOAT_CODES:
            raise CheckpointError(
                f"{path}: tensor {name!r} is of type {file.code(name)}; expected one of {list(FLOAT_CODES)}; quantised "
                "and integer weights are not read: get the file in floats"
            )
    return file


def _index(path: Path) -> dict[str, str]:
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(v, str) and Path(v).name == v for v in shards.values()):
        raise CheckpointError(f"{path} has no weight_map of file names; expected an index of safetensors shards")
    return shards


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; CheckpointError names the file otherwise."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); expected an object; get it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; expected a JSON object; get it again")
    return values


def open_source(path: str | Path) -> Source:
    """A `.pt` file or a folder of safetensors."""
    path = Path(path)
    return SafetensorsFolder(path) if path.is_dir() else TorchFile(path)
