"""What the project's command lines have in common: help that tells all, the namespace, words like name:=value."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from instructvla_ros.graph.description import ArgumentError, absolute_name

NAMESPACE = "/instructvla"
_NAMESPACE_HELP = f"namespace of the project's topics, also as namespace:=NAME, anywhere (default: {NAMESPACE})"


SEED_MAX = 2**31 - 1
"""The largest number of a scene, as of the simulator's parameter."""


def read_seed(text: str) -> int:
    """The number of a scene; raises ValueError that says which are possible."""
    if not (text.isascii() and text.isdigit()) or int(text) > SEED_MAX:
        raise ValueError(f"the number of a scene is {text!r}; expected a whole number from 0 to {SEED_MAX}")
    return int(text)


def seed(text: str) -> int:
    """`read_seed` as the type of an option."""
    try:
        return read_seed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive_seconds(text: str) -> float:
    """A time limit as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"the time is {text!r}; expected seconds, more than 0 and finite")
    return value


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default where the help does not tell it, and keeps the line breaks of descriptions."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.nargs == 0 or action.default in (None, "", [], argparse.SUPPRESS) or not action.option_strings
        return text if plain or "default" in text else f"{text} (default: %(default)s)"


def complete(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """Give this parser and those of its sub-commands the same help; without a sub-command, the help is printed."""
    parser.formatter_class = HelpFormatter
    parser.description = parser.description or (purpose[:1].upper() + purpose[1:] + ".")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.required = False
            parser.set_defaults(run=lambda _: _tell_usage(parser))
            purposes = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                complete(inner, purposes[name])


def _tell_usage(parser: argparse.ArgumentParser) -> int:
    sys.stdout.write(parser.format_help())
    return 2


def add_namespace(root: argparse.ArgumentParser) -> None:
    """`--namespace`, before or after the sub-command and those below it."""
    root.add_argument("--namespace", default=None, metavar="NAME", help=_NAMESPACE_HELP)
    waiting = [root]
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    command.add_argument("--namespace", default=argparse.SUPPRESS, metavar="NAME", help=_NAMESPACE_HELP)
                    waiting.append(command)


def parse(root: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; words name:=value may stand anywhere. `namespace` is an absolute name afterwards.

    Ends the process with status 2 on a wrong command line, as argparse does.
    """
    words = sys.argv[1:] if argv is None else argv
    said = [word.partition(":=")[2] for word in words if word.startswith("namespace:=")]
    arguments, rest = root.parse_known_args([word for word in words if not word.startswith("namespace:=")])
    # argparse cannot take name:=value on both sides of an option, so what it leaves over is sorted out here.
    if rest and not (hasattr(arguments, "arguments") and all(":=" in word for word in rest)):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.arguments = [*arguments.arguments, *rest]
    try:
        names = [absolute_name(text) for text in (arguments.namespace, *said) if text is not None]
    except ArgumentError as error:
        root.error(str(error))
    if len(set(names)) > 1:
        root.error(f"--namespace and namespace:= differ: {' and '.join(names)}; give one")
    arguments.namespace = names[0] if names else NAMESPACE
    return arguments
