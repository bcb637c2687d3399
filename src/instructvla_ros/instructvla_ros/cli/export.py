"""instructvla export: a recording for the Rerun viewer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from instructvla_ros.cli.up import parse_assignments


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`."""
    parser = commands.add_parser("export", help="write a recording as an .rrd file for the Rerun viewer")
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder of a rosbag2, an .mcap or a .db3 file")
    parser.add_argument("output", type=Path, nargs="?", metavar="FILE", help="default: BAG.rrd")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="ROLE:=TOPIC", help="which topic is primary, wrist, joints, …"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write it; 0. Raises ValueError without the library."""
    from instructvla_ros.bags.bag import Bag
    from instructvla_ros.bags.rerun_export import export
    from instructvla_ros.cli.progress import ProgressBar

    output = arguments.output or Path(f"{arguments.bag.resolve()}.rrd")
    try:
        with Bag(arguments.bag) as bag, ProgressBar(bag.name) as on_progress:
            count = export(bag, output, parse_assignments(arguments.topic), on_progress)
            problems = bag.problems
    except ModuleNotFoundError as error:
        raise ValueError(
            f"found no {error.name}, which writes .rrd files; install it: pip install -r requirements/rerun.txt"
        ) from error
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{count} entries in {output}; look at it: rerun {output}")
    return 0
