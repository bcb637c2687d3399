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
from instructvla_model.weights import WeightFile

INDEX_FILE = "model.safetensors.index.json"


class Source(Protocol):
    """Named tensors in files. Reading a name costs no memory before `tensor` is called."""

    path: Path

    @property
    def names(self) -> frozenset[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Tensor: ...


class TorchFile:
    """A released `.pt`: `{"model": {part: {name: tensor}}}`, or flat names with or without a leading `vlm.`.

    The file is mapped, not read; only tensors and plain containers are ever made from it.
    """

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
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise CheckpointError(f"{path}: {name!r} is a {kind}; expected a tensor of floats; the file is damaged")
            found.append((name.removeprefix("vlm."), tensor))
    if len({name for name, _ in found}) < len(found):
        raise CheckpointError(f"{path} holds a name twice, with and without 'vlm.'; expected each once")
    return found


class SafetensorsFolder:
    """The safetensors files of a folder, by their index if there is one."""

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
        for file in (WeightFile(file) for file in files):
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

    def tensor(self, name: str) -> Tensor:
        return self._files[name].tensor(name)


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
