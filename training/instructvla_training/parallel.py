"""One process or many: the process group, sharding and activation checkpointing. The trainer is the same for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from instructvla_model.runtime import choose_device

from .lifetime import end_with_parent

Value = TypeVar("Value")

CPU = torch.device("cpu")
LONGEST_WAIT_S = 1800.0
"""For the other processes: long enough for the first one to write checkpoint and samples of the largest preset."""
SHARDED = ("SiglipEncoderLayer", "_DecoderLayer", "FilmBlock", "FeedForward")
"""Classes whose parameters are gathered when they run and freed after; all others stay gathered for the whole step."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. ``device``: where its share of the work is done."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Goes on when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def first_on_node(self, work: Callable[[], Value]) -> Value:
        """Of work that is kept on the disk: done by one process of each node, found there by the others."""
        if os.environ.get("LOCAL_RANK", "0") == "0":
            found = work()
            self.wait()
            return found
        self.wait()
        return work()

    def of_first(self, number: int) -> int:
        """The number of the first process."""
        if self.count == 1:
            return number
        shared = torch.tensor([number], device=self.device)
        dist.broadcast(shared, 0)
        return int(shared)

    def mean(self, values: list[float]) -> list[float]:
        """Mean over the processes, element by element; all must give as many."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64).to(self.device, torch.float32)
        dist.all_reduce(total)
        return (total / self.count).tolist()


@contextmanager
def processes(device: str = "auto", longest_wait_s: float = LONGEST_WAIT_S) -> Iterator[Processes]:
    """The run's processes: those that torchrun started, or this one alone.

    The outermost context starts and ends the process group; a program may do so once only. A process that waits longer
    than ``longest_wait_s`` for the others gives up with an error, and none outlives a torchrun that was killed.
    Raises RuntimeInputError for a device that there is not.
    """
    chosen = choose_device(device)
    cuda = chosen.type == "cuda"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        if cuda and chosen.index is not None:
            torch.cuda.set_device(chosen)  # whatever is made on "the" GPU is made on this one
        yield Processes(device=chosen)
        return
    where = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    outermost = not dist.is_initialized()
    if outermost:
        end_with_parent()
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=longest_wait_s))
    try:
        yield Processes(dist.get_rank(), count, where)
    finally:
        if outermost:
            dist.destroy_process_group()


def use_threads(threads: int) -> None:
    """So many CPU threads for the processes of the run on this machine together, at least one each."""
    torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _mesh(group: Processes) -> DeviceMesh:
    """Shards within a node and replicates over nodes, where there are several; else shards over all."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", group.count))
    if local == group.count:
        return init_device_mesh(group.device.type, (group.count,), mesh_dim_names=("shard",))
    shape = (group.count // local, local)
    return init_device_mesh(group.device.type, shape, mesh_dim_names=("replicate", "shard"))


def shard(stage: nn.Module, group: Processes, gather: str = "float32") -> None:
    """FSDP2 over all processes; nothing for one. ``gather``: dtype in which weights travel and compute.

    Gradients are summed in float32, and the optimiser's weights stay as they are.
    """
    if group.count == 1:
        return
    mesh = _mesh(group)
    dtype = None if gather == "float32" else getattr(torch, gather)
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for module in stage.modules():
        if type(module).__name__ in SHARDED:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(stage, mesh=mesh, mp_policy=policy)


def whole(value: Tensor) -> Tensor:
    """The full tensor of a sharded one; every process must call."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_state(stage: nn.Module, group: Processes) -> dict[str, Tensor]:
    """A copy of the full state on the CPU of the first process, nothing on the others; every process must call."""
    if group.count == 1:
        return {name: value.detach().cpu().clone() for name, value in stage.state_dict().items()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(stage, options=options))  # type: ignore[arg-type]  # all are tensors


def moved(value: Value, device: torch.device) -> Value:
    """The same dataclass with its tensors, at any depth, on ``device``."""
    if isinstance(value, Tensor):
        return cast(Value, value.to(device, non_blocking=True))
    if device.type != "cpu" and is_dataclass(value) and not isinstance(value, type):
        changes: dict[str, Any] = {f.name: moved(getattr(value, f.name), device) for f in fields(value)}
        return replace(value, **changes)
    return value
