"""One MCAP file of a bag: an index of its blocks, and its messages in the order of time.

A healthy file is indexed from its summary without touching the messages. Where the summary is missing or does not fit
(a recorder that was killed, a file without chunks), the file is scanned from the front, up to the first place that
cannot be read; everything before it is used.
"""

from __future__ import annotations

import heapq
import io
import struct
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard
from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.stream_reader import CRCValidationError, breakup_chunk

from instructvla_ros.bags.types import BagError, Channel, Problems

MAGIC = b"\x89MCAP0\r\n"
_HEAD = 9  # opcode and length of a record
_FOOTER = _HEAD + 20 + len(MAGIC)
_PLAIN_BLOCK = 1 << 20
_MAX_CHUNK = 1 << 31
_LAST_NS = 2**63 - 1
_UNREADABLE = (
    McapError, CRCValidationError, ValueError, KeyError, IndexError, struct.error, OSError, OverflowError,
    zstandard.ZstdError, RuntimeError,
)  # fmt: skip
"""What broken bytes make the decoders raise (lz4 raises RuntimeError)."""


class _Broken(ValueError):
    """The file cannot be read beyond this place."""


@dataclass(frozen=True)
class Block:
    """A chunk, or a run of messages outside of chunks, and the times between which its messages lie (ns)."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    counts: dict[int, int]


class McapFile:
    """Open until `close`. `times_ns` holds, per channel, when its messages were received (ascending)."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self._path, self._problems = path, problems
        self._file: BinaryIO = path.open("rb")
        self._size = path.stat().st_size
        self._schemas: dict[int, records.Schema] = {}
        self._raw_channels: dict[int, records.Channel] = {}
        self._blocks: list[Block] = []
        self._times: dict[int, list[np.ndarray]] = {}
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            what = "is empty" if self._size == 0 else "does not begin with the MCAP magic"
            raise BagError(f"{path.name} {what}; expected an MCAP file; check that it was copied completely")
        if not self._read_summary():
            self._forget()
            self._scan()
        self.channels = {number: self._channel(channel) for number, channel in self._raw_channels.items()}
        self.times_ns = {
            number: np.sort(np.concatenate(self._times.get(number, [np.empty(0, np.int64)])))
            for number in self.channels
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, channels: Collection[int], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[int, int, bytes]]:
        """(time, channel, data) in the order of time; blocks that cannot be decoded are reported and left out."""
        low = -(2**63) if start_ns is None else start_ns
        high = _LAST_NS + 1 if stop_ns is None else stop_ns
        wanted = set(channels)
        waiting = deque(
            block
            for block in sorted(self._blocks, key=lambda b: (b.start_ns, b.offset))
            if block.start_ns < high and block.end_ns >= low and not wanted.isdisjoint(block.counts)
        )
        heap: list[tuple[int, int, int, bytes]] = []
        order = 0
        while heap or waiting:
            while waiting and (not heap or waiting[0].start_ns <= heap[0][0]):
                for time_ns, number, data in self._read_block(waiting.popleft()):
                    if number in wanted and low <= time_ns < high:
                        order += 1
                        heapq.heappush(heap, (time_ns, order, number, data))
            if heap:
                time_ns, _, number, data = heapq.heappop(heap)
                yield time_ns, number, data

    # Index.

    def _forget(self) -> None:
        self._schemas, self._raw_channels, self._blocks, self._times = {}, {}, [], {}

    def _channel(self, raw: records.Channel) -> Channel:
        schema = self._schemas.get(raw.schema_id)
        if schema is None:
            return Channel(raw.topic, "", serialization=raw.message_encoding)
        text = schema.data.decode("utf-8", errors="replace")
        return Channel(raw.topic, schema.name, text, schema.encoding, raw.message_encoding)

    def _read_summary(self) -> bool:
        """Index from the summary; False where there is none or it does not cover all messages."""
        if self._size < _FOOTER + len(MAGIC):
            self._problems.note(self._path.name, "no end of file: the recording was cut off; read from the front")
            return False
        self._file.seek(-_FOOTER, io.SEEK_END)
        tail = self._file.read(_FOOTER)
        if tail[-len(MAGIC) :] != MAGIC or tail[0] != Opcode.FOOTER:
            self._problems.note(self._path.name, "no end of file: the recording was cut off; read from the front")
            return False
        (start,) = struct.unpack_from("<Q", tail, _HEAD)
        if start == 0:
            return False  # a file without summary is allowed
        indexes: list[records.ChunkIndex] = []
        statistics: records.Statistics | None = None
        try:
            for opcode, offset, length in self._walk(start, self._size - _FOOTER):
                stream = self._payload(offset, length)
                if opcode == Opcode.SCHEMA:
                    schema = records.Schema.read(stream)
                    self._schemas[schema.id] = schema
                elif opcode == Opcode.CHANNEL:
                    channel = records.Channel.read(stream)
                    self._raw_channels[channel.id] = channel
                elif opcode == Opcode.CHUNK_INDEX:
                    indexes.append(records.ChunkIndex.read(stream))
                elif opcode == Opcode.STATISTICS:
                    statistics = records.Statistics.read(stream)
            for index in indexes:
                self._add_indexed(index)
        except _UNREADABLE:
            self._problems.note(self._path.name, "the summary cannot be read; read from the front")
            return False
        known = sum(sum(block.counts.values()) for block in self._blocks)
        return statistics is not None and statistics.message_count == known

    def _add_indexed(self, index: records.ChunkIndex) -> None:
        """A chunk and the times of its messages, from the message indexes behind it."""
        if not 0 <= index.chunk_start_offset < self._size:
            raise _Broken("chunk outside of the file")
        counts: dict[int, int] = {}
        begin = index.chunk_start_offset + index.chunk_length
        for opcode, offset, length in self._walk(begin, begin + index.message_index_length):
            if opcode != Opcode.MESSAGE_INDEX:
                raise _Broken("no message index behind a chunk")
            payload = self._read(offset, length)
            (number,) = struct.unpack_from("<H", payload)
            pairs = np.frombuffer(payload, "<u8", offset=6).reshape(-1, 2)
            if (pairs[:, 0] > _LAST_NS).any():
                raise _Broken("impossible times in a message index")
            if len(pairs):
                counts[number] = counts.get(number, 0) + len(pairs)
                self._times.setdefault(number, []).append(pairs[:, 0].astype(np.int64))
        self._blocks.append(
            Block(
                index.chunk_start_offset, index.chunk_length, index.message_start_time, index.message_end_time, counts
            )
        )

    def _scan(self) -> None:
        """Index by reading everything from the front."""
        plain: list[tuple[int, int]] = []  # (time, channel) of messages outside of chunks
        begin = end = 0

        def close_plain() -> None:
            if plain:
                self._add_block(begin, end - begin, plain)
                plain.clear()

        try:
            for opcode, offset, length in self._walk(len(MAGIC), self._size):
                if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                    break
                if opcode == Opcode.CHUNK:
                    close_plain()
                    messages = self._decode_chunk(offset - _HEAD, length + _HEAD, learn=True)
                    self._add_block(offset - _HEAD, length + _HEAD, [(t, n) for t, n, _ in messages])
                elif opcode == Opcode.MESSAGE:
                    number, _, time_ns = struct.unpack("<HIQ", self._read(offset, 14))
                    if not plain:
                        begin = offset - _HEAD
                    plain.append((time_ns, number))
                    end = offset + length
                    if end - begin > _PLAIN_BLOCK:
                        close_plain()
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._learn(opcode, self._payload(offset, length))
        except _UNREADABLE as error:
            self._problems.note(self._path.name, f"cannot be read to its end: {error or type(error).__name__}")
        close_plain()

    def _add_block(self, offset: int, length: int, messages: list[tuple[int, int]]) -> None:
        if not messages:
            return
        possible = [(time_ns, number) for time_ns, number in messages if time_ns <= _LAST_NS]
        if len(possible) < len(messages):
            lost = len(messages) - len(possible)
            self._problems.note(self._path.name, "messages with impossible times were left out", lost)
        if not possible:
            return
        times = np.array([time_ns for time_ns, _ in possible], np.int64)
        numbers = np.array([number for _, number in possible])
        counts = {}
        for number in np.unique(numbers).tolist():
            chosen = times[numbers == number]
            counts[number] = len(chosen)
            self._times.setdefault(number, []).append(chosen)
        self._blocks.append(Block(offset, length, int(times.min()), int(times.max()), counts))

    # Bytes.

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise _Broken(f"file ends within a record at byte {offset} of {self._size}")
        return data

    def _payload(self, offset: int, length: int) -> ReadDataStream:
        return ReadDataStream(io.BytesIO(self._read(offset, length)))

    def _walk(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(opcode, offset of the content, its length) of the records between two places."""
        while offset < end:
            opcode, length = struct.unpack("<BQ", self._read(offset, _HEAD))
            offset += _HEAD
            if opcode == 0 or offset + length > end:
                raise _Broken(f"file ends, or is damaged, within a record at byte {offset - _HEAD} of {self._size}")
            yield opcode, offset, length
            offset += length

    def _learn(self, opcode: int, stream: ReadDataStream) -> None:
        if opcode == Opcode.SCHEMA:
            schema = records.Schema.read(stream)
            self._schemas[schema.id] = schema
        else:
            channel = records.Channel.read(stream)
            self._raw_channels[channel.id] = channel

    def _read_block(self, block: Block) -> list[tuple[int, int, bytes]]:
        if self._read(block.offset, 1)[0] == Opcode.CHUNK:
            return self._decode_chunk(block.offset, block.length)
        found = []
        for opcode, offset, length in self._walk(block.offset, block.offset + block.length):
            if opcode == Opcode.MESSAGE:
                message = records.Message.read(self._payload(offset, length), length)
                found.append((message.log_time, message.channel_id, message.data))
        return found

    def _decode_chunk(self, offset: int, length: int, *, learn: bool = False) -> list[tuple[int, int, bytes]]:
        """Messages of a chunk; [] and a note where it is damaged."""
        found: list[tuple[int, int, bytes]] = []
        try:
            chunk = records.Chunk.read(self._payload(offset + _HEAD, length - _HEAD))
            if chunk.uncompressed_size > _MAX_CHUNK:
                raise _Broken(f"a chunk says it has {chunk.uncompressed_size} bytes")
            for record in breakup_chunk(chunk, validate_crc=True):
                if isinstance(record, records.Message):
                    found.append((record.log_time, record.channel_id, record.data))
                elif learn and isinstance(record, records.Schema):
                    self._schemas[record.id] = record
                elif learn and isinstance(record, records.Channel):
                    self._raw_channels[record.id] = record
        except _UNREADABLE:
            self._problems.note(self._path.name, f"the chunk at byte {offset} is damaged and was left out")
            return []
        return found
