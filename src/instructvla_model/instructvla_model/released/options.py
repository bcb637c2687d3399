"""What whoever imports says, because no file does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from instructvla_model.manifest import CheckpointError
from instructvla_model.weights import DTYPES


@dataclass(frozen=True)
class ImportOptions:
    """What the files do not say. Raises CheckpointError for values that cannot be."""

    regime: str | None = None  # None: the released code's for a policy, the paper's for a bare backbone
    dtype: str | None = None  # None: the source's
    adapters: Mapping[str, Path] = field(default_factory=dict)  # our name -> peft folder
    adapter_names: tuple[str, ...] | None = None  # of a stage 2 file's adapters 0, 1, ...
    drop_unread: bool = False  # leave out the blocks of the expert's vision tower that nothing reads
    views: tuple[str, ...] | None = None  # None: the preset's
    dt_s: float | None = None  # duration of a step; None: the preset's
    dataset: str | None = None  # whose statistics they are: noted, and written back by an export
    dinov2: Path | None = None  # a bare backbone gets an expert: its vision tower from this file, the rest fresh
    seed: int = 0  # of all that comes from no file

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise CheckpointError(f"dtype {self.dtype!r}; expected one of {sorted(DTYPES)}, or none for the source's")
        if self.dt_s is not None and not 0.0 < self.dt_s < math.inf:
            raise CheckpointError(f"a step of {self.dt_s} s (--dt); expected seconds above 0, for example 0.2")
        if self.views is not None and (not all(self.views) or len(set(self.views)) != len(self.views)):
            raise CheckpointError(
                f"views {self.views} (--views); expected different names, for example primary or primary,wrist"
            )
        if self.dinov2 is not None and self.adapters:
            raise CheckpointError(
                "adapter folders (--adapter) beside a DINOv2 (--dinov2); expected one of them: an expert that begins "
                "anew has no adapter yet"
            )
        self._check_adapters()

    def _check_adapters(self) -> None:
        for names, option in ((tuple(self.adapters), "--adapter"), (self.adapter_names or (), "--adapter-names")):
            strange = [name for place, name in enumerate(names) if not _fits(name, place, option == "--adapter-names")]
            if strange or len(set(names)) != len(names):
                raise CheckpointError(
                    f"adapters named {names} ({option}); expected different names of letters, digits and underscores, "
                    "for example action and language"
                )
        if len(self.adapters) == 1 and "action" not in self.adapters:
            raise CheckpointError(
                f"one adapter, named {next(iter(self.adapters))!r} (--adapter); expected action=DIR, the adapter of "
                "stage 1, alone or with others beside it"
            )


def _fits(name: str, place: int, counted: bool) -> bool:
    """A name that a module can have; or, in a released file, the number that the adapter has there already."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and not hasattr(nn.ModuleDict(), name)
    return plain or (counted and name == str(place))
