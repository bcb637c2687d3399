"""Bridge V2, Fractal (RT-1) and LIBERO as released in RLDS, brought to the common action and state (reference §5.5).

Each source says where its images, state and action lie and what is done to them. The gripper becomes an absolute
opening, 1 = open; actions of Bridge become differences of reached states, which removes its first and last step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .episode import DataError, EncodedImages, Episode, EpisodeDataset, Images, SlicedImages, StateLayout, whole
from .tfds import RawEpisode, TfdsReader, find_version

logger = logging.getLogger(__name__)

OPEN_ABOVE, CLOSED_BELOW = 0.95, 0.05
_RELATIVE = 0.1
Numbers = tuple[np.ndarray, np.ndarray, slice]
"""States, actions, and which of the stored steps they belong to."""


@dataclass(frozen=True)
class Source:
    """How one released dataset is read. ``rate_hz`` is its control rate."""

    cameras: Mapping[str, str]  # view -> name below steps/observation/
    language: str  # name below steps/
    rate_hz: float
    layout: StateLayout
    numbers: Callable[[RawEpisode], Numbers]


def binarize_gripper(opening_T: np.ndarray) -> np.ndarray:
    """Openings -> 0 or 1; values in between take what follows them, those at the very end stay as they are."""
    binary = np.empty(len(opening_T), dtype=np.float32)
    carry = opening_T[-1]
    for step in reversed(range(len(opening_T))):
        if opening_T[step] > OPEN_ABOVE or opening_T[step] < CLOSED_BELOW:
            carry = float(opening_T[step] > OPEN_ABOVE)
        binary[step] = carry
    return binary


def absolute_gripper(closing_T: np.ndarray) -> np.ndarray:
    """Relative commands (+1 closes, -1 opens, 0 keeps) -> openings 0 or 1.

    Before its first command the gripper is in the opposite state of that command; without any it is open.
    """
    command = np.where(closing_T < -_RELATIVE, 1.0, np.where(closing_T > _RELATIVE, -1.0, 0.0))
    given = np.flatnonzero(command)
    carry = -command[given[0]] if len(given) else 1.0
    opening = np.empty(len(closing_T), dtype=np.float32)
    for step, value in enumerate(command):
        carry = value or carry
        opening[step] = (carry + 1.0) / 2.0
    return opening


def _number(raw: RawEpisode, name: str) -> np.ndarray:
    value = raw.steps.get(name)
    if not isinstance(value, np.ndarray):
        raise DataError(f"{raw.source}: steps/{name} is missing or holds no numbers; expected it in this dataset")
    return value.astype(np.float32)


def bridge_numbers(raw: RawEpisode) -> Numbers:
    """Step 0, whose action is all zero, goes; so does the last, which has no state after it."""
    state, action = _number(raw, "observation/state")[1:], _number(raw, "action")[1:]
    if len(state) < 2:
        raise DataError(f"{raw.source}: found {len(state) + 1} steps, expected at least 3; drop the episode")
    if len(action) != len(state):
        raise DataError(f"{raw.source}: found {len(action)} actions, expected {len(state)} as there are states")
    moved = state[1:, :6] - state[:-1, :6]
    opening = np.where(np.isfinite(action[:, 6]), binarize_gripper(action[:, 6]), np.nan)[:-1]  # a NaN stays one
    pad = np.zeros((len(state), 1), np.float32)
    states = np.concatenate([state[:, :6], pad, state[:, -1:]], axis=1)
    return states[:-1], np.column_stack([moved, opening]), slice(1, len(state))


def fractal_numbers(raw: RawEpisode) -> Numbers:
    closing = _number(raw, "action/gripper_closedness_action").reshape(-1)
    moved = (_number(raw, "action/world_vector"), _number(raw, "action/rotation_delta"))
    state = np.concatenate(
        [_number(raw, "observation/base_pose_tool_reached"), _number(raw, "observation/gripper_closed").reshape(-1, 1)],
        1,
    )
    return state, np.column_stack([*moved, absolute_gripper(closing)]), slice(0, len(state))


def libero_numbers(raw: RawEpisode) -> Numbers:
    action = _number(raw, "action").copy()
    action[:, 6] = 1.0 - np.clip(action[:, 6], 0.0, 1.0)
    state = _number(raw, "observation/state")
    return np.concatenate([state[:, :6], state[:, -2:]], axis=1), action, slice(0, len(state))


def plain_numbers(raw: RawEpisode) -> Numbers:
    """8-D states and 7-D actions that are in the common form already."""
    action = _number(raw, "action")
    return _number(raw, "observation/state"), action, slice(0, len(action))


BRIDGE = Source({"primary": "image_0"}, "language_instruction", 5.0, StateLayout.RPY, bridge_numbers)
FRACTAL = Source(
    {"primary": "image"}, "observation/natural_language_instruction", 3.0, StateLayout.QUATERNION, fractal_numbers
)
LIBERO = Source(
    {"primary": "image", "wrist": "wrist_image"}, "language_instruction", 20.0, StateLayout.AXIS_ANGLE, libero_numbers
)
FRANKA = Source(
    {"primary": "image_3", "wrist": "image_1"}, "language_instruction", 10.0, StateLayout.RPY, plain_numbers
)
SOURCES = {"bridge": BRIDGE, "fractal": FRACTAL, "libero": LIBERO, "franka": FRANKA}
_BY_NAME = {"bridge_dataset": "bridge", "bridge_orig": "bridge", "fractal20220817_data": "fractal", "math": "franka"}


def source_of(name: str) -> str | None:
    """The source that a TFDS dataset's name stands for, None where it is unknown.

    LIBERO-10 as released calls itself ``liber_o10`` in a folder ``libero_10_no_noops``.
    """
    return "libero" if name.startswith(("libero_", "liber_o")) else _BY_NAME.get(name)


class RldsDataset(EpisodeDataset):
    """One split of a TFDS dataset that one of `SOURCES` describes.

    It bears the name of its folder where that is a known one, else the name that it gives itself: the suites of LIBERO,
    ``libero_goal`` and so on, are told from those with no-ops by their folders alone.
    """

    format = "rlds"

    def __init__(
        self, root: Path, *, split: str = "train", source: str | None = None, dt_s: float | None = None
    ) -> None:
        """``source`` where the name does not tell. Raises DataError."""
        self._reader = TfdsReader(find_version(Path(root)), split)
        self.root, folder = self._reader.root, self._reader.folder
        self.name = folder if source_of(folder) else self._reader.name
        chosen = source or source_of(self.name)
        if chosen not in SOURCES:
            raise DataError(
                f"{self.root}: found dataset {self.name!r}, expected one of {sorted(_BY_NAME)} or libero_*; "
                f"say how it is to be read: --source, one of {sorted(SOURCES)}"
            )
        self._source_name, self._source = chosen, SOURCES[chosen]
        known = {n.rsplit("/", 1)[-1] for n, leaf in self._reader.leaves.items() if leaf.kind == "image"}
        missing = sorted(set(self._source.cameras.values()) - known)
        if missing:
            raise DataError(
                f"{self.root}: found images {sorted(known)}, expected {missing} too; another source? --source"
            )
        self.layout, self.views = self._source.layout, tuple(self._source.cameras)
        self.dt_s = dt_s or 1.0 / self._source.rate_hz

    @property
    def reading(self) -> str:
        return f"{super().reading} {self._source_name} {self._reader.split}"

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        number = self._checked(index)
        with whole(f"{self.root}, episode {number}", f"the features of a dataset like {self._source_name}"):
            return self._episode(self._reader[number])

    def _episode(self, raw: RawEpisode) -> Episode:
        state, action, kept = self._source.numbers(raw)
        file_path, episode_id = _key(raw, self.name)
        return Episode(
            file_path=file_path,
            episode_id=episode_id,
            instruction=_text(raw.steps.get(self._source.language)),
            state_TS=state.astype(np.float32),
            action_TA=action.astype(np.float32),
            images={view: _images(raw, f"observation/{key}", kept) for view, key in self._source.cameras.items()},
        )

    def files(self) -> list[Path]:
        return self._reader.files()

    def other_splits(self) -> Sequence[EpisodeDataset]:
        """All other splits whose files are here."""
        found: list[EpisodeDataset] = []
        for split in self._reader.splits:
            if split == self._reader.split:
                continue
            try:
                found.append(RldsDataset(self.root, split=split, source=self._source_name, dt_s=self.dt_s))
            except DataError as error:
                logger.warning("%s: split %s does not count for the statistics: %s", self.name, split, error)
        return found


def _images(raw: RawEpisode, name: str, kept: slice) -> Images:
    encoded = raw.steps.get(name)
    if not isinstance(encoded, list):
        raise DataError(f"{raw.source}: steps/{name} is missing or holds no images; expected JPEG or PNG")
    if len(encoded) < kept.stop:
        raise DataError(
            f"{raw.source}: found {len(encoded)} images in steps/{name}, expected {kept.stop}; drop the episode"
        )
    return SlicedImages(EncodedImages(encoded, f"{raw.source} {name}"), kept.start, kept.stop - kept.start)


def _text(value: object) -> str:
    return value[0].decode("utf-8", "replace").strip() if isinstance(value, list) and value else ""


def _key(raw: RawEpisode, name: str) -> tuple[str, str]:
    """``file_path`` and ``episode_id`` of the episode's metadata; the dataset and the number where it has none."""
    path, number = (raw.metadata.get(f"episode_metadata/{key}") for key in ("file_path", "episode_id"))
    file_path = _text(path) or name
    if isinstance(number, np.ndarray) and number.size:
        return file_path, str(int(number[0]))
    return file_path, _text(number) or str(raw.number)
