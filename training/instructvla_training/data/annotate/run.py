"""Annotates a dataset into a folder; given again, the same command goes on where it was stopped.

``annotations.jsonl`` grows by one line for each annotated episode; ``vla_it.json`` and ``report.md`` are made of it
at the end (and after Ctrl-C). Episodes that failed are tried again the next time, after all others. ``wasted.jsonl``
keeps what they cost, so that cost and its limit are those of all runs together. One run at a time holds the folder.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from instructvla_training.data.formats.annotated import Key, refuse_shared, unannotated
from instructvla_training.data.formats.episode import DataError, Episode, EpisodeDataset
from instructvla_training.data.formats.opening import open_dataset
from instructvla_training.data.survey import fingerprint, survey
from instructvla_training.language import vla_it
from instructvla_training.lock import only_run

from .endpoint import EndpointError, Usage
from .prompt import VERSION
from .quality import Record, report
from .schema import Annotation, to_episode
from .work import SILENT, Job, Outcome, workers

logger = logging.getLogger(__name__)
Row = TypeVar("Row")

RECORDS_FILE, FAILED_FILE, ABOUT_FILE = "annotations.jsonl", "failed.jsonl", "about.json"
WASTED_FILE = "wasted.jsonl"
REFUSALS_IN_A_ROW = 5
"""So many episodes that the endpoint refuses or does not answer, one after the other, are not the episodes' fault."""
UNCOUNTED = (
    "%s does not say how many tokens an answer took (usage): the cost cannot be counted, and --max-cost ends nothing; "
    "hold the run back with --limit"
)
VLA_IT_FILE, REPORT_FILE = "vla_it.json", "report.md"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``limit`` episodes at most; prices in the endpoint's currency for a million tokens; 0 ``max_cost``: no limit.
    It counts all runs into the folder. Raises DataError where there is such a limit and no price to reach it by."""

    workers: int = 4
    limit: int | None = None
    price_input: float = 0.0
    price_output: float = 0.0
    max_cost: float = 0.0

    def __post_init__(self) -> None:
        if self.max_cost and not (self.price_input or self.price_output):
            raise DataError(
                f"found --max-cost {self.max_cost:g} and no price, expected one, without which nothing costs anything; "
                "say --price-input and --price-output, or hold the run back with --limit"
            )

    def cost(self, usage: Usage) -> float:
        return (usage.input_tokens * self.price_input + usage.output_tokens * self.price_output) / 1e6


def annotate(
    job: Job, folder: Path, limits: Limits, ray_address: str | None = None,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Record]:  # fmt: skip
    """Annotates what is missing -> all records of the folder. Raises DataError, EndpointError where the endpoint
    refuses everything or is not there, and RunError where another run holds the folder or Ray fails."""
    dataset = open_dataset(job.path, job.reading)
    refuse_shared(dataset.root, _keys(unannotated(dataset), report_progress))
    with only_run(folder):
        _check_about(folder / ABOUT_FILE, {
            "dataset": dataset.name, "hash": fingerprint(dataset), "model": job.settings.model,
            "count": job.settings.count, "prompt": VERSION,
        })  # fmt: skip
        return _annotate_missing(job, dataset, folder, limits, ray_address, report_progress)


def _keys(dataset: EpisodeDataset, report_progress: Callable[[int, int], None]) -> Iterable[Key]:
    """Of all episodes, by their survey, which is kept; where some cannot be surveyed, of those that can be read: what
    cannot fails alone later."""
    try:
        return survey(dataset, report_progress).keys
    except DataError as error:
        logger.warning("%s (annotating goes on)", error)
    return [(episode.file_path, episode.episode_id) for episode in _readable(dataset)]


def _readable(dataset: EpisodeDataset) -> Iterator[Episode]:
    for number in range(len(dataset)):
        with suppress(DataError):
            yield dataset[number]


def problems(folder: Path) -> list[str]:
    """Why episodes of the folder failed, one for each; that one has no instruction is no failure."""
    return [row["problem"] for row in _read_failures(folder / FAILED_FILE).values() if row["problem"] != SILENT]


def _annotate_missing(
    job: Job, dataset: EpisodeDataset, folder: Path, limits: Limits, ray_address: str | None,
    report_progress: Callable[[int, int], None],
) -> list[Record]:  # fmt: skip
    records = _read_records(folder / RECORDS_FILE)
    done = {record.number for record in records}
    failures = {number: row for number, row in _read_failures(folder / FAILED_FILE).items() if number not in done}
    missing = [number for number in range(len(dataset)) if number not in done]
    wanted = sorted(missing, key=lambda number: number in failures)  # what failed before comes last
    wanted = wanted[: limits.limit] if limits.limit is not None else wanted
    logger.info("%s: %d episodes annotated, %d to do", dataset.name, len(done), len(wanted))
    wasted = _read_wasted(folder / WASTED_FILE)
    spent = sum((record.usage for record in records), wasted)
    refusals, told = 0, False

    def affordable() -> Any:
        for number in wanted:
            if limits.max_cost and limits.cost(spent) >= limits.max_cost:
                logger.warning("stopped at a cost of %.4f, the limit is %g", limits.cost(spent), limits.max_cost)
                return
            yield number

    try:
        with (
            workers(job, limits.workers, ray_address) as crew,
            (folder / RECORDS_FILE).open("a", encoding="utf-8") as file,
            (folder / WASTED_FILE).open("a", encoding="utf-8") as wasted_file,
        ):
            for count, outcome in enumerate(crew.outcomes(affordable())):
                spent += outcome.usage
                if _uncounted(outcome.usage) and not told:
                    told = True
                    logger.warning(UNCOUNTED, job.settings.base_url)
                if outcome.annotation is None:
                    failures[outcome.number] = _failure(outcome)
                    wasted += outcome.usage
                    wasted_file.write(json.dumps({"number": outcome.number} | asdict(outcome.usage)) + "\n")
                    wasted_file.flush()
                else:
                    failures.pop(outcome.number, None)
                    records.append(_record(outcome))
                    file.write(_line(records[-1]) + "\n")
                    file.flush()
                report_progress(count, len(wanted))
                if outcome.refused:
                    refusals += 1
                elif outcome.usage.requests:  # nothing was asked about episodes that are silent or cannot be read
                    refusals = 0
                if refusals >= REFUSALS_IN_A_ROW:
                    raise EndpointError(
                        f"{job.settings.base_url} refused or did not answer {refusals} episodes one after the other, "
                        f"the last with: {outcome.problem}; expected annotations; check that it runs, --base-url, "
                        "--model and what it accepts, then give the command again: what is done stays"
                    )
    finally:
        _write_results(folder, records, list(failures.values()), wasted, limits)
        found = problems(folder)
        for problem, times in Counter(found).most_common(1):
            logger.warning("%d episodes failed so far, %d of them with: %s", len(found), times, problem)
    return records


def _uncounted(usage: Usage) -> bool:
    """Whether answers came without the number of their tokens."""
    return bool(usage.requests) and not (usage.input_tokens or usage.output_tokens)


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {"number": outcome.number, "episode_id": outcome.episode_id, "problem": outcome.problem}


def _read_failures(path: Path) -> dict[int, dict[str, Any]]:
    """By the episode's number."""
    return dict(_rows(path, lambda row: (int(row["number"]), row | {"problem": str(row["problem"])})))


