"""A bag as a whole: its files in one order of time, whatever its storage, compression or state of repair."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
import zstandard

from instructvla_ros.bags.mcap_file import McapFile
from instructvla_ros.bags.sqlite_file import SqliteFile
from instructvla_ros.bags.types import BagError, BagInfo, Problem, Problems, Record, Topic

_FILES: dict[str, type[McapFile] | type[SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
_ZSTD = (".zstd", ".zst")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_NEWEST_VERSION = 9


def is_storage_file(path: Path) -> bool:
    """Whether a file is, by its name, one of a bag's: .mcap or .db3, also compressed by zstd."""
    return path.suffix in _FILES or (path.suffix in _ZSTD and Path(path.stem).suffix in _FILES)


class Bag:
    """Use with `with`. `problems` grows while messages are read. Nothing that is wrong with a bag raises, except
    BagError on opening, when not a single file can be read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._problems = Problems()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if not self.path.exists():
            raise BagError(f"{self.path} does not exist; give a folder with metadata.yaml, an .mcap or a .db3 file")
        self.info = self._read_metadata()
        self._files: list[McapFile | SqliteFile] = []
        self._open_files()
        self.topics = self._merge_topics()
        count = sum(topic.count for topic in self.topics.values())
        if self.info.message_count is not None and self.info.message_count != count:
            self._problems.note("metadata.yaml", f"says {self.info.message_count} messages, {count} were found")
        if count == 0:
            self._problems.note(self.name, "holds no messages")

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files and remove what was unpacked."""
        for file in self._files:
            file.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def name(self) -> str:
        """The name of the folder or file."""
        return self.path.resolve().name

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong so far."""
        return self._problems.all()

    def note(self, where: str, what: str, count: int = 1) -> None:
        """Add a problem that a reader of the messages has found."""
        self._problems.note(where, what, count)

    @property
    def start_ns(self) -> int:
        """Time of the first message; 0 for an empty bag."""
        return min((int(t.times_ns[0]) for t in self.topics.values() if t.count), default=0)

    @property
    def end_ns(self) -> int:
        """Time of the last message; 0 for an empty bag."""
        return max((int(t.times_ns[-1]) for t in self.topics.values() if t.count), default=0)

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last message."""
        return (self.end_ns - self.start_ns) * 1e-9

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Record]:
        """Messages in the order in which they were received; of all topics, or of those named."""
        streams = [self._stream(file, topics, start_ns, stop_ns) for file in self._files]
        yield from heapq.merge(*streams, key=lambda record: record.stamp_ns)

    def _stream(
        self, file: McapFile | SqliteFile, topics: Collection[str] | None, start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Record]:
        channels = {n: c for n, c in file.channels.items() if topics is None or c.topic in topics}
        for stamp_ns, number, data in file.messages(list(channels), start_ns, stop_ns):
            channel = channels[number]
            if data[:4] == _ZSTD_MAGIC:  # compression mode "message"; plain CDR begins with 00
                try:
                    data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
                except zstandard.ZstdError:
                    self._problems.note(channel.topic, "messages whose compression is damaged were left out")
                    continue
            yield Record(channel.topic, channel.type_name, stamp_ns, data)

    # Opening.

    def _read_metadata(self) -> BagInfo:
        if self.path.is_file():
            return BagInfo()
        file = self.path / "metadata.yaml"
        if not file.is_file():
            self._problems.note(
                "metadata.yaml", "is missing (the recording did not end properly); the files themselves are read"
            )
            return BagInfo()
        try:
            raw: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
            info = BagInfo(
                version=int(raw["version"]),
                storage=str(raw["storage_identifier"]),
                compression_mode=str(raw.get("compression_mode") or "").lower().replace("none", ""),
                distribution=str(raw.get("ros_distro") or ""),
                message_count=int(raw["message_count"]),
                custom={str(k): str(v) for k, v in (raw.get("custom_data") or {}).items()},
                raw=raw,
            )
        except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._problems.note("metadata.yaml", f"cannot be read ({reason}); the files themselves are read")
            return BagInfo()
        if info.version > _NEWEST_VERSION:
            self._problems.note(
                "metadata.yaml", f"version {info.version} is newer than {_NEWEST_VERSION}; read as such"
            )
        return info

    def _paths(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        there = sorted(path for path in self.path.iterdir() if is_storage_file(path))
        listed = [self.path / Path(str(name)).name for name in self.info.raw.get("relative_file_paths") or []]
        for path in listed:
            if not path.is_file():
                self._problems.note(path.name, "is named by metadata.yaml but is not there")
        return [path for path in listed if path.is_file()] or there

    def _open_files(self) -> None:
        paths, last = self._paths(), ""
        for path in paths:
            try:
                plain = self._unpacked(path)
                kind = _FILES.get(plain.suffix)
                if kind is None:
                    raise BagError(f"{path.name} is neither .mcap nor .db3, nor one of these compressed by zstd")
                self._files.append(kind(plain, self._problems))
            except (BagError, OSError) as error:
                last = str(error)
                self._problems.note(path.name, last.removeprefix(f"{path.name} "))
        if not self._files:
            self.close()
            raise BagError(last or f"{self.path} holds no .mcap or .db3 file; give the folder of a rosbag2 recording")

    def _unpacked(self, path: Path) -> Path:
        """The file itself, or a copy without compression (mode "file") that goes with this object."""
        if path.suffix not in _ZSTD:
            return path
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="instructvla_bag_")
        plain = Path(self._scratch.name) / path.stem
        with path.open("rb") as source, plain.open("wb") as target:
            try:
                zstandard.ZstdDecompressor().copy_stream(source, target)
            except zstandard.ZstdError as error:
                self._problems.note(path.name, f"is damaged ({error}); the part before that is read")
        return plain

    def _merge_topics(self) -> dict[str, Topic]:
        """Topics of all files by name. A topic whose type changes between files keeps the first."""
        found: dict[str, Topic] = {}
        for file in self._files:
            for number, channel in sorted(file.channels.items()):
                times = file.times_ns[number]
                old = found.get(channel.topic)
                if old is None:
                    found[channel.topic] = Topic(
                        channel.topic, channel.type_name, times, channel.definition, channel.encoding
                    )
                    continue
                if old.type_name != channel.type_name:
                    self._problems.note(channel.topic, f"has the types {old.type_name} and {channel.type_name}")
                merged = np.sort(np.concatenate([old.times_ns, times]))
                found[channel.topic] = Topic(old.name, old.type_name, merged, old.definition, old.encoding)
        return dict(sorted(found.items()))
