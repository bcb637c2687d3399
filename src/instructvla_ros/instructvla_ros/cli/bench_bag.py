"""instructvla bench bag: how fast a recording is opened and decoded, and how much memory that takes."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def add_parser(subjects: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bag` to `bench`."""
    parser = subjects.add_parser("bag", help="measure how fast a recording is opened and decoded, and its memory")
    parser.add_argument(
        "bag", nargs="?", type=Path, metavar="BAG",
        help="a recording; default: one is made, two cameras of 640x480 at 30 Hz",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=600.0, metavar="S", help="length of the recording that is made, in seconds"
    )
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="form of the one that is made")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make it there and keep it")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that decode")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns 0 if all bars are met."""
    from instructvla_ros.bags.benchmark import BagFigures, make, measure

    if not arguments.seconds >= 1.0 or arguments.workers < 1:
        raise ValueError("--seconds and --workers must be at least 1")
    with tempfile.TemporaryDirectory(prefix="instructvla_bench_") as scratch:
        path = arguments.bag
        if path is None:
            path = arguments.keep or Path(scratch) / "bag"
            print(f"making {arguments.seconds:g} s of two cameras in {path}", flush=True)
            make(path, arguments.seconds, storage=arguments.storage)
        # A process of its own, begun anew: its peak of memory is that of reading.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            figures: BagFigures = pool.submit(measure, path, arguments.workers).result()
    for label, text in (
        ("recording", f"{figures.duration_s:.0f} s, {figures.size_bytes / 1e6:.0f} MB"),
        ("messages, images", f"{figures.messages}, {figures.images}"),
        ("index", f"{figures.index_s:.2f} s"),
        ("decoding", f"{figures.decode_s:.1f} s, {figures.speed:.1f} times real time"),
        ("CPU time", f"{figures.cpu_s:.1f} s; on two free cores {figures.speed_2_cores:.1f} times real time at best"),
        ("peak memory", f"{figures.peak_memory_bytes / 2**20:.0f} MiB"),
        ("cores, load", f"{len(os.sched_getaffinity(0))}, {os.getloadavg()[0]:.1f}"),
    ):
        print(f"{label:20s} {text}")
    for miss in figures.misses():
        print(f"MISSED  {miss}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 1 if list(figures.misses()) else 0