def _read_wasted(path: Path) -> Usage:
    """What episodes that failed have cost so far."""
    return sum(_rows(path, lambda row: Usage(**{k: v for k, v in row.items() if k != "number"})), Usage())


def _read_records(path: Path) -> list[Record]:
    """The last one of each episode: two runs at once, which older versions allowed, wrote some twice."""
    records = _rows(path, lambda row: Record(
        int(row["number"]), row["file_path"], row["episode_id"], row["instruction"], tuple(row["motion"]),
        Annotation.model_validate(row["annotation"]), Usage(**row["usage"]),
    ))  # fmt: skip
    return list({record.number: record for record in records}.values())


def _rows(path: Path, parsed: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """One of each line; a last one that a kill has cut in two is dropped from the file. Raises DataError."""
    if not path.exists():
        return []
    rows, good = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                logger.warning("%s: dropped a line that was cut: %s", path, line[:60])
                break
            try:
                rows.append(parsed(json.loads(line)))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number}: found {line[:60]!r} ({type(error).__name__}), expected a line that this "
                    "command has written; remove it: an annotation that is missing is asked for again"
                ) from error
            good += len(line)
    os.truncate(path, good)
    return rows


def _record(outcome: Outcome) -> Record:
    assert outcome.annotation is not None
    return Record(
        outcome.number, outcome.file_path, outcome.episode_id, outcome.instruction, outcome.motion, outcome.annotation,
        outcome.usage,
    )  # fmt: skip


def _line(record: Record) -> str:
    return json.dumps(
        {
            "number": record.number,
            "file_path": record.file_path,
            "episode_id": record.episode_id,
            "instruction": record.instruction,
            "motion": record.motion,
            "annotation": record.annotation.model_dump(),
            "usage": asdict(record.usage),
        },
        ensure_ascii=False,
    )


def _check_about(path: Path, about: dict[str, Any]) -> None:
    """What the folder's annotations are of. Raises DataError where they are of something else."""
    if not path.exists():
        path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: found a damaged file, expected what the annotations beside it are of, in JSON; if they are of "
            "this dataset, --model and --count, remove it and give the command again, else choose a new folder"
        ) from error
    differing = sorted(key for key in about if found.get(key) != about[key])
    if differing:
        raise DataError(
            f"{path.parent} holds annotations of another {', '.join(differing)}: found "
            f"{[found.get(key) for key in differing]}, expected {[about[key] for key in differing]}; "
            "choose a new folder"
        )


def _write_results(
    folder: Path, records: list[Record], failures: list[dict[str, Any]], wasted: Usage, limits: Limits
) -> None:
    ordered = sorted(records, key=lambda record: record.number)
    vla_it.write(folder / VLA_IT_FILE, [to_episode(r.annotation, r.file_path, r.episode_id, r.motion) for r in ordered])
    (folder / FAILED_FILE).write_text("".join(json.dumps(row) + "\n" for row in failures), encoding="utf-8")
    text = report(ordered, [row["problem"] for row in failures], wasted, limits.cost)
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
