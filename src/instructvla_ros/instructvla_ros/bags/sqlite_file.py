"""One SQLite3 file of a bag: the same view as `McapFile` gives. Damaged databases are read as far as they go."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from instructvla_ros.bags.types import BagError, Channel, Problems

_BATCH = 64


class SqliteFile:
    """Open until `close`. `times_ns` holds, per channel, when its messages were received (ascending)."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self._path, self._problems = path, problems
        # An open recording keeps its newest messages in a write-ahead log, which an immutable database ignores.
        live = path.with_name(path.name + "-wal").exists()
        mode = "mode=ro" if live else "mode=ro&immutable=1"
        self._database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True, check_same_thread=False)
        self._ids = np.empty(0, np.int64)
        try:
            self.channels = self._read_channels()
        except sqlite3.Error as error:
            self._database.close()
            raise BagError(
                f"{path.name} is no readable rosbag2 database: {error}; expected a complete .db3; copy it again"
            ) from error
        rows = self._read_index()
        order = np.lexsort((rows[:, 0], rows[:, 2]))
        self._ids, self._numbers, self._stamps = rows[order].T
        self.times_ns = {number: self._stamps[self._numbers == number] for number in self.channels}

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def messages(
        self, channels: Collection[int], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[int, int, bytes]]:
        """(time, channel, data) in the order of time."""
        keep = np.isin(self._numbers, list(channels))
        if start_ns is not None:
            keep &= self._stamps >= start_ns
        if stop_ns is not None:
            keep &= self._stamps < stop_ns
        chosen = np.flatnonzero(keep)
        for place in range(0, len(chosen), _BATCH):
            batch = chosen[place : place + _BATCH]
            data = self._fetch([int(number) for number in self._ids[batch]])
            for index in batch.tolist():
                blob = data.get(int(self._ids[index]))
                if blob is not None and not isinstance(blob, bytes):
                    self._problems.note(self._path.name, "rows whose message is no bytes were left out")
                elif blob is not None:
                    yield int(self._stamps[index]), int(self._numbers[index]), blob

    def _fetch(self, ids: list[int]) -> dict[int, bytes]:
        """Data by id. Where a page of the database is damaged, the batch is asked for one by one."""
        marks = ",".join("?" * len(ids))
        try:
            return dict(self._database.execute(f"SELECT id, data FROM messages WHERE id IN ({marks})", ids))
        except sqlite3.Error:
            if len(ids) > 1:
                return {key: value for one in ids for key, value in self._fetch([one]).items()}
            self._problems.note(self._path.name, "messages lie in a damaged part of the database and were left out")
            return {}

    def _read_channels(self) -> dict[int, Channel]:
        tables = {row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise sqlite3.DatabaseError("it has no tables topics and messages")
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {
                name: (text, kind)
                for name, kind, text in self._database.execute(query)
                if isinstance(text, str) and isinstance(kind, str)
            }
        found = {}
        for number, topic, kind, serialization in self._database.execute(
            "SELECT id, name, type, serialization_format FROM topics"
        ):
            if not all(isinstance(text, str) for text in (topic, kind, serialization)):
                self._problems.note(self._path.name, "topics without name or type were left out")
                continue
            found[number] = Channel(topic, kind, *definitions.get(kind, ("", "")), serialization=serialization)
        return found

    def _read_index(self) -> np.ndarray:
        """(n, 3) of id, topic id and time, as far as the table can be read; rows that cannot be are noted."""
        rows: list[tuple[int, int, int]] = []
        try:
            for row in self._database.execute("SELECT id, topic_id, timestamp FROM messages"):
                if all(isinstance(value, int) for value in row) and row[2] >= 0:
                    rows.append(row)
                else:
                    self._problems.note(self._path.name, "rows without number, topic or time were left out")
        except sqlite3.Error as error:
            self._problems.note(self._path.name, f"cannot be read to its end: {error}")
        return np.array(rows, np.int64).reshape(-1, 3)
