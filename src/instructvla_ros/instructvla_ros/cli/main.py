"""Parse the command line and run one sub-command; each lives in its own module."""

from __future__ import annotations

import argparse
import logging
import os
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
_LAST_DOMAIN = 232  # beyond it the ports of DDS run out


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
        _check_domain(os.environ.get("ROS_DOMAIN_ID", ""))
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, TimeoutError) as error:
        print(f"instructvla: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        problem = _refused_by_ros(error)
        if not problem:
            raise
        print(f"instructvla: {problem}", file=sys.stderr)
        return 1


def _check_domain(text: str) -> None:
    """Raise ValueError for what is no domain: rcl ends in a traceback then, or Fast DDS ends the process."""
    if text and not (text.isascii() and text.isdigit() and int(text) <= _LAST_DOMAIN):
        raise ValueError(f"ROS_DOMAIN_ID is {text!r}; expected a whole number from 0 to {_LAST_DOMAIN}, or none for 0")


def _refused_by_ros(error: Exception) -> str:
    """One line for a name or a setting that ROS 2 does not take; "" for any other error."""
    if not type(error).__module__.startswith("rclpy"):  # commands that need no ROS 2 run without it
        return ""
    from rclpy.exceptions import NameValidationException
    from rclpy.impl.implementation_singleton import rclpy_implementation

    if isinstance(error, NameValidationException):
        found = " ".join(line.strip() for line in str(error).splitlines()[:2])  # what is wrong, and the name
        return f"{found}; expected letters, digits and _ between slashes, for example /left/image_raw"
    if not isinstance(error, rclpy_implementation.RCLError):
        return ""
    said = " ".join(str(error).split())
    return f"ROS 2 could not start: {said}; expected ROS_* and RMW_* variables that it understands"
