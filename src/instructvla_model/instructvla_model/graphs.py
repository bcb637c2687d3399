"""Replays work of fixed shapes: CUDA graphs, which spare a small model's launches, most of its time on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

Replay = Callable[[], None]
Record = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]
_WARM_UP = 3


def record_cuda(work: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """Run `work` a few times aside, then record it -> what replays it, and the tensor it then writes to.

    Only this thread must keep to what can be recorded: another may go on, such as one that makes batches.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = work()
    return graph.replay, output


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor | None, ...]
    replay: Replay
    output: Tensor


class Graphed:
    """A function of tensors, recorded once for each set of shapes and dtypes and replayed from then on.

    The function must not look at values, and must make nothing on another device. None stays None.
    """

    def __init__(self, function: Callable[..., Tensor], record: Record = record_cuda) -> None:
        self._function, self._record = function, record
        self._recordings: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        key = tuple(None if t is None else (t.shape, t.dtype, t.device) for t in inputs)
        with _on_device_of(inputs):
            if key not in self._recordings:
                kept = tuple(None if t is None else t.clone() for t in inputs)
                replay, output = self._record(lambda: self._function(*kept))
                self._recordings[key] = _Recording(kept, replay, output)
            recording = self._recordings[key]
            for target, given in zip(recording.inputs, inputs, strict=True):
                if target is not None and given is not None:
                    target.copy_(given)
            recording.replay()
            return recording.output.clone()


def _on_device_of(inputs: tuple[Tensor | None, ...]) -> AbstractContextManager[object]:
    """Streams and graphs are those of the current GPU, which need not be the one that the tensors are on."""
    device = next((t.device for t in inputs if t is not None), None)
    return torch.cuda.device(device) if device is not None and device.type == "cuda" else nullcontext()
