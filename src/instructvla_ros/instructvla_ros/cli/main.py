"""Parse the command line and run one sub-command; each lives in its own module."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from instructvla_ros.cli import arguments as command_line
from instructvla_ros.cli import (
    bench,
    checkpoint,
    control,
    data,
    demo,
    export,
    fault,
    record,
    replay,
    say,
    scene,
    status,
    up,
    watch,
)

_MODULES = (
    up, say, watch, status, control, scene, record, replay, export, demo, bench, fault, checkpoint, data
)  # fmt: skip
"""In the order of the help."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="instructvla", description="Start the InstructVLA graph, talk to it, watch it, stop it."
    )
    commands = root.add_subparsers(dest="command", metavar="command")
    for module in _MODULES:
        module.add_parsers(commands)
    command_line.add_namespace(root)
    command_line.complete(root)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s", stream=sys.stderr)
    arguments = command_line.parse(parser(), argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, TimeoutError) as error:
        print(f"instructvla: {error}", file=sys.stderr)
        return 1
