"""instructvla data: hands its words to `instructvla-train data` where the training package is installed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util

TRAINING = "instructvla_training"


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data`."""
    text = "inspect, check and convert training data: the same as `instructvla-train data`"
    parser = commands.add_parser("data", help=text)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD …", help="see instructvla-train data --help")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status of the other command. Raises ValueError where the training package is missing."""
    if importlib.util.find_spec(TRAINING) is None:
        raise ValueError(f"found no package {TRAINING}, which has these commands; install it: pip install -e training")
    return int(importlib.import_module(f"{TRAINING}.cli").main(["data", *arguments.words]))
