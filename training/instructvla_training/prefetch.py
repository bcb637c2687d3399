"""Batches made one step ahead in a thread, in step order, each a function of the step number alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch

Batch = TypeVar("Batch")
_END = object()


class Prefetcher(Generic[Batch]):
    """Iterates ``make(step)`` for step = start .. stop - 1.

    One producer thread; at most ``depth`` batches wait. An exception in ``make`` is raised in the consumer.
    Close it (or use ``with``) to end the thread early. ``waited_s``: how long the consumer has waited in all.
    """

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, depth: int = 2):
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._closed = threading.Event()
        self.waited_s = 0.0
        self._thread = threading.Thread(target=self._produce, args=(make, start, stop), daemon=True)
        self._thread.start()

    def _produce(self, make: Callable[[int], Batch], start: int, stop: int) -> None:
        # Of this thread only. With a second team of threads, OpenMP's no longer spin between two operations but sleep,
        # and waking them costs small operations most of their time.
        torch.set_num_threads(1)
        try:
            for step in range(start, stop):
                if not self._put(make(step)):
                    return
            self._put(_END)
        except Exception as error:  # noqa: BLE001 - raised again in the consumer
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Batch]:
        while (item := self._next()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _next(self) -> Any:
        started = time.monotonic()
        item = self._queue.get()
        self.waited_s += time.monotonic() - started
        return item

    def __enter__(self) -> Prefetcher[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=30.0)
