"""Finds what would spoil a training run before it starts: wrong signs, rates, gaps, missing words, broken images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from .formats.episode import ACTION_NAMES, DataError, Episode, EpisodeDataset, StateLayout
from .formats.llava import Conversation, LlavaDataset

logger = logging.getLogger(__name__)

RATE_TOLERANCE = 0.1
AGREEMENT = 0.2
"""A correlation at least so strong is taken for a sign."""
SHARPEST_TURN_RAD = np.pi / 2
OPENING_SPILL = 0.25
"""How far beyond 0..1 a measured opening may lie: sensors overshoot."""
SMALLEST_OPENING = 0.2
"""A state that never opens wider while the action asks for it is not in 0..1."""
ABSOLUTE_SHARE = 0.25
"""An action so much nearer to the next position than to the way there is that position."""
BEGINNINGS = 3
"""From so many episodes on it is of note that most begin with the hand closed."""
MAX_NAMED = 5
LEAVE_OUT = "instructvla-train data convert --skip-bad leaves such episodes out"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. ``error``: training on it is of no use; otherwise worth a look."""

    code: str
    error: bool
    text: str  # found, expected, how to mend it

    def __str__(self) -> str:
        return f"{'error  ' if self.error else 'warning'}  {self.code:18} {self.text}"


