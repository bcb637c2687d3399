"""``instructvla-train data``: record, convert, from-bag, to-bag, inspect, stats, lint, annotate."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from instructvla_training.recipes import DataRecipe

from . import bag_commands
from .options import add_reading, add_writing, amount, count, counter, from_zero, positive, reading, seconds

if TYPE_CHECKING:
    from .formats.episode import EpisodeDataset

RECORDED = ("stills", "demonstrations", "corrections")


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Adds ``data`` and its sub-commands."""
    data = commands.add_parser("data", help="record, read, check and convert training data")
    kinds = data.add_subparsers(metavar="WHAT")
    _add_record(kinds)
    inspect = kinds.add_parser("inspect", help="what a dataset holds")
    stats = kinds.add_parser("stats", help="normalisation statistics, cached by a hash of the data and the reading")
    stats.add_argument("--output", type=Path, help="write them as JSON, by dataset")
    lint = kinds.add_parser("lint", help="find what would spoil a training run; exit status 1 on errors")
    lint.add_argument(
        "--dt", type=seconds, metavar="S", help="step of the policy to be trained, in seconds, for instance 0.2"
    )
    lint.add_argument("--images", type=from_zero, default=16, help="episodes whose images are decoded")
    lint.add_argument(
        "--images-folder", type=Path, metavar="FOLDER",
        help="LLaVA: where the image paths start from; default: the folder images beside the file, else its own",
    )  # fmt: skip
    for parser, run in ((inspect, _inspect), (stats, _stats), (lint, _lint)):
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="LeRobot, TFDS or bag folder")
        add_reading(parser)
        parser.set_defaults(run=run)
    convert = kinds.add_parser("convert", help="write any dataset as LeRobot v3")
    convert.add_argument("source", type=Path, help="LeRobot, TFDS or bag folder")
    convert.add_argument("target", type=Path, help="new folder")
    convert.add_argument(
        "--skip-bad", action="store_true",
        help="leave out episodes that cannot be read, have values that are not finite, or show a camera that is blank "
        "or stands still, and say which and why",
    )  # fmt: skip
    convert.add_argument(
        "--without", type=from_zero, nargs="+", default=[], metavar="N",
        help="leave out these episodes too, numbers from 0",
    )  # fmt: skip
    add_writing(convert)
    add_reading(convert)
    convert.set_defaults(run=_convert)
    bag_commands.add_parsers(kinds)
    _add_annotate(kinds)


def _add_annotate(kinds: argparse._SubParsersAction) -> None:
    annotate = kinds.add_parser(
        "annotate", help="have a vision-language model write VLA-IT annotations; exit status 1 while any failed"
    )
    annotate.add_argument("source", type=Path, help="LeRobot, TFDS or bag folder")
    annotate.add_argument("output", type=Path, help="folder of the annotations; the same one continues")
    annotate.add_argument(
        "--base-url", required=True, metavar="URL", help="of an OpenAI-compatible endpoint, up to /v1"
    )
    annotate.add_argument("--model", required=True, help="name of the model at the endpoint")
    annotate.add_argument("--api-key-env", default="OPENAI_API_KEY", metavar="NAME", help="variable that holds the key")
    annotate.add_argument("--count", type=count, default=2, help="pairs of each kind")
    annotate.add_argument("--limit", type=count, help="episodes at most")
    annotate.add_argument("--workers", type=count, default=4, help="requests at the same time")
    annotate.add_argument(
        "--requests-per-minute", type=positive, default=60.0, metavar="N", help="most requests per minute"
    )
    annotate.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="longest wait for an answer, in seconds"
    )
    annotate.add_argument("--price-input", type=amount, default=0.0, help="price of a million input tokens")
    annotate.add_argument("--price-output", type=amount, default=0.0, help="price of a million output tokens")
    annotate.add_argument("--max-cost", type=amount, default=0.0, help="stop at this sum, by the prices; 0 = no limit")
    annotate.add_argument(
        "--ray", default=os.environ.get("RAY_ADDRESS"), metavar="ADDRESS",
        help="work on a Ray cluster: auto, local or its address; default: the variable RAY_ADDRESS, else threads",
    )  # fmt: skip
    add_reading(annotate)
    annotate.set_defaults(run=_annotate)


