"""Where the package `instructvla` keeps its parameter files and checkpoints, in a checkout or installed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)
DEFAULT_CHECKPOINTS = ("nano-generalist", "nano-expert", "generalist", "expert")


def repository_root() -> Path | None:
    """The checkout this package was imported from, or None when it is installed."""
    root = Path(__file__).resolve().parents[4]
    return root if (root / "launch" / "package.xml").is_file() else None


def _share_folders() -> Iterator[Path]:
    chosen = os.environ.get("INSTRUCTVLA_SHARE")
    if chosen:
        yield Path(chosen)
    root = repository_root()
    if root is not None:
        yield root / "launch"
    for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        if prefix:
            yield Path(prefix) / "share" / "instructvla"


def params_file(name: str) -> Path:
    """The parameter file of this name; raises FileNotFoundError that lists where it was looked for."""
    looked = []
    for folder in _share_folders():
        path = folder / "config" / name
        if path.is_file():
            return path
        looked.append(str(path))
    raise FileNotFoundError(
        f"no parameter file {name}; looked for {', '.join(looked)}. Install the package instructvla"
    )


def checkpoint_folders() -> list[Path]:
    """Folders that may hold checkpoints, most specific first."""
    chosen = os.environ.get("INSTRUCTVLA_CHECKPOINTS")
    root = repository_root()
    folders = [Path(chosen)] if chosen else []
    if root is not None:
        folders.append(root / "checkpoints")
    return folders + [folder / "checkpoints" for folder in _share_folders()]


def resolve_checkpoint(given: str) -> str:
    """A path as given if it exists, else a shipped checkpoint of that name; "" picks the shipped default.

    What cannot be found is returned as it is, with a warning that tells why: the node says what is wrong with it, and
    the arm holds.
    """
    if given and Path(given).expanduser().exists():
        return str(Path(given).expanduser().resolve())
    for name in [given] if given else DEFAULT_CHECKPOINTS:
        for folder in checkpoint_folders():
            if (folder / name).is_dir():
                return str(folder / name)
    _log.warning("%s", _not_found(given))
    return given


def _not_found(given: str) -> str:
    folders = dict.fromkeys(folder.resolve() for folder in checkpoint_folders() if folder.is_dir())
    names = sorted({path.parent.name for folder in folders for path in folder.glob("*/manifest.json")})
    found = f"there is no checkpoint {given}" if given else f"found no checkpoint {' or '.join(DEFAULT_CHECKPOINTS)}"
    if names:
        places = ", ".join(map(str, folders))
        return f"{found}, but {', '.join(names)} in {places}; give one of these names, or a checkpoint's folder"
    return (
        f"{found}, and none ships with this installation: the package instructvla was built without the repository's "
        "checkpoints/. Give a checkpoint's folder, or name the folder that holds checkpoints in INSTRUCTVLA_CHECKPOINTS"
    )
