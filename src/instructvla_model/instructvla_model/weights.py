"""Weight files: safetensors written atomically, read strictly. Pickles are refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from instructvla_model.manifest import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOATS = (torch.float64, *DTYPES.values())  # what is read from released files


def unique_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict without the second name of a shared (tied) tensor."""
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor
    return state


def stored(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """As it goes into the file: on the CPU, in the storage dtype.

    Raises CheckpointError for what is no float, and for a number that the storage dtype does not reach.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype not in FLOATS:
        raise CheckpointError(f"tensor {name!r} is of {tensor.dtype}; expected floats of 16 bits or more; convert it")
    converted = tensor.to(dtype).contiguous()
    if narrows(tensor.dtype, dtype) and bool((torch.isinf(converted) & torch.isfinite(tensor)).any()):
        raise _beyond(name, dtype)
    return converted


def narrows(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether a number of the first type may lie beyond the second's largest."""
    return torch.finfo(wanted).max < torch.finfo(found).max


def _beyond(name: str, dtype: torch.dtype) -> CheckpointError:
    kind, largest = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
    return CheckpointError(
        f"tensor {name!r} holds numbers beyond the largest of {kind}, {largest:g}; expected smaller ones; choose "
        "another number type, such as float32"
    )


def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write and return the file's sha256. A crash leaves the old file or none, never half of one."""
    partial = path.with_suffix(path.suffix + ".part")
    save_file(dict(tensors), str(partial))
    os.replace(partial, path)
    return sha256(path)


_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}  # safetensors' names
_CHUNK = 1 << 20  # numbers handled at once: a check or a cast never copies a whole tensor


def write_stream(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterable[tuple[str, Tensor]]
) -> str:
    """As `write`, for tensors that come one at a time in the order of `shapes`; none of them is kept.

    safetensors' own writer wants all tensors in memory at once.
    """
    header: dict[str, object] = {}
    start = 0
    for name, shape in shapes.items():
        end = start + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_suffix(path.suffix + ".part")
    try:
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for (expected, shape), (name, tensor) in zip(shapes.items(), tensors, strict=True):
                assert (name, tuple(tensor.shape)) == (expected, shape)
                for chunk in tensor.detach().reshape(-1).split(_CHUNK):
                    file.write(memoryview(stored(chunk, dtype, name).view(torch.uint8).numpy()))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return sha256(path)


def require_finite(tensor: Tensor, name: str, path: Path) -> None:
    """Raise CheckpointError for a tensor that holds NaN or infinity."""
    if not all(bool(torch.isfinite(chunk).all()) for chunk in tensor.reshape(-1).split(_CHUNK)):
        raise CheckpointError(
            f"{path}: tensor {name!r} holds NaN or infinity; expected finite "
            "numbers; training diverged or the file is damaged: use another checkpoint"
        )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class WeightFile:
    """A safetensors file opened for reading; tensors are read one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; expected the weights beside the manifest; copy it there")
        self._refuse_pickle()
        try:
            self._file = safe_open(str(path), framework="pt")  # checks the whole header
            self.names: frozenset[str] = frozenset(self._file.keys())
            self._places = _places(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file: {error}; "
                "expected complete weights; copy the file again"
            ) from error

    def _refuse_pickle(self) -> None:
        with self.path.open("rb") as file:
            start = file.read(9)
        is_safetensors = start[8:] == b"{"  # after the header's length, which may look like anything
        if not is_safetensors and start.startswith((b"PK", b"\x80")):
            raise CheckpointError(
                f"{self.path} is a pickle; expected safetensors; pickles can run code and are "
                "never loaded: import the released file instead"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def code(self, name: str) -> str:
        """The tensor's number type as safetensors calls it."""
        return str(self._file.get_slice(name).get_dtype())

    def size(self, name: str) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape(name))

    def tensor(self, name: str) -> Tensor:
        """The tensor as it is stored, mapped from the file."""
        return self._file.get_tensor(name)

    def load(self, name: str, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """A tensor of floats in memory of its own. CheckpointError for NaN and infinity.

        Read in pieces: a mapping would keep the stored numbers resident beside the converted ones.
        """
        if name not in self._places:
            raise CheckpointError(f"{self.path}: tensor {name!r} is of no type of {list(DTYPES)}; expected floats")
        kind, start = self._places[name]
        target = torch.empty(self.shape(name), dtype=dtype, device=device)
        with self.path.open("rb") as file:
            file.seek(start)
            for part in target.view(-1).split(_CHUNK) if target.numel() else ():
                buffer = bytearray(part.numel() * kind.itemsize)
                if file.readinto(buffer) != len(buffer):
                    raise CheckpointError(f"{self.path} ended while {name!r} was read; expected complete weights")
                piece = torch.frombuffer(buffer, dtype=kind)
                require_finite(piece, name, self.path)
                part.copy_(stored(piece, dtype, name))
        return target


def _places(path: Path) -> dict[str, tuple[torch.dtype, int]]:
    """Number type and first byte of every tensor of floats, from a header that safetensors has checked."""
    kinds = {code: dtype for dtype, code in _CODES.items()}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (kinds[entry["dtype"]], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] in kinds
    }


def check_names(
    expected: Mapping[str, Tensor], files: Mapping[str, WeightFile], where: Path, prefixes: tuple[str, ...]
) -> None:
    """Raise CheckpointError for a missing, unknown or wrongly shaped tensor under the prefixes."""
    found = {name for name in files if name.startswith(prefixes)}
    missing, unknown = sorted(set(expected) - found), sorted(found - set(expected))
    if missing:
        raise CheckpointError(
            f"{where} lacks tensor {missing[0]!r} (and {len(missing) - 1} more); expected shape "
            f"{tuple(expected[missing[0]].shape)}; the weights belong to another configuration"
        )
    if unknown:
        raise CheckpointError(
            f"{where} holds unknown tensor {unknown[0]!r} (and {len(unknown) - 1} more); "
            "expected only tensors of the manifest's configuration and stage"
        )
    for name, target in expected.items():
        shape = files[name].shape(name)
        if shape != tuple(target.shape):
            raise CheckpointError(
                f"{where}: tensor {name!r} has shape {shape}; expected {tuple(target.shape)}; "
                "the weights belong to another configuration"
            )


def read(
    expected: Mapping[str, Tensor],
    files: Mapping[str, WeightFile],
    dtype: torch.dtype,
    device: torch.device | str,
) -> Iterator[tuple[str, Tensor]]:
    """Yield the checked tensors one by one in the wanted dtype and place. Refuses NaN and infinity."""
    for name in expected:
        yield name, files[name].load(name, dtype, device)