@dataclass
class _Gathered:
    """Columns over all episodes that were looked at."""

    episodes: int = 0
    lengths: list[int] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    commanded: list[np.ndarray] = field(default_factory=list)  # gripper of the action, without the last step
    opened: list[np.ndarray] = field(default_factory=list)  # opening of the state after it
    moved: list[np.ndarray] = field(default_factory=list)  # xyz reached by the next step
    steps_s: list[np.ndarray] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def lint(
    dataset: EpisodeDataset, *, dt_s: float | None = None, image_episodes: int = 16, episodes: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:  # fmt: skip
    """Everything that is wrong with ``dataset``; empty if nothing is.

    ``dt_s``: step of the policy that is to be trained. ``episodes``: read so many instead of all, spread evenly; images
    are decoded in ``image_episodes`` of them.
    """
    numbers = _spread(np.arange(len(dataset)), episodes)
    seen = _Gathered(len(numbers))
    looked_at = set(_spread(numbers, image_episodes).tolist())
    findings: list[Finding] = []
    for done, number in enumerate(numbers.tolist()):
        report(done, len(numbers))
        try:
            episode = dataset[number]
        except DataError as error:
            seen.unreadable.append(str(error))
            continue
        _gather(episode, dataset.layout, seen)
        if number in looked_at:
            findings += _images(episode)
    checks = (_unreadable, _finite, _language, _spans, _gripper, _state_gripper, _absolute, _signs, _turns)
    found = [*findings, *(one for check in checks for one in check(seen, dataset)), *_rates(seen, dataset, dt_s)]
    absolute = any(one.code == "absolute-action" for one in found)
    return [one for one in found if not (absolute and one.code in ("axis-sign", "units", "wrapped-angle"))]


def lint_episode(episode: Episode) -> list[Finding]:
    """What is wrong with an episode by itself: values that are not finite, and its images."""
    seen = _Gathered()
    _gather(episode, StateLayout.RPY, seen)  # whether numbers are finite does not go with the layout
    return [*_finite(seen), *_images(episode)]


def refuse_errors(path: Path, findings: Sequence[Finding]) -> None:
    """Raises DataError where there are errors; warnings are logged."""
    errors = [finding for finding in findings if finding.error]
    if errors:
        raise DataError("\n".join([f"{path}: {len(errors)} errors, expected none:", *map(str, errors)]))
    for finding in findings:
        logger.warning("%s: %s", path, finding)


def _spread(numbers_N: np.ndarray, count: int | None) -> np.ndarray:
    """So many of the numbers, from the first to the last in even steps."""
    if count is None or count >= len(numbers_N):
        return numbers_N
    return numbers_N[np.linspace(0, len(numbers_N) - 1, count).astype(int)]


def lint_text(
    dataset: LlavaDataset, first: int = 0, step: int = 1, prompt: Callable[[Conversation], object] = lambda talk: None
) -> list[Finding]:
    """Entries that cannot be read and images that are missing or none, of every ``step``-th entry from ``first`` on;
    and entries of which ``prompt`` makes none, but a DataError.

    Of an image only the beginning is looked at, lest millions be decoded.
    """
    broken, missing, unclear = [], [], []
    for number in range(first, len(dataset), step):
        try:
            entry = dataset[number]
            prompt(entry)
        except DataError as error:
            broken.append(str(error))
            continue
        if entry.image is not None and not entry.image.is_file():
            missing.append(str(entry.image))
        elif entry.image is not None and not cv2.haveImageReader(str(entry.image)):
            unclear.append(str(entry.image))
    found = []
    if broken:
        found.append(Finding("unreadable", True, f"{_some(broken)}; mend or drop these entries"))
    if missing:
        found.append(
            Finding(
                "missing-image", True,
                f"{_some(missing)}: no such file; copy the images or name their folder (--images-folder)",
            )
        )
    if unclear:
        found.append(Finding("unreadable-image", True, f"{_some(unclear)}: no image; copy the files again"))
    return found


def _gather(episode: Episode, layout: StateLayout, seen: _Gathered) -> None:
    action, state = episode.action_TA.astype(np.float64), episode.state_TS.astype(np.float64)
    if not episode.instruction:
        seen.silent.append(episode.name)
    if not (np.isfinite(action).all() and np.isfinite(state).all()):
        seen.not_finite.append(episode.name)
        return
    seen.lengths.append(len(episode))
    seen.actions.append(action)
    seen.states.append(state)
    seen.commanded.append(action[:-1, 6])
    seen.opened.append(_opening(state, layout)[1:])
    seen.moved.append(np.diff(state[:, :3], axis=0))
    if episode.time_s is not None:
        seen.steps_s.append(np.diff(episode.time_s))


def _opening(state_TS: np.ndarray, layout: StateLayout) -> np.ndarray:
    if layout is StateLayout.QUATERNION:
        return 1.0 - state_TS[:, 7]
    if layout is StateLayout.AXIS_ANGLE:
        return state_TS[:, 6] - state_TS[:, 7]
    return state_TS[:, 7]


def _images(episode: Episode) -> Iterator[Finding]:
    moving = float(np.abs(np.diff(episode.state_TS[:, :3], axis=0)).max(initial=0.0)) > 0.01
    for view, images in episode.images.items():
        try:
            looks = [images[step].astype(np.int16) for step in sorted({0, len(episode) // 2, len(episode) - 1})]
        except DataError as error:
            yield Finding("unreadable-image", True, f"{episode.name}, {view}: {error}; {LEAVE_OUT}")
            continue
        if max(int(image.max()) - int(image.min()) for image in looks) < 3:
            text = f"{episode.name}, {view}: one colour throughout; was the camera covered?"
            yield Finding("blank-image", True, f"{text} {LEAVE_OUT}")
        elif moving and len(looks) == 3 and all(np.array_equal(looks[0], image) for image in looks[1:]):
            text = f"{episode.name}, {view}: first, middle and last image are the same while the arm moves"
            yield Finding("frozen-camera", True, f"{text}; expected a live camera; {LEAVE_OUT}")


def _unreadable(seen: _Gathered, _: EpisodeDataset) -> Iterator[Finding]:
    if seen.unreadable:
        yield Finding("unreadable", True, _some(seen.unreadable))


def _finite(seen: _Gathered, _: EpisodeDataset | None = None) -> Iterator[Finding]:
    if seen.not_finite:
        text = f"NaN or infinity in the numbers of {_some(seen.not_finite)}"
        yield Finding("not-finite", True, f"{text}; expected finite values; repair them, or {LEAVE_OUT}")


def _language(seen: _Gathered, _: EpisodeDataset) -> Iterator[Finding]:
    if seen.silent:
        everything = len(seen.silent) == seen.episodes
        text = f"no instruction in {_some(seen.silent)} of {seen.episodes} episodes"
        yield Finding("no-language", everything, f"{text}; they are never trained on; give each a text")


def _spans(seen: _Gathered, dataset: EpisodeDataset) -> Iterator[Finding]:
    if not seen.actions:
        return
    for what, rows, names in (("action", seen.actions, ACTION_NAMES), ("state", seen.states, dataset.layout.value)):
        values = np.concatenate(rows)
        flat = [name for d, name in enumerate(names) if np.ptp(values[:, d]) == 0.0 and name != "pad"]
        if flat:
            error = what == "action" and {"x", "y", "z"} <= set(flat)
            text = f"{what} never changes in {', '.join(flat)}"
            yield Finding("zero-span", error, f"{text}; expected movement; if the robot cannot move there, ignore this")


def _gripper(seen: _Gathered, dataset: EpisodeDataset) -> Iterator[Finding]:
    if not seen.actions:
        return
    command = np.concatenate([rows[:, 6] for rows in seen.actions])
    if command.min() < -0.01 or command.max() > 1.01:
        text = f"gripper of the action from {command.min():.2f} to {command.max():.2f}"
        yield Finding("gripper-range", True, f"{text}; expected openings, 0 closed to 1 open; convert the data")
    agreement = _correlation(np.concatenate(seen.commanded), np.concatenate(seen.opened))
    if agreement < -AGREEMENT:
        text = f"the gripper opens where the action says close (correlation {agreement:.2f})"
        yield Finding("gripper-polarity", True, f"{text}; expected 1 = open in both; {_to_invert(dataset, 'action')}")
    closed = sum(_mean(rows[:1, 6]) < 0.5 and _mean(opened[:1]) < 0.5 for rows, opened in _pairs(seen))
    if len(seen.actions) >= BEGINNINGS and closed > len(seen.actions) / 2 and command.max() > 0.5:
        text = f"{closed} of {len(seen.actions)} episodes begin with the hand closed"
        yield Finding(
            "gripper-polarity", False, f"{text}; most tasks begin with it open; if 1 is closed here, "
            f"{_to_invert(dataset, 'both')}",
        )  # fmt: skip


def _pairs(seen: _Gathered) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Actions and openings of each episode; an opening is that after the step, so nearly that of its beginning."""
    return zip(seen.actions, seen.opened, strict=True)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 1.0


def _to_invert(dataset: EpisodeDataset, what: str) -> str:
    """How to turn the gripper round, which goes with the format."""
    if dataset.format == "lerobot":
        return f"read with --invert-gripper {what}"
    if dataset.format == "rlds":
        return "choose the rules of another dataset (--source), or export the data with openings"
    return "convert the recording (data from-bag), then read the new dataset with --invert-gripper " + what


def _state_gripper(seen: _Gathered, dataset: EpisodeDataset) -> Iterator[Finding]:
    """Of layouts whose gripper is in 0..1."""
    if not seen.actions or dataset.layout is StateLayout.AXIS_ANGLE:
        return
    found = np.concatenate([rows[:, 7] for rows in seen.states])
    command = np.concatenate([rows[:, 6] for rows in seen.actions])
    wide = found.min() < -OPENING_SPILL or found.max() > 1.0 + OPENING_SPILL
    narrow = found.max() < SMALLEST_OPENING and np.ptp(found) > 0.0 and command.max() > 0.5
    if wide or narrow:
        text = f"gripper of the state from {found.min():.4g} to {found.max():.4g}"
        yield Finding(
            "gripper-range", True, f"{text}; expected 0 to 1, not metres or a count; divide it by its widest opening"
        )


def _absolute(seen: _Gathered, _: EpisodeDataset) -> Iterator[Finding]:
    """Poses to go to in place of ways to go: the action is the position that the next state has."""
    if not seen.actions:
        return
    asked = np.concatenate([rows[:-1, :3] for rows in seen.actions])
    reached = np.concatenate([rows[1:, :3] for rows in seen.states])
    moved = np.concatenate(seen.moved)
    if not len(asked):
        return
    as_pose, as_way = (float(np.linalg.norm(asked - target, axis=1).mean()) for target in (reached, moved))
    if as_pose < ABSOLUTE_SHARE * as_way:
        text = f"actions are the positions reached after them (within {1e3 * as_pose:.1f} mm)"
        yield Finding(
            "absolute-action", True,
            f"{text}; expected the way from one step to the next; subtract the state from each action",
        )  # fmt: skip


def _signs(seen: _Gathered, _: EpisodeDataset) -> Iterator[Finding]:
    if not seen.actions:
        return
    asked = np.concatenate([rows[:-1, :3] for rows in seen.actions])
    moved = np.concatenate(seen.moved)
    wrong = [name for d, name in enumerate("xyz") if _correlation(asked[:, d], moved[:, d]) < -AGREEMENT]
    if wrong:
        text = f"the arm moves against the action along {', '.join(wrong)}"
        yield Finding("axis-sign", True, f"{text}; expected deltas in the axes of the state; check the frames")
    size = float(np.abs(moved).mean())
    if size > 1e-5 and not 0.2 < float(np.abs(asked).mean()) / size < 5.0:
        text = f"actions are {np.abs(asked).mean() / size:.1f} times the movement that follows"
        yield Finding("units", False, f"{text}; expected metres a step; fine only if the data's own scale is meant")


def _turns(seen: _Gathered, _: EpisodeDataset) -> Iterator[Finding]:
    if seen.actions:
        sharpest = float(max(np.abs(rows[:, 3:6]).max() for rows in seen.actions))
        if sharpest > SHARPEST_TURN_RAD:
            text = f"a turn of {sharpest:.2f} rad in one step"
            yield Finding(
                "wrapped-angle", False, f"{text}; expected less than {SHARPEST_TURN_RAD:.2f}; angles that wrap?"
            )


def _rates(seen: _Gathered, dataset: EpisodeDataset, dt_s: float | None) -> Iterator[Finding]:
    if seen.steps_s:
        steps = np.concatenate(seen.steps_s)
        found = float(np.median(steps)) if len(steps) else dataset.dt_s
        if abs(found / dataset.dt_s - 1.0) > RATE_TOLERANCE:
            text = f"time stamps {found:.4f} s apart, the data set says {dataset.dt_s:.4f} s"
            yield Finding("rate", True, f"{text}; expected the same; correct the rate")
        late = int(np.sum((steps > 1.5 * found) | (steps <= 0.0)))
        if late:
            text = f"{late} of {len(steps)} steps are not {found:.3f} s long"
            yield Finding("gaps", False, f"{text}; frames were dropped or repeated while recording")
    if dt_s is not None and abs(dataset.dt_s / dt_s - 1.0) > RATE_TOLERANCE:
        text = f"steps of {dataset.dt_s:.3f} s, the policy's are {dt_s:.3f} s"
        yield Finding("rate", True, f"{text}; expected the same; record or resample at {1 / dt_s:g} Hz")


def _correlation(a_X: np.ndarray, b_X: np.ndarray) -> float:
    """Of two columns; 0 where one of them hardly changes."""
    if len(a_X) < 2 or a_X.std() < 1e-6 or b_X.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a_X, b_X)[0, 1])


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:MAX_NAMED])
    return f"{len(names)} ({shown}{', …' if len(names) > MAX_NAMED else ''})"
