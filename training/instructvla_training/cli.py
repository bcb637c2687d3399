"""``instructvla-train``: data, the stages, evaluation. Every command can be stopped and given again."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from instructvla_ros.cli.arguments import complete

from . import finetune_commands, study_commands
from .data import commands as data_commands
from .data.options import count
from .evaluation import MAX_STEPS
from .recipes import RECIPES

INTERRUPTED = 130
FAMILIES = ("pick", "place", "near", "stack")
"""As in the simulation, which takes its time to import."""
SHIPPED = ("nano-base", "nano-expert", "nano-generalist", "nano-franka")
"""What checkpoints/ holds."""
_PURPOSE = "Make data, train and evaluate policies. Every command can be stopped and given again."


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("OpenGL").setLevel(logging.WARNING)
    if os.environ.get("RANK", "0") != "0":  # torchrun: the first process speaks for all
        logging.getLogger().setLevel(logging.WARNING)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        sys.stderr.write("\ninstructvla-train: stopped; the same command goes on\n")
        return INTERRUPTED
    except Exception as error:  # unknown ones go on with their traceback
        from .errors import KNOWN, line

        if not isinstance(error, KNOWN):
            raise
        sys.exit(f"instructvla-train: {line(error)}")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="instructvla-train", description=_PURPOSE)
    root.add_argument(
        "--root", type=Path, default=Path.cwd(), metavar="FOLDER",
        help="folder whose data/ (recordings), runs/ (checkpoints in training, logs) and checkpoints/ (those that ship,"
        " results) are read and written; default: the current folder",
    )  # fmt: skip
    commands = root.add_subparsers(metavar="COMMAND")

    data_commands.add_parsers(commands)

    train = commands.add_parser("make", help="make a checkpoint, with the data and stages that it rests on")
    train.add_argument("recipe", choices=sorted(RECIPES), help="which checkpoint to make")
    train.add_argument("--steps", type=count, metavar="N", help="optimiser steps, instead of the recipe's number")
    train.add_argument("--device", default="auto", help="where to train: auto, cpu, cuda, cuda:1")
    train.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N",
        help="CPU threads, which the processes of torchrun share; default: number of cores",
    )  # fmt: skip
    train.add_argument("--wandb", metavar="PROJECT", help="also log to Weights & Biases; needs its package installed")
    train.set_defaults(run=_make)

    finetune_commands.add_parsers(commands)

    evaluate = commands.add_parser("evaluate", help="closed loop in the simulation, unseen scenes")
    evaluate.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    evaluate.add_argument(
        "--set", dest="kind", choices=["atomic", "shuffled", "heldout", "questions"], default="atomic",
        help="instructions: plain ones, those of other scenes (success by chance), or phrasings never seen in training;"
        " or questions about the scenes, nothing moves",
    )  # fmt: skip
    evaluate.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=["pick", "place"], metavar="FAMILY", help="kinds of task"
    )
    evaluate.add_argument("--episodes", type=count, default=100, metavar="N", help="how many scenes")
    evaluate.add_argument("--think", action="store_true", help="let the model write its answer before it acts")
    evaluate.add_argument(
        "--max-steps", type=count, default=MAX_STEPS, metavar="N", help="policy steps of 0.2 s that a trial may take"
    )
    evaluate.add_argument("--text-only", action="store_true", help="score the written answers, do not play on")
    evaluate.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default: number of cores"
    )
    evaluate.add_argument(
        "--device", default="cpu",
        help="where each worker has the policy: cpu, enough for nano; cuda, cuda:1 for larger ones, with few workers",
    )  # fmt: skip
    evaluate.add_argument("--output", type=Path, metavar="FILE", help="write every outcome and the summary as JSON")
    evaluate.set_defaults(run=_evaluate)

    ship = commands.add_parser("ship", help="copy the trained nano checkpoints, their logs and curves to checkpoints/")
    ship.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"only these; default: {', '.join(SHIPPED)}")
    ship.set_defaults(run=_ship)

    measure = commands.add_parser("measure", help="evaluate the shipped checkpoints on every set of the README's table")
    measure.add_argument(
        "--episodes", type=count, metavar="N",
        help="scenes of each row; default: 200, of chance and of near and stack 100, of the Franka 50",
    )  # fmt: skip
    measure.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default: number of cores"
    )
    measure.set_defaults(run=_measure)

    results = commands.add_parser("results", help="print the README's table of what was measured")
    results.set_defaults(run=_results)

    study_commands.add_parsers(commands)
    complete(root)
    return root


def _make(options: argparse.Namespace) -> None:
    from .pipeline import make, workspace_of

    space = workspace_of(options.recipe, options.root)
    folder = make(options.recipe, space, options.device, options.threads, options.steps, options.wandb)
    sys.stdout.write(f"{folder}\n")


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation.run import evaluate, evaluate_questions

    if options.kind == "questions":
        lines = evaluate_questions(options.checkpoint, options.episodes, options.output, options.device)
        sys.stdout.write("\n".join(lines) + "\n")
        return
    if options.text_only and not options.think:
        sys.exit("--text-only scores written answers; expected --think beside it")
    lines = evaluate(
        options.checkpoint, options.kind, options.families, options.episodes, options.think, options.workers,
        options.output, max_steps=1 if options.text_only else options.max_steps, device=options.device,
    )  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")


def _ship(options: argparse.Namespace) -> None:
    from .pipeline import ship
    from .workspace import Workspace

    for folder in ship(Workspace(options.root, "nano"), options.root / "checkpoints", options.recipes or SHIPPED):
        sys.stdout.write(f"{folder}\n")


def _measure(options: argparse.Namespace) -> None:
    from .scoreboard import measure

    folder = options.root / "checkpoints"
    measure(folder, folder / "results", options.episodes, options.workers)
    _results(options)


def _results(options: argparse.Namespace) -> None:
    from .scoreboard import table

    sys.stdout.write("\n".join(table(options.root / "checkpoints" / "results")) + "\n")
