"""What a resumed run needs, on disk: one folder per save, complete or not there at all.

Tensors are written by ``torch.distributed.checkpoint`` as safetensors, each process its own shards, so a run may go
on with another number of processes. Batches and noise are functions of the step's number, so neither random
generators nor a sampler's position have to be stored.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from .parallel import Processes
from .refusals import RunError

FACTS_FILE = "state.json"


@dataclass(frozen=True)
class Facts:
    """What of a run's state is no tensor. ``shapes``: of every trained parameter, by name."""

    step: int
    seconds: float
    parts: int
    shapes: Mapping[str, Sequence[int]]
    updates: Mapping[str, int]  # how often the optimiser has moved each parameter
    of: Mapping[str, Any] = field(default_factory=dict)  # what the run is of; empty in older saves


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remark that one process saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def check_shared(run_dir: Path, group: Processes) -> None:
    """Raises RunError, in every process, where one of them does not see the first one's run folder: a save, to which
    each adds its shards, would be none."""
    if group.count == 1:
        return
    mark = run_dir / f"seen-by-all-{group.of_first(secrets.randbits(62))}"
    if group.is_first:
        mark.touch()
    group.wait()
    (seen,) = group.mean([float(mark.exists())])
    if group.is_first:
        mark.unlink()
    if seen < 1.0:
        raise RunError(
            f"{run_dir}: found a folder that {round((1 - seen) * group.count)} of {group.count} processes do not see, "
            "expected one for all; put --root (finetune: --output) on storage that all nodes share"
        )


def save(folder: Path, tensors: Mapping[str, Tensor], facts: Facts, group: Processes) -> None:
    """Writes ``folder/step-N`` to the disk itself and then deletes older saves.

    A kill or a power cut at any moment leaves the newest complete one.
    """
    target = folder / f"step-{facts.step:07d}"
    partial = target.with_suffix(".partial")
    if target.exists():
        return
    if group.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    group.wait()
    with _quiet():
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer, no_dist=group.count == 1)
    group.wait()
    if group.is_first:
        (partial / FACTS_FILE).write_text(json.dumps(asdict(facts)) + "\n", encoding="utf-8")
        to_disk(partial)
        os.replace(partial, target)
        sync(folder)
        for old in folder.glob("step-*"):
            if old != target:
                shutil.rmtree(old)
    group.wait()


def to_disk(folder: Path) -> None:
    """Returns when every file of ``folder`` is on the disk, not only in the machine's memory."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest(folder: Path) -> Path | None:
    """The folder of the last complete save."""
    complete = [path for path in folder.glob("step-*") if path.suffix != ".partial"]
    return max(complete, default=None)


def read_facts(folder: Path) -> Facts:
    """Raises RunError where the file was damaged."""
    try:
        return Facts(**json.loads((folder / FACTS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from error


def load(folder: Path, tensors: Mapping[str, Tensor], group: Processes) -> None:
    """Fills ``tensors`` in place from a save, whatever number of processes wrote it.

    Raises RunError where a file was damaged.
    """
    try:
        with _quiet(), torch.no_grad():
            dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=group.count == 1)
    except (Exception, CheckpointException) as error:  # of safetensors, JSON and PyTorch alike; it is told
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: BaseException) -> RunError:
    run = folder.parent.parent
    told = " ".join(str(error).split())[:200]
    return RunError(
        f"{folder}: found a save that cannot be read ({type(error).__name__}: {told}), expected one to go on from; "
        f"move {run} away, whose checkpoint remains what it was at that save, and begin again"
    )
