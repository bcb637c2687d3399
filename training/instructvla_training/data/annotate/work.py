"""Annotating one episode, and handing episodes to threads of this machine or to the workers of a Ray cluster."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.data.motions import motions
from instructvla_training.refusals import RunError

from .endpoint import Endpoint, Settings, Usage
from .prompt import key_frames, messages
from .schema import Annotation

SILENT = "no instruction: nothing was asked"
KNOCK_S = 10.0


@dataclass(frozen=True)
class Job:
    """What every worker needs: the dataset as it lies on its disk, and how to reach the model."""

    path: Path
    reading: Reading
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """One episode's annotation, or why there is none."""

    number: int
    file_path: str
    episode_id: str
    instruction: str
    motion: tuple[str, ...]
    annotation: Annotation | None
    usage: Usage
    problem: str = ""
    refused: bool = False


class Annotator:
    """Annotates episodes by number; lives once in each process."""

    def __init__(self, job: Job, share: float = 1.0) -> None:
        self._job, self._endpoint = job, Endpoint(job.settings, share)
        self._dataset = open_dataset(job.path, job.reading)

    def annotate(self, number: int) -> Outcome:
        """Raises EndpointError where no further request can succeed."""
        dataset = self._dataset
        try:
            episode = dataset[number]
            if not episode.instruction:
                return Outcome(number, episode.file_path, episode.episode_id, "", (), None, Usage(), SILENT)
            asked = messages(episode.instruction, key_frames(episode), self._job.settings.count)
        except DataError as error:
            return Outcome(number, dataset.name, str(number), "", (), None, Usage(), str(error))
        answer = self._endpoint.annotate(asked, episode.instruction)
        return Outcome(
            number, episode.file_path, episode.episode_id, episode.instruction, motions(episode, dataset.layout),
            answer.annotation, answer.usage, answer.problem, answer.refused,
        )  # fmt: skip


class Workers(Protocol):
    """Annotates numbers in any order; takes the next one only when a worker is free."""

    def outcomes(self, numbers: Iterable[int]) -> Iterator[Outcome]: ...


class ThreadWorkers:
    """Threads of this process: requests wait for the network, not for the processor."""

    def __init__(self, job: Job, count: int) -> None:
        self._annotator, self._count = Annotator(job), count

    def outcomes(self, numbers: Iterable[int]) -> Iterator[Outcome]:
        left = iter(numbers)
        with ThreadPoolExecutor(self._count) as pool:
            running = {pool.submit(self._annotator.annotate, number) for number in islice(left, self._count)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from _results(done)
                running |= {pool.submit(self._annotator.annotate, number) for number in islice(left, len(done))}


class RayAnnotator:
    """An Annotator made by the first call: of an actor that fails as it is made, Ray hands on no more than a text."""

    def __init__(self, job: Job, share: float) -> None:
        self._job, self._share = job, share
        self._annotator: Annotator | None = None

    def annotate(self, number: int) -> Outcome:
        """As Annotator's; raises what making one raises, too."""
        self._annotator = self._annotator or Annotator(self._job, self._share)
        return self._annotator.annotate(number)


class RayWorkers:
    """Actors of a Ray cluster; each has its share of the request rate. The dataset lies under one path on all nodes."""

    def __init__(self, job: Job, count: int) -> None:
        ray = importlib.import_module("ray")
        self._errors = ray.exceptions
        self._pool = importlib.import_module("ray.util").ActorPool(
            [ray.remote(RayAnnotator).options(num_cpus=0.1).remote(job, 1.0 / count) for _ in range(count)]
        )
        self._count = count

    def outcomes(self, numbers: Iterable[int]) -> Iterator[Outcome]:
        left = iter(numbers)
        for number in islice(left, self._count):
            self._pool.submit(_call, number)
        while self._pool.has_next():
            yield self._next()
            for number in islice(left, 1):
                self._pool.submit(_call, number)

    def _next(self) -> Outcome:
        """Raises what an actor has raised, and RunError where one was lost."""
        try:
            return self._pool.get_next_unordered()
        except self._errors.RayTaskError as error:
            raise error.cause from error
        except self._errors.RayError as error:
            raise RunError(
                f"found a Ray worker lost ({_one_line(error)}), expected it to stay; look after its machine (memory, "
                "network, this package installed), then give the command again: what is done stays"
            ) from error


@contextmanager
def workers(job: Job, count: int, ray_address: str | None) -> Iterator[Workers]:
    """Ray's workers where an address is given ("auto" for a running cluster, "local" for one of one's own)."""
    if ray_address is None:
        yield ThreadWorkers(job, count)
        return
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise DataError("found no package ray, which --ray needs; install it: pip install ray") from error
    try:
        _knock(ray_address)
        ray.init(address=ray_address, log_to_driver=False)  # each node has the API key in its own environment
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RunError(
            f"found no Ray cluster at {ray_address} ({_one_line(error)}), expected one that runs and lets this machine "
            "in; start it, or correct --ray and the variable RAY_ADDRESS; without both, threads do the work"
        ) from error
    try:
        yield RayWorkers(job, count)
    finally:
        ray.shutdown()


def _knock(ray_address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself would try for a quarter of an hour."""
    host, colon, port = ray_address.rpartition(":")
    if colon and "//" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _call(actor: Any, number: int) -> Any:
    return actor.annotate.remote(number)


def _results(done: Iterable[Future[Outcome]]) -> Iterator[Outcome]:
    """What has come to an end; only then raises what another has raised: an answer that is paid for is kept."""
    failed = [future for future in done if future.exception()]
    yield from sorted((future.result() for future in done if future not in failed), key=lambda outcome: outcome.number)
    for future in failed:
        future.result()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
