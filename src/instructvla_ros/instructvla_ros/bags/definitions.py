"""Texts of message definitions as rosbag2 stores them beside the messages, from the installed .msg files.

rosbag2 writes the file of the type itself, then that of every type it contains, each behind a line of 80 equals signs
and a line "MSG: <package>/<name>"; fields are walked in alphabetical order of their types, depth first, each type once.
"""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError
from rosbags.typesys.store import Typestore

_RULE = "=" * 80
_FIELD = re.compile(r"^\s*([A-Za-z0-9_/]+)(?:\[[^\]]*\])?\s+", re.MULTILINE)
_PRIMITIVES = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64", "string", "wstring",
}  # fmt: skip
_TYPE = re.compile(r"^([A-Za-z]\w*)(?:/(?:msg))?/([A-Za-z]\w*)$")


class DefinitionError(ValueError):
    """A type has no definition here; the message names it."""


def _message_file(package: str, name: str) -> Path | None:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in prefixes:
        path = Path(prefix) / "share" / package / "msg" / f"{name}.msg" if prefix else None
        if path is not None and path.is_file():
            return path
    return None


def _parts(type_name: str) -> tuple[str, str]:
    match = _TYPE.match(type_name)
    if match is None:
        raise DefinitionError(f"{type_name!r} is no message type; expected package/msg/Name")
    return match[1], match[2]


def _text(type_name: str, seen: set[str]) -> str:
    package, name = _parts(type_name)
    path = _message_file(package, name)
    if path is None:
        raise DefinitionError(f"no definition of {type_name} is installed; install the package {package}")
    text = path.read_text(encoding="utf-8")
    inner = {field if "/" in field else f"{package}/{field}" for field in _FIELD.findall(text)}
    for dependency in sorted(d for d in inner if d.partition("/")[2] not in _PRIMITIVES):
        if dependency not in seen:
            seen.add(dependency)
            text += f"\n{_RULE}\nMSG: {dependency}\n{_text(dependency, seen)}"
    return text


@lru_cache(maxsize=256)
def definition_of(type_name: str) -> tuple[str, str]:
    """(text, RIHS01 hash) of a message type, as rosbag2 writes them; raises DefinitionError.

    The text comes from the installed .msg files; without ROS, standard types come from the `rosbags` library.
    """
    package, name = _parts(type_name)
    full = f"{package}/msg/{name}"
    try:
        text = _text(full, {full})
        store = typestore_of({full: (text, "ros2msg")})
    except DefinitionError:
        store = get_typestore(Stores.ROS2_JAZZY)
        if full not in store.fielddefs:
            raise
        text, _ = store.generate_msgdef(full, ros_version=2)
    return text, store.hash_rihs01(full)


def typestore_of(definitions: dict[str, tuple[str, str]]) -> Typestore:
    """A store that knows the given types: name -> (text, "ros2msg" or "ros2idl"). Raises DefinitionError."""
    store = get_typestore(Stores.EMPTY)
    for name, (text, encoding) in definitions.items():
        add_types(store, name, text, encoding)
    return store


def add_types(store: Typestore, name: str, text: str, encoding: str) -> None:
    """Teach a store a type and what it contains; raises DefinitionError where the text cannot be parsed."""
    try:
        found: dict[str, Any] = get_types_from_idl(text) if encoding == "ros2idl" else get_types_from_msg(text, name)
        store.register({key: value for key, value in found.items() if key not in store.fielddefs})
    except (TypesysError, ValueError, KeyError, IndexError) as error:
        raise DefinitionError(f"the definition of {name} cannot be understood: {error}") from error
