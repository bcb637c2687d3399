"""Options that several data commands share: what a dataset does not say of itself, how a new one is written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .formats.opening import Reading

_Number = TypeVar("_Number", int, float)


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Options of the LeRobot dataset to be written."""
    parser.add_argument("--codec", choices=["av1", "h264"], default="av1", help="of the video files")
    parser.add_argument("--height", type=even, help="resize images to this height, an even number; default as they are")
    parser.add_argument(
        "--robot", default="", metavar="NAME", help="robot_type of the new dataset; default: what the source says"
    )


def add_cameras(parser: argparse._ActionsContainer) -> None:
    """Which camera is which."""
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="VIEW=KEY",
        help="which camera (key, or topic of a bag) is primary, wrist",
    )


def add_actions(parser: argparse._ActionsContainer) -> None:
    """What counts as done in a recording."""
    parser.add_argument(
        "--actions", choices=["auto", "steps", "commands", "states"], default="auto",
        help="bags: what an action is; executed steps, joint goals sent to the driver, states reached, or the first of "
        "them that there is",
    )  # fmt: skip


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Options that say of a dataset what it does not say of itself."""
    group = parser.add_argument_group("reading")
    add_cameras(group)
    group.add_argument("--state", choices=["rpy", "quaternion", "axis-angle"], help="LeRobot: what the state is")
    group.add_argument(
        "--invert-gripper", choices=["action", "state", "both"], default="",
        help="LeRobot: where the gripper is 1 when closed; both is for data that hold closings throughout",
    )  # fmt: skip
    group.add_argument("--split", default="train", help="TFDS: which split")
    group.add_argument(
        "--source",
        dest="rlds_source",
        choices=["bridge", "fractal", "libero", "franka"],
        help="TFDS: whose layout of the fields",
    )
    add_actions(group)
    group.add_argument("--annotations", type=Path, metavar="FILE", help="VLA-IT annotations of the episodes")


def cameras(options: argparse.Namespace) -> dict[str, str]:
    """View -> camera of ``--camera``."""
    unclear = [text for text in options.camera if "=" not in text]
    if unclear:
        sys.exit(f"--camera {unclear[0]}: expected VIEW=KEY, for instance primary=observation.images.front")
    return dict(text.split("=", 1) for text in options.camera)


def reading(options: argparse.Namespace) -> Reading:
    """What the options of `add_reading` say; ends the process where a camera is not VIEW=KEY."""
    from .formats.opening import Reading

    return Reading(
        cameras=cameras(options),
        state=options.state,
        invert_gripper=options.invert_gripper,
        split=options.split,
        source=options.rlds_source,
        actions=options.actions,
        annotations=options.annotations,
    )


def count(text: str) -> int:
    """A whole number of at least 1, for argparse; so are those below."""
    return _number(int, text, lambda value: value >= 1, "a whole number of at least 1")


def even(text: str) -> int:
    """An even number above 0."""
    return _number(int, text, lambda value: value >= 2 and value % 2 == 0, "an even number above 0, such as 224")


def from_zero(text: str) -> int:
    """A whole number of at least 0."""
    return _number(int, text, lambda value: value >= 0, "a whole number of at least 0")


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(float, text, lambda value: 0.0 < value < float("inf"), "a finite number above 0")


def amount(text: str) -> float:
    """A finite number of at least 0."""
    return _number(float, text, lambda value: 0.0 <= value < float("inf"), "a finite number of at least 0")


def seconds(text: str) -> float:
    """A duration above 0."""
    fits = "a number of seconds above 0, such as 0.2"
    return _number(float, text, lambda value: 0.0 < value < float("inf"), fits)


def _number(kind: Callable[[str], _Number], text: str, fits: Callable[[_Number], bool], expected: str) -> _Number:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"found {text}, expected {expected}")
    return value


def counter(done: int, total: int) -> None:
    """Progress on one line of a terminal; silent elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done + 1}/{total} " + ("\n" if done + 1 == total else ""))
