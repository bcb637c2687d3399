"""Recording in several processes, shard by shard; a second call continues where the first was stopped."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from instructvla_model.config import PolicyConfig
from instructvla_training.lifetime import end_with_parent
from instructvla_training.lock import only_run
from instructvla_training.recipes import DataRecipe

from .shards import EpisodeRecord, write_shard

logger = logging.getLogger(__name__)

TIME_FILE = "recording.json"
"""Beside the shards: how long they took."""

Recorder = Callable[[range, PolicyConfig, DataRecipe], list[EpisodeRecord]]


def record(
    recorder: Recorder, folder: Path, total: int, shard_size: int, first_seed: int, config: PolicyConfig,
    data: DataRecipe, workers: int,
) -> int:  # fmt: skip
    """Records episodes with seeds ``first_seed`` .. ``first_seed + total - 1`` -> number of shards written now.

    Raises RunError where another process records into ``folder``.
    """
    folder = Path(folder)
    with only_run(folder):
        jobs = missing_shards(folder, total, shard_size, first_seed)
        logger.info("%s: %d shards to record with %d workers", folder, len(jobs), workers)
        _record(recorder, folder, jobs, config, data, workers)
    return len(jobs)


def _record(
    recorder: Recorder, folder: Path, jobs: dict[Path, range], config: PolicyConfig, data: DataRecipe, workers: int
) -> None:
    before, started = seconds(folder) or 0.0, time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_worker) as pool:
        futures = {pool.submit(_one, recorder, seeds, path, config, data): path for path, seeds in jobs.items()}
        for done, future in enumerate(as_completed(futures), 1):
            kept = future.result()
            took = json.dumps({"seconds": round(before + time.monotonic() - started, 1), "workers": workers})
            (folder / TIME_FILE).write_text(took + "\n", encoding="utf-8")
            logger.info("%d/%d %s: %d episodes kept", done, len(jobs), futures[future].name, kept)


def seconds(folder: Path) -> float | None:
    """For how long the shards of ``folder`` were recorded; None where that was not noted."""
    path = folder / TIME_FILE
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.exists() else None


def missing_shards(folder: Path, total: int, shard_size: int, first_seed: int) -> dict[Path, range]:
    """Shards that are not there, with the seeds of their episodes."""
    shards = {
        folder / f"shard-{number:04d}": range(start, min(start + shard_size, first_seed + total))
        for number, start in enumerate(range(first_seed, first_seed + total, shard_size))
    }
    return {path: seeds for path, seeds in shards.items() if not path.exists()}


def prepare_worker() -> None:
    """Called first in a worker: one rendering thread, and it ends with its parent even if that is killed."""
    os.environ["LP_NUM_THREADS"] = "1"  # Mesa's software renderer
    end_with_parent()


def _one(recorder: Recorder, seeds: range, path: Path, config: PolicyConfig, data: DataRecipe) -> int:
    episodes = recorder(seeds, config, data)
    write_shard(path, episodes)
    return len(episodes)
