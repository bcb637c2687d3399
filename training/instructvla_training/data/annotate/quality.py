"""A report on annotations: how many, how varied, how close to the command, what they cost, and some to read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .endpoint import Usage
from .schema import Annotation, Pair
from .work import SILENT

KINDS = ("QA", "CR", "CC")
EXAMPLES = 5
_WORD = re.compile(r"[a-z']+")


@dataclass(frozen=True)
class Record:
    """The annotation of one episode."""

    number: int
    file_path: str
    episode_id: str
    instruction: str
    motion: tuple[str, ...]
    annotation: Annotation
    usage: Usage


def report(records: Sequence[Record], problems: Sequence[str], wasted: Usage, cost: Callable[[Usage], float]) -> str:
    """Markdown. ``wasted``: spent on episodes that have no annotation yet."""
    spent = sum((record.usage for record in records), wasted)
    silent = sum(problem == SILENT for problem in problems)
    repeated = sum(record.usage.requests > 1 for record in records)
    lines = [
        "# Annotations",
        f"* {len(records)} episodes annotated, {len(problems) - silent} failed, {silent} without an instruction",
        f"* {spent.requests} answers, {spent.input_tokens} input and {spent.output_tokens} output tokens, "
        f"cost {cost(spent):.4f}",
        f"* {repeated} episodes needed more than one answer until it was valid",
        "",
    ]
    if records:
        lines += _table(records)
        lines += _examples(records)
    if problems:
        lines += ["## Failures", *(f"* {count} × {text}" for text, count in Counter(problems).most_common(10)), ""]
    return "\n".join(lines)


def _table(records: Sequence[Record]) -> list[str]:
    lines = [
        "| kind | pairs | different questions | words of a question | of an answer | words shared with the command |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        pairs: list[tuple[str, Pair]] = [(r.instruction, p) for r in records for p in getattr(r.annotation, kind)]
        questions = [pair.question.lower() for _, pair in pairs]
        shared = [_overlap(instruction, pair.question) for instruction, pair in pairs]
        lines.append(
            f"| {kind} | {len(pairs)} | {len(set(questions)) / len(pairs):.0%} "
            f"| {np.mean([len(_words(q)) for q in questions]):.1f} "
            f"| {np.mean([len(_words(pair.answer)) for _, pair in pairs]):.1f} | {np.mean(shared):.0%} |"
        )
    captions = [record.annotation.Caption for record in records]
    robots = sum("robot" in _words(text) or "arm" in _words(text) for text in captions)
    return [
        *lines,
        "",
        f"Captions: {len(set(captions)) / len(captions):.0%} different, {robots} mention the robot although they "
        "must not. A rewritten command (CR) that shares most words with the command is hardly rewritten; a situation "
        "(CC) that does gives the command away.",
        "",
    ]


def _examples(records: Sequence[Record]) -> list[str]:
    lines = ["## To read"]
    for place in np.linspace(0, len(records) - 1, min(EXAMPLES, len(records))).astype(int):
        record = records[place]
        lines += [f"### {record.instruction} (episode {record.episode_id})", f"* Caption: {record.annotation.Caption}"]
        for kind in KINDS:
            pair = getattr(record.annotation, kind)[0]
            lines.append(f"* {kind}: {pair.question} → {pair.answer}")
        lines.append("")
    return lines


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _overlap(instruction: str, question: str) -> float:
    """Share of the command's words that the question repeats."""
    words = _words(instruction)
    return len(words & _words(question)) / max(1, len(words))