def _add_record(kinds: argparse._SubParsersAction) -> None:
    record = kinds.add_parser("record", help="record stills and demonstrations in the simulation")
    record.add_argument(
        "what", nargs="*", metavar="KIND", help=f"of {', '.join(RECORDED)}; default: {', '.join(RECORDED[:2])}"
    )
    record.add_argument("--preset", default="nano", help="size of the model that the data is for; names their folder")
    record.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default: number of cores"
    )
    record.add_argument("--stills", type=count, metavar="N", help="how many stills, instead of the recipe's number")
    record.add_argument("--episodes", type=count, metavar="N", help="how many episodes, instead of the recipe's number")
    record.set_defaults(run=_record)


def _record(options: argparse.Namespace) -> None:
    from instructvla_training.pipeline import record_data
    from instructvla_training.workspace import Workspace

    data = DataRecipe()
    data = replace(data, stills=options.stills or data.stills, episodes=options.episodes or data.episodes)
    unknown = sorted(set(options.what) - set(RECORDED))
    if unknown:
        sys.exit(f"instructvla-train data record: unknown {', '.join(unknown)}; expected {', '.join(RECORDED)}")
    for what in options.what or RECORDED[:2]:
        record_data(what, Workspace(options.root, options.preset), data, options.workers)


def _opened(options: argparse.Namespace) -> list[EpisodeDataset]:
    from .formats.opening import open_dataset

    return [open_dataset(path, reading(options)) for path in options.paths]


def _inspect(options: argparse.Namespace) -> None:
    from .report import describe

    for dataset in _opened(options):
        sys.stdout.write("\n".join(describe(dataset)) + "\n")


def _stats(options: argparse.Namespace) -> None:
    from .report import statistics_table
    from .survey import survey, write_published

    made = [(dataset, survey(dataset, counter)) for dataset in _opened(options)]
    for dataset, found in made:
        sys.stdout.write("\n".join(statistics_table(dataset, found)) + "\n")
    if options.output:
        write_published(options.output, [found for _, found in made])


def _lint(options: argparse.Namespace) -> int:
    from .formats.llava import LlavaDataset, is_llava
    from .formats.opening import open_dataset
    from .lint import lint, lint_text
    from .report import verdict

    failed = False
    for path in options.paths:
        if is_llava(path):
            findings = lint_text(LlavaDataset(path, options.images_folder))
        else:
            dataset = open_dataset(path, reading(options))
            findings = lint(dataset, dt_s=options.dt, image_episodes=options.images, report=counter)
        sys.stdout.write("\n".join([*map(str, findings), verdict(path, findings)]) + "\n")
        failed |= any(found.error for found in findings)
    return int(failed)


def _convert(options: argparse.Namespace) -> None:
    from .convert import convert
    from .formats.opening import open_dataset

    dataset = open_dataset(options.source, reading(options))
    count = convert(
        dataset, options.target, options.height, options.codec, options.robot, counter, options.skip_bad,
        options.without,
    )  # fmt: skip
    sys.stdout.write(f"{options.target}: {count} episodes\n")


def _annotate(options: argparse.Namespace) -> int:
    from .annotate.endpoint import Settings
    from .annotate.run import REPORT_FILE, Limits, annotate, problems
    from .annotate.work import Job

    settings = Settings(
        base_url=options.base_url, model=options.model, api_key_env=options.api_key_env, count=options.count,
        requests_per_minute=options.requests_per_minute, timeout_s=options.timeout,
    )  # fmt: skip
    limits = Limits(
        workers=options.workers, limit=options.limit, price_input=options.price_input,
        price_output=options.price_output, max_cost=options.max_cost,
    )  # fmt: skip
    job = Job(options.source, reading(options), settings)
    records = annotate(job, options.output, limits, options.ray, counter)
    failed = len(problems(options.output))
    counts = f"{len(records)} episodes annotated, {failed} failed"
    sys.stdout.write(f"{options.output}: {counts}, see {options.output / REPORT_FILE}\n")
    return int(bool(failed))
