"""``instructvla-train data from-bag`` and ``to-bag``: from recordings to training data and back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .options import add_actions, add_cameras, add_reading, add_writing, cameras, counter, from_zero, reading, seconds


def add_parsers(kinds: argparse._SubParsersAction) -> None:
    """Adds both."""
    source = kinds.add_parser(
        "from-bag",
        help="write recordings as LeRobot v3: cut into episodes, resampled, with an account of holes and skew",
    )
    source.add_argument(
        "bags", nargs="+", type=Path, metavar="BAG",
        help="rosbag2 folder, .mcap or .db3 file (also .zstd), or a folder of such",
    )  # fmt: skip
    source.add_argument("target", type=Path, help="new folder")
    source.add_argument(
        "--instruction", default="", metavar="TEXT", help="instead of the recorded one, or where there is none"
    )
    source.add_argument(
        "--dt", type=seconds, metavar="S",
        help="step in seconds of bags without executed steps; default: 0.2, executed steps keep their own",
    )  # fmt: skip
    source.add_argument(
        "--keep-failures", action="store_true", help="episodes marked a failure too; default: they are left out"
    )
    add_cameras(source)
    add_actions(source)
    add_writing(source)
    source.set_defaults(run=_from_bag)
    back = kinds.add_parser("to-bag", help="write episodes of any dataset as a rosbag2 that can be replayed")
    back.add_argument("source", type=Path, help="LeRobot, TFDS or bag folder")
    back.add_argument("target", type=Path, help="new folder")
    back.add_argument("--episodes", nargs="+", type=from_zero, metavar="N", help="numbers, from 0; default: all")
    add_reading(back)
    back.set_defaults(run=_to_bag)


def _from_bag(options: argparse.Namespace) -> None:
    from .convert import convert
    from .formats.bag import BagDataset
    from .formats.bag_account import REPORT_FILE, lines

    dataset = BagDataset(
        options.bags, cameras=cameras(options), actions=options.actions, instruction=options.instruction,
        dt_s=options.dt, keep_failures=options.keep_failures,
    )  # fmt: skip
    count = convert(dataset, options.target, options.height, options.codec, options.robot, counter)
    sys.stdout.write("\n".join(lines(dataset.accounts, dataset.problems)) + "\n")
    sys.stdout.write(f"{options.target}: {count} episodes; the account is in {options.target / REPORT_FILE}\n")


def _to_bag(options: argparse.Namespace) -> None:
    from .formats.opening import open_dataset
    from .to_bag import to_bag

    dataset = open_dataset(options.source, reading(options))
    count = to_bag(dataset, options.target, options.episodes, counter)
    sys.stdout.write(f"{options.target}: {count} episodes\n")
