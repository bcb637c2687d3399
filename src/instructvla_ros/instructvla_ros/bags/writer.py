"""A rosbag2 being written: messages are put from any thread, one thread of its own writes them.

The file is MCAP with chunks compressed by zstd, as `ros2 bag record --storage-preset-profile zstd_fast` makes it, or
SQLite3. A full disk ends the recording cleanly instead of tearing the bag (F25).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter

from instructvla_ros.bags.definitions import definition_of
from instructvla_ros.bags.disk import DiskGuard, Space

_log = logging.getLogger(__name__)
_QUEUE_BYTES = 256_000_000
_VERSION = 9
SYNC_PERIOD_S = 1.0
_UNFIT = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, MemoryError, WriterError,
    cv2.error,
)  # fmt: skip
"""What a message or topic raises that cannot be stored: it must not cost the others."""
CLOSED = "closed"
"""How a recording ends that nothing was wrong with."""
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


@dataclass(frozen=True)
class WriterState:
    """What came of a recording so far. `dropped` counts messages that found the queue full or could not be written;
    `ended` says why the writer takes no more, "" while it does."""

    messages: int
    bytes: int
    dropped: int
    low_space: bool
    ended: str


class BagWriter:
    """`put` and `add_topic` may be called from any thread; `close` ends the bag and is safe to call twice.

    All that touches the files happens in one thread of the writer's own, in the order of the calls. Raises
    FileExistsError where the folder is there already, OSError where it cannot be made or the disk is full.
    """

    def __init__(
        self, folder: Path, *, storage: str = "mcap", guard: DiskGuard | None = None, queue_bytes: int = _QUEUE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        if folder.exists():
            raise FileExistsError(f"{folder} exists already; a bag is never written over: choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._guard = guard or DiskGuard(folder.parent)
        if self._guard.check() is Space.FULL:
            free = self._guard.free_bytes / 1e6
            raise OSError(f"only {free:.0f} MB are free for {folder} (F25); make room or record elsewhere")
        self._writer = Writer(folder, version=_VERSION, storage_plugin=STORAGES[storage])
        if storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}  # the writer's thread
        self._custom: dict[str, str] = {}
        self._clock, self._synced_s = clock, clock()
        self._lock = threading.Lock()  # guards what follows
        self._less = threading.Condition(self._lock)
        self._topics: set[str] = set()
        self._queue_limit = queue_bytes
        self._queued = self._messages = self._bytes = self._dropped = 0
        self._low = self._closing = False
        self._ended = ""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bag")
        self._pool.submit(self._writer.open).result()
        self._note_space()

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Qos] = ()) -> None:
        """Announce a topic before its first message; raises DefinitionError for a type that is not installed."""
        text, digest = definition_of(type_name)
        with self._lock:
            if topic in self._topics or self._ended or self._closing:
                return
            self._topics.add(topic)
            self._pool.submit(self._connect, topic, type_name, text, digest, list(qos))

    def put(self, topic: str, stamp_ns: int, data: bytes) -> bool:
        """Write a serialized message; False where it was not taken."""
        return self.put_later(topic, stamp_ns, lambda: data, len(data))

    def put_later(self, topic: str, stamp_ns: int, make: Callable[[], bytes], size: int) -> bool:
        """As `put`, with data that the writer's thread makes (a picture to compress); `size` is what it holds now.

        Where `make` raises the message is dropped and counted.
        """
        with self._lock:
            if self._ended or self._closing or self._queued + size > self._queue_limit:
                self._dropped += not (self._ended or self._closing)
                return False
            self._queued += size
            self._pool.submit(self._write, topic, stamp_ns, make, size)
        return True

    def wait_below(self, queued_bytes: int) -> None:
        """Wait until no more than so much is queued: for those who can, a recorder cannot."""
        with self._less:
            self._less.wait_for(lambda: self._queued <= queued_bytes)

    def note(self, key: str, value: str) -> None:
        """Keep a text in the bag's metadata (custom_data)."""
        self._custom[key] = value

    @property
    def state(self) -> WriterState:
        """Numbers up to now."""
        with self._lock:
            return WriterState(self._messages, self._bytes, self._dropped, self._low, self._ended)

    def close(self) -> WriterState:
        """Write what is queued, then the index and the metadata."""
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._pool.submit(self._close).result()
        self._pool.shutdown()
        return self.state

    # The writer's thread.

    def _connect(self, topic: str, type_name: str, text: str, digest: str, qos: list[Qos]) -> None:
        try:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, msgdef=text, rihs01=digest, offered_qos_profiles=qos
            )
        except (OSError, sqlite3.Error) as error:
            self._end(f"the disk refused to take more: {error} (F25)")
        except _UNFIT:  # the other topics are recorded all the same
            _log.exception("%s cannot be recorded", topic)

    def _write(self, topic: str, stamp_ns: int, make: Callable[[], bytes], size: int) -> None:
        written: int | None = None
        try:
            if not self._ended and topic in self._connections:
                data = make()
                self._writer.write(self._connections[topic], stamp_ns, data)
                written = len(data)
                self._sync()
        except (OSError, sqlite3.Error) as error:
            self._end(f"the disk refused to take more: {error} (F25)")
        except _UNFIT as error:
            _log.warning("a message of %s was left out: %s", topic, error)
        finally:
            with self._less:
                self._messages += written is not None
                self._bytes += written or 0
                self._dropped += written is None  # whatever was raised
                self._queued -= size
                self._less.notify_all()
        if written is not None:
            self._guard.wrote(written)
            self._note_space()

    def _sync(self) -> None:
        """Put on the disk what was written, once a second: what a power cut leaves is read up to there. MCAP only."""
        now_s = self._clock()
        storage = self._writer.storage
        if now_s - self._synced_s >= SYNC_PERIOD_S and isinstance(storage, McapWriter):
            self._synced_s = now_s
            if storage.chunk.msgs:
                storage.close_chunk()
            storage.bio.flush()
            os.fsync(storage.bio.fileno())

    def _note_space(self) -> None:
        free = self._guard.free_bytes
        if self._guard.space is Space.FULL:
            self._end(f"only {free / 1e6:.0f} MB are free (F25); the bag ends here and is complete")
        elif self._guard.space is Space.LOW and not self._low:
            self._low = True
            _log.warning("only %.1f GB are free for %s (F25)", free / 1e9, self.folder)

    def _close(self) -> None:
        try:
            for key, value in self._custom.items():
                self._writer.set_custom_data(key, value)
            self._writer.close()
        except (OSError, sqlite3.Error) as error:
            self._end(f"the end of the bag could not be written: {error} (F25)")
            self._writer.abort()
        with self._lock:
            self._ended = self._ended or CLOSED

    def _end(self, why: str) -> None:
        with self._lock:
            self._ended = self._ended or why
        _log.error("recording ended: %s", why)
