"""What every reader hands out: episodes with numbers in memory and images that are decoded when asked for.

Actions are 7-D end-effector deltas, [dx, dy, dz, droll, dpitch, dyaw, gripper]: metres, radians, base axes, and
the absolute opening of the gripper, 1 = open. States are 8-D; `StateLayout` says what the eight numbers are.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from instructvla_training.language.vla_it import EpisodeAnnotation

ACTION_DIM, STATE_DIM = 7, 8
ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
VIEWS = ("primary", "wrist")


class DataError(ValueError):
    """Data that cannot be used: what was found, what was expected, how to mend it."""


class StateLayout(Enum):
    """The names of the eight numbers of a state (metres, radians, gripper 0..1 unless said otherwise)."""

    RPY = ("x", "y", "z", "roll", "pitch", "yaw", "pad", "gripper")  # gripper: opening; Bridge, this project
    QUATERNION = ("x", "y", "z", "rx", "ry", "rz", "rw", "gripper")  # gripper: closing; Fractal
    AXIS_ANGLE = ("x", "y", "z", "ax", "ay", "az", "finger_left", "finger_right")  # fingers in metres; LIBERO


class Images(ABC):
    """The frames of one camera in one episode: (H, W, 3) uint8 RGB, decoded on access and not kept."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, step: int) -> np.ndarray: ...

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[step] for step in range(len(self)))


@dataclass(frozen=True)
class EncodedImages(Images):
    """JPEG or PNG bytes, one per frame. ``source`` is for messages."""

    encoded: Sequence[bytes]
    source: str

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, step: int) -> np.ndarray:
        return decode_image(self.encoded[step], f"{self.source}, frame {step}")


@dataclass(frozen=True)
class ArrayImages(Images):
    """Frames that are in memory already, (T, H, W, 3) uint8."""

    frames_THWC: np.ndarray

    def __len__(self) -> int:
        return len(self.frames_THWC)

    def __getitem__(self, step: int) -> np.ndarray:
        return self.frames_THWC[step]


@dataclass(frozen=True)
class SlicedImages(Images):
    """Frames ``start`` .. ``start + count - 1`` of others."""

    images: Images
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> np.ndarray:
        if not 0 <= step < self.count:
            raise IndexError(step)
        return self.images[self.start + step]


def decode_image(encoded: bytes, source: str) -> np.ndarray:
    """Bytes of an image file -> (H, W, 3) uint8 RGB. Raises DataError that names the source."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    if image is None:
        raise DataError(
            f"{source}: found {len(encoded)} bytes that are no image, expected JPEG or PNG; export it again"
        )
    return np.asarray(image)


@dataclass(frozen=True)
class Episode:
    """One episode of T steps. The action of step t is what was done after the images and state of step t.

    ``file_path`` and ``episode_id`` are the key of its VLA-IT annotations.
    """

    file_path: str
    episode_id: str
    instruction: str  # empty where the data has none
    state_TS: np.ndarray  # (T, 8) float32
    action_TA: np.ndarray  # (T, 7) float32
    images: Mapping[str, Images]  # by view; each of length T
    time_s: np.ndarray | None = field(default=None, compare=False)  # (T,) float64, where the data says
    annotation: EpisodeAnnotation | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        length = len(self.action_TA)
        shapes = {"state": self.state_TS.shape, "action": self.action_TA.shape}
        if shapes != {"state": (length, STATE_DIM), "action": (length, ACTION_DIM)} or not length:
            raise DataError(
                f"{self.name}: found shapes {shapes}, expected (T, {STATE_DIM}) and (T, {ACTION_DIM}); "
                "name the right features or convert the data"
            )
        for view, images in self.images.items():
            if len(images) != length:
                raise DataError(f"{self.name}: found {len(images)} {view} images for {length} steps, expected as many")

    @property
    def name(self) -> str:
        return f"{self.file_path}/{self.episode_id}"

    def __len__(self) -> int:
        return len(self.action_TA)

    def view(self, name: str) -> Images:
        """The images of one view. Raises DataError where there is none."""
        if name not in self.images:
            raise DataError(
                f"{self.name}: found views {sorted(self.images)}, expected {name!r} too; name the camera: --camera "
                f"{name}=KEY"
            )
        return self.images[name]


class EpisodeDataset(ABC, Sequence[Episode]):
    """Episodes by number, read from disk on access: nothing but an index is kept in memory.

    An episode may be empty of language; a frame's image is decoded when it is asked for. Reading the same number
    twice gives the same episode, so any order under a seed can be repeated.
    """

    name: str
    format: str
    root: Path
    dt_s: float  # duration of one step
    layout: StateLayout
    views: tuple[str, ...]  # views that it has, of VIEWS
    robot: str = ""  # whose episodes they are, where the data says

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Episode: ...  # type: ignore[override]

    @abstractmethod
    def files(self) -> list[Path]:
        """Every file whose content the episodes are made of, in a fixed order."""

    def other_splits(self) -> Sequence[EpisodeDataset]:
        """Episodes that are not trained on and still count for the statistics."""
        return ()

    @property
    def reading(self) -> str:
        """In words, how the episodes are made of the files: enters the hash of the statistics."""
        return f"{self.format} {self.layout.name} {','.join(self.views)} {self.dt_s:g}"

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} episodes; there is no number {index}")
        return index % len(self)


@contextmanager
def whole(source: object, expected: str) -> Iterator[None]:
    """What libraries make of damaged or foreign files becomes a DataError that names ``source``."""
    try:
        yield
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        found = f"no {found}" if isinstance(error, KeyError | FileNotFoundError) else found
        raise DataError(f"{source}: found {found}, expected {expected}; copy or export the dataset again") from error


def absolute(path: Path) -> Path:
    """Without "." and "..", links as they are: episodes bear their folder's name, in whatever way it is reached."""
    return Path(os.path.abspath(path))


def choose_cameras(keys: Sequence[str], wanted: Mapping[str, str], source: Path) -> dict[str, str]:
    """View -> key. ``wanted`` decides; else the names do: wrist or hand for "wrist", one other for "primary".

    Raises DataError where a wanted key is missing or several cameras could be the primary one.
    """
    missing = sorted(set(wanted.values()) - set(keys))
    if missing or set(wanted) - set(VIEWS):
        raise DataError(
            f"{source}: found cameras {sorted(keys)}, expected {dict(wanted)}; name views of {VIEWS} and their keys"
        )
    chosen = dict(wanted)
    rest = [key for key in keys if key not in chosen.values()]
    wrist = [key for key in rest if any(word in key.lower() for word in ("wrist", "hand", "gripper"))]
    if "wrist" not in chosen and wrist:
        if len(wrist) > 1:
            raise DataError(
                f"{source}: found cameras {sorted(wrist)}, any of which could be the one at the wrist; "
                f"name it: --camera wrist={sorted(wrist)[0]}"
            )
        chosen["wrist"] = wrist[0]
    others = [key for key in rest if key not in wrist]
    known = [key for key in others if key.split(".")[-1] in ("primary", "image_0", "image")]
    if "primary" not in chosen and others:
        if len(others) > 1 and len(known) != 1:
            raise DataError(
                f"{source}: found cameras {sorted(others)}, any of which could be the primary one; "
                f"name it: --camera primary={others[0]}"
            )
        chosen["primary"] = (known or others)[0]
    return {view: chosen[view] for view in VIEWS if view in chosen}
