"""``instructvla-train study``, ``report`` and ``bench``: what a person wants to know about training."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from instructvla_model.presets import PRESETS

from .data.options import count, positive
from .recipes import RECIPES
from .study.plan import CELLS, Budget

_CORES = os.cpu_count() or 1


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Adds all three."""
    budget = Budget()
    study = commands.add_parser("study", help="what each part of the policy is good for: ablations, with intervals")
    study.add_argument("--only", nargs="+", metavar="MODEL", choices=_models(), help="shipped, or what is left out")
    study.add_argument("--plan", action="store_true", help="only say what is measured already and what is missing")
    study.add_argument("--episodes", type=count, default=budget.episodes, metavar="N", help="trials of each cell")
    study.add_argument("--questions", type=count, default=budget.questions, metavar="N", help="of each model")
    study.add_argument(
        "--expert-steps", type=count, default=budget.expert_steps, metavar="N", help="of each ablation's stage 1"
    )
    study.add_argument(
        "--generalist-steps", type=count, default=budget.generalist_steps, metavar="N",
        help="of each ablation's stage 2",
    )  # fmt: skip
    study.add_argument(
        "--training-seeds", type=count, default=budget.training_seeds, metavar="N", help="runs of each ablation"
    )
    study.add_argument("--output", type=Path, metavar="FOLDER", help="instead of checkpoints/results/study")
    _add_machine(study)
    study.add_argument(
        "--workers", type=count, default=_CORES, metavar="N",
        help="processes that play trials; default: number of cores",
    )  # fmt: skip
    study.set_defaults(run=_study)

    report = commands.add_parser("report", help="write a run's page anew: recipe, curves, draws, texts, chunks")
    report.add_argument("run_dir", type=Path, metavar="RUN", help="folder of the run, such as runs/nano-expert")
    report.set_defaults(run=_report)

    bench = commands.add_parser("bench", help="measure this machine")
    kinds = bench.add_subparsers(metavar="WHAT", required=True)
    loader = kinds.add_parser("loader", help="how much faster batches are made than they are trained on")
    loader.add_argument("recipe", choices=sorted(RECIPES), help="whose data and checkpoint before it are there")
    loader.add_argument("--steps", type=count, default=20, metavar="N", help="over how many")
    loader.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    _add_machine(loader)
    loader.set_defaults(run=_bench_loader)
    _add_bench_training(kinds)


def _add_bench_training(kinds: argparse._SubParsersAction) -> None:
    training = kinds.add_parser("training", help="how fast a preset is trained: random weights, made-up batches")
    training.add_argument("preset", choices=sorted(PRESETS), help="sizes of the policy")
    training.add_argument("--stage", choices=["expert", "generalist"], default="expert", help="of the training")
    training.add_argument("--samples", type=count, default=8, metavar="N", help="of a step, which all processes share")
    training.add_argument("--steps", type=count, default=10, metavar="N", help="over how many, after a few to warm up")
    training.add_argument(
        "--autocast", choices=["bfloat16", "float32"], default="bfloat16", help="number type of the matrix products"
    )
    training.add_argument(
        "--checkpoint-activations", action="store_true",
        help="compute the language model's layers again in the backward pass, which takes less memory, as the recipe "
        "2b-expert does",
    )  # fmt: skip
    training.add_argument(
        "--peak-tflops", type=positive, metavar="T",
        help="what one device can do at most, in TFLOP/s; default: its maker's figure for bfloat16, where it is known",
    )  # fmt: skip
    training.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    _add_machine(training)
    training.set_defaults(run=_bench_training)


def _models() -> list[str]:
    return list(dict.fromkeys(cell.model for cell in CELLS))


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="where to train: auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--threads", type=count, default=_CORES, metavar="N", help="CPU threads; default: number of cores"
    )


def _study(options: argparse.Namespace) -> None:
    from .study.run import Setting, measured, run
    from .study.table import write
    from .workspace import Workspace

    budget = Budget(
        expert_steps=options.expert_steps, generalist_steps=options.generalist_steps, episodes=options.episodes,
        questions=options.questions, training_seeds=options.training_seeds,
    )  # fmt: skip
    setting = Setting(
        space=Workspace(options.root, "nano"), shipped=options.root / "checkpoints", budget=budget,
        device=options.device, threads=options.threads, workers=options.workers,
    )  # fmt: skip
    models = tuple(options.only or _models())
    if options.plan:
        for cell in CELLS:
            if cell.model in models:
                done = all(measured(setting, cell, seed) for seed in setting.seeds(cell))
                sys.stdout.write(f"{'measured' if done else 'missing '}  {cell.name}\n")
        return
    folder = options.output or options.root / "checkpoints" / "results" / "study"
    for _ in run(setting, models):
        write(setting, folder)
    sys.stdout.write("\n".join(write(setting, folder)) + "\n")


def _report(options: argparse.Namespace) -> None:
    from .report import write_report

    sys.stdout.write(f"{write_report(options.run_dir)}\n")


def _bench_loader(options: argparse.Namespace) -> None:
    from .bench_loader import loader_speed, write
    from .pipeline import workspace_of

    recipe, space = RECIPES[options.recipe](), workspace_of(options.recipe, options.root)
    found = loader_speed(recipe, space, options.device, options.threads, options.steps)
    if options.output is not None:
        write(found, options.output)
    sys.stdout.write(found.line() + "\n")


def _bench_training(options: argparse.Namespace) -> None:
    from .bench_training import recipe_for, training_speed, write

    recipe = recipe_for(
        options.preset, options.stage, options.samples, options.steps, options.autocast, options.checkpoint_activations
    )
    found = training_speed(recipe, options.device, options.threads, options.peak_tflops)
    if os.environ.get("RANK", "0") != "0":  # torchrun: the first process speaks for all
        return
    if options.output is not None:
        write(found, options.output)
    sys.stdout.write("\n".join(found.lines()) + "\n")
