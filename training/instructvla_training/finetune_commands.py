"""``instructvla-train finetune`` and ``instructvla-train replay``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from .data.options import add_reading, amount, count, positive, reading
from .recipes import MULTIMODAL_RATIO


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Adds both."""
    finetune = commands.add_parser("finetune", help="train a checkpoint on recorded episodes of your robot")
    finetune.add_argument("--from", dest="base", type=Path, required=True, metavar="CKPT", help="Expert or Generalist")
    finetune.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="LeRobot, TFDS or bag folders"
    )
    finetune.add_argument("--weights", type=positive, nargs="+", metavar="W", help="one for each folder, instead of 1")
    finetune.add_argument("--output", type=Path, metavar="FOLDER", help="of the run, instead of runs/finetune")
    finetune.add_argument("--steps", type=count, default=2_000, metavar="N", help="optimiser steps")
    finetune.add_argument("--learning-rate", type=positive, metavar="R", help="instead of the recipe's")
    finetune.add_argument("--multimodal", type=Path, metavar="FILE", help="LLaVA-format conversations to mix in")
    finetune.add_argument(
        "--images-folder", type=Path, metavar="FOLDER",
        help="where the image paths of --multimodal start from; default: the folder images beside it, else its own",
    )  # fmt: skip
    finetune.add_argument(
        "--multimodal-ratio", type=amount, default=MULTIMODAL_RATIO, metavar="R",
        help="conversations for each action sample; default: 1/7",
    )  # fmt: skip
    finetune.add_argument(
        "--keep-statistics", action="store_true", help="normalise as the checkpoint does, not by the new data"
    )
    finetune.add_argument(
        "--robot", metavar="NAME",
        help="whose recordings they are, such as wx250s or fr3; default: what the data says, else the checkpoint",
    )  # fmt: skip
    finetune.add_argument(
        "--cache-images", action="store_true",
        help="compute the image tokens of every frame once, before the first step: quicker steps, memory for all of "
        "them, and the VLM sees its pictures without augmentation",
    )  # fmt: skip
    finetune.add_argument(
        "--parts", type=count, default=1, metavar="N", help="compute a step in so many parts, to need less memory"
    )
    finetune.add_argument(
        "--mended", action="store_true",
        help="go on with the run although files of its data have changed since it began: they were mended",
    )  # fmt: skip
    finetune.add_argument("--wandb", metavar="PROJECT", help="also log to Weights & Biases; needs its package")
    finetune.add_argument("--device", default="auto", help="where to train: auto, cpu, cuda, cuda:1")
    finetune.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N",
        help="CPU threads, which the processes of torchrun share; default: number of cores",
    )  # fmt: skip
    add_reading(finetune)
    finetune.set_defaults(run=_finetune)

    replay = commands.add_parser("replay", help="compare a checkpoint's chunks with recorded episodes, robot at rest")
    replay.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    replay.add_argument("path", type=Path, help="LeRobot, TFDS or bag folder")
    replay.add_argument(
        "--episodes", type=count, metavar="N",
        help="how many, the last ones, instead of those that training keeps apart",
    )  # fmt: skip
    replay.add_argument(
        "--dataset", metavar="NAME",
        help="of a checkpoint trained on several robots: normalise as for this one of its datasets, named in its "
        "dataset_statistics.json; default: as the robot is run",
    )  # fmt: skip
    replay.add_argument("--device", default="auto", help="where the policy runs: auto, cpu, cuda, cuda:1")
    replay.add_argument("--output", type=Path, metavar="FOLDER", help="for pictures and figures")
    add_reading(replay)
    replay.set_defaults(run=_replay)


def _finetune(options: argparse.Namespace) -> None:
    from .finetune import Request, finetune

    weights = options.weights or [1.0] * len(options.data)
    if len(weights) != len(options.data):
        sys.exit(f"--weights: found {len(weights)} for {len(options.data)} folders, expected one for each")
    request = Request(
        base=options.base, datasets=tuple(zip(options.data, weights, strict=True)), reading=reading(options),
        run_dir=options.output or options.root / "runs" / "finetune", steps=options.steps,
        learning_rate=options.learning_rate, multimodal=options.multimodal, multimodal_images=options.images_folder,
        multimodal_ratio=options.multimodal_ratio, keep_statistics=options.keep_statistics, parts=options.parts,
        robot=options.robot, cache_images=options.cache_images, mended=options.mended,
    )  # fmt: skip
    sys.stdout.write(f"{finetune(request, options.device, options.threads, options.wandb)}\n")


def _replay(options: argparse.Namespace) -> int:
    from instructvla_model.runtime import PolicyRuntime

    from .data.episode_frames import keeps_apart
    from .data.formats.opening import open_dataset
    from .data.survey import statistics_of_dataset, survey
    from .evaluation.replay import held_out_episodes, replay

    dataset = open_dataset(options.path, reading(options))
    runtime = PolicyRuntime.load(options.checkpoint, device=options.device)
    if options.dataset:
        statistics = statistics_of_dataset(options.checkpoint, options.dataset)
        runtime.manifest = replace(runtime.manifest, statistics=statistics)
    spoken = survey(dataset).spoken
    result = replay(runtime, dataset, held_out_episodes(spoken, options.episodes), options.output)
    if options.episodes is None and not keeps_apart(int(spoken.sum())):
        sys.stdout.write("training keeps none apart of so few episodes: the policy may have been trained on these\n")
    sys.stdout.write("\n".join(result.lines()) + "\n")
    return 0 if result.passed else 1
