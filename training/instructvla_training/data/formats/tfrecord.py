"""TFRecord files and tf.train.Example messages, without TensorFlow.

A record is: length (uint64, little-endian), masked CRC-32C of those 8 bytes, the data, masked CRC-32C of the data.
The message types are those of TensorFlow's example.proto and feature.proto, declared here field by field.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from .episode import DataError

_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size
_MASK_DELTA = 0xA282EAD8
Value = list[bytes] | np.ndarray
"""A feature: bytes, or numbers as (n,) float32 or int64."""


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 bits and shifted by a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def record_offsets(path: Path) -> np.ndarray:
    """Byte offset of each record's header; only headers are read. Raises DataError on a damaged one."""
    offsets, size = [], path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            length = _read_length(file, path, position)
            offsets.append(position)
            position += _HEADER + length + _CRC.size
            if position > size:
                raise DataError(
                    f"{path}: ends {position - size} bytes before its last record does; copy the file again"
                )
            file.seek(position)
    return np.array(offsets, dtype=np.int64)


def read_record(path: Path, offset: int) -> bytes:
    """The data of the record whose header is at ``offset``. Raises DataError where a checksum does not fit."""
    with path.open("rb") as file:
        file.seek(offset)
        length = _read_length(file, path, offset)
        data, crc = file.read(length), file.read(_CRC.size)
    if len(data) != length or len(crc) != _CRC.size or _CRC.unpack(crc)[0] != masked_crc(data):
        raise DataError(f"{path}: checksum of the record at byte {offset} does not fit; copy the file again")
    return data


def _read_length(file: Any, path: Path, offset: int) -> int:
    header = file.read(_HEADER)
    if len(header) != _HEADER or _CRC.unpack_from(header, _LENGTH.size)[0] != masked_crc(header[: _LENGTH.size]):
        raise DataError(f"{path}: no TFRecord header at byte {offset}; expected an uncompressed TFRecord file")
    return int(_LENGTH.unpack_from(header)[0])


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file -> number of records."""
    count = 0
    with path.open("wb") as file:
        for data in records:
            length = _LENGTH.pack(len(data))
            file.write(length + _CRC.pack(masked_crc(length)) + data + _CRC.pack(masked_crc(data)))
            count += 1
    return count


def _example_class() -> Any:
    """tf.train.Example: {features: {feature: map<string, oneof bytes_list | float_list | int64_list>}}."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="instructvla/example.proto", package="instructvla.tf", syntax="proto3"
    )
    lists = (("BytesList", field.TYPE_BYTES), ("FloatList", field.TYPE_FLOAT), ("Int64List", field.TYPE_INT64))
    for name, kind in lists:
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, key) in enumerate(zip(("bytes_list", "float_list", "int64_list"), lists, strict=True), 1):
        feature.field.add(
            name=name, number=number, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, oneof_index=0,
            type_name=f".instructvla.tf.{key[0]}",
        )  # fmt: skip
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=".instructvla.tf.Feature"
    )
    features.field.add(
        name="feature", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
        type_name=".instructvla.tf.Features.FeatureEntry",
    )  # fmt: skip
    file.message_type.add(name="Example").field.add(
        name="features", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
        type_name=".instructvla.tf.Features",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("instructvla.tf.Example"))


_Example = _example_class()


def parse_example(data: bytes, source: str) -> dict[str, Value]:
    """Features of a serialised tf.train.Example by name. Raises DataError that names ``source``."""
    try:
        message = _Example.FromString(data)
    except DecodeError as error:
        raise DataError(f"{source}: {error}; expected a tf.train.Example") from error
    found: dict[str, Value] = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            found[name] = list(feature.bytes_list.value)
        elif kind is not None:
            values = getattr(feature, kind).value
            found[name] = np.array(values, dtype=np.float32 if kind == "float_list" else np.int64)
    return found


def serialize_example(features: Mapping[str, Value]) -> bytes:
    """Inverse of `parse_example`: bytes, floats and integers into their lists."""
    message = _Example()
    for name, value in features.items():
        feature = message.features.feature[name]
        if isinstance(value, list):
            feature.bytes_list.value.extend(value)
        elif np.issubdtype(value.dtype, np.floating):
            feature.float_list.value.extend(value.ravel().tolist())
        else:
            feature.int64_list.value.extend(value.ravel().astype(np.int64).tolist())
    return bytes(message.SerializeToString(deterministic=True))
