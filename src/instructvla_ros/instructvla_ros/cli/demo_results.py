"""What a demonstration leaves in its folder, and what its nodes said before one of them ended."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructvla_ros.bags.writer import WriterState
    from instructvla_ros.cli.demo_session import DemoSession, Outcome

FILM, SHEET, RESULT, BAG, LOG = "demo.mp4", "contact_sheet.png", "outcome.json", "bag", "nodes.log"
_TAIL_BYTES = 100_000
_LOGGED = re.compile(r"^\[\w+\] \[[\d.]+\] \[[^\]]*\]: ", re.MULTILINE)
_FATAL = re.compile(r"^\[FATAL\] \[[\d.]+\] \[([^\]]*)\]: ", re.MULTILINE)


def clear(folder: Path) -> None:
    """Make the folder, without what an earlier demonstration left: results of two runs must not stand together."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FILM, SHEET, RESULT):
        (folder / name).unlink(missing_ok=True)
    if (folder / BAG).exists():
        shutil.rmtree(folder / BAG)


def last_fatal(log: Path) -> str:
    """What a node said last before it gave up, as `node: message`; of a traceback the error. "" where none did."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    found = list(_FATAL.finditer(text))
    if not found:
        return ""
    rest = text[found[-1].end() :]
    following = _LOGGED.search(rest)
    rest = rest[: following.start()] if following else rest
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    said = lines[-1] if lines and lines[0].startswith("Traceback") else " ".join(lines[:1])
    return f"{found[-1][1]}: {said}"


def bag_problem(state: WriterState, lost: int) -> str:
    """Why the closed bag is not all that was sent; "" where it is."""
    from instructvla_ros.bags.writer import CLOSED

    parts = [] if state.ended in ("", CLOSED) else [state.ended]
    if state.dropped or lost:
        parts.append(f"{state.dropped} messages were not written, DDS lost {lost}")
    return "; ".join(parts)


def write_outcome(folder: Path, instruction: str, seed: int, outcome: Outcome, bag: Mapping[str, Any]) -> None:
    """outcome.json."""
    record = {
        "instruction": instruction,
        "reasoning": outcome.text,
        "success": outcome.success,
        "why": outcome.why,
        "seconds": round(outcome.took_s, 2),
        "seed": seed,
        "task": outcome.status.details,
        "bag": bag,
        "host_cpus": os.cpu_count(),
    }
    (folder / RESULT).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_pictures(folder: Path, instruction: str, seed: int, session: DemoSession, outcome: Outcome) -> int:
    """Film and contact sheet; returns the film's number of frames."""
    from instructvla_ros.cli.film import write_contact_sheet, write_film

    primary, wrist = (session.frames[topic] for topic in session.cameras)
    begin_s = max(0.0, session.said_at_s - 0.3)
    primary = [frame for frame in primary if frame.time_s >= begin_s]
    frames = write_film(folder / FILM, primary, wrist, session.timeline)
    word = "success" if outcome.success else f"failure, {outcome.why}"
    caption = [
        f"Instruction: {instruction}",
        f"Reasoning: {outcome.text or '-'}",
        f"Outcome: {word} after {outcome.took_s:.0f} s (scene {seed})",
    ]
    write_contact_sheet(folder / SHEET, primary, session.timeline, caption)
    return frames
