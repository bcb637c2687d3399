"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from instructvla_ros.bags.comparison import MIN_CHUNKS, Regression
from instructvla_ros.bags.report.figures import COLORS

SHOWN_EPISODES = 24
_TILES = (
    ("translation_error_mm", "Translation error", "of a step, mean"),
    ("rotation_error_deg", "Rotation error", "of a step, mean"),
    ("direction_cosine", "Direction", "cosine, 1 is the same way"),
    ("path_error_mm", "Path error", "at the end of a chunk"),
    ("gripper_agreement", "Gripper", "open or closed as recorded"),
    ("seam_jump_mm", "Seam jump", "between chunks, mean"),
)


@dataclass(frozen=True)
class KeyFrame:
    """A camera image (JPEG) with the time in the bag and what was written by then."""

    time_s: float
    jpeg: bytes
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """SVGs and camera images of a report; episodes and worst moments in the report's order."""

    steps: bytes
    histograms: bytes
    timelines: Sequence[bytes | None]
    frames: Sequence[Sequence[KeyFrame]]
    moments: Sequence[bytes]
    moment_frames: Sequence[bytes | None]


def data_uri(kind: str, data: bytes) -> str:
    """Data as an image inside of the page."""
    return f"data:{kind};base64,{b64encode(data).decode()}"


def figure_name(kind: str, bag: str, number: int) -> str:
    """The name of a figure's file, without its ending."""
    return f"{kind}_{bag.replace('/', '_')}_{number}"


def short(value: float | None) -> str:
    """Three significant digits, a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def interval(row: Mapping[str, Any]) -> str:
    """The interval of a difference, a dash where there are too few chunks for one."""
    return "–" if row["low"] is None else f"{row['low']:+.3g} … {row['high']:+.3g}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def words(name: str) -> str:
    """translation_error_mm -> Translation error."""
    for unit in ("_mm", "_deg", "_m_s3", "_s"):
        name = name.removesuffix(unit)
    return name.replace("_", " ").capitalize()


def _tiles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    summaries = list(report["summary"].values())
    found = []
    for name, label, hint in _TILES:
        values = [summary[name]["mean"] for summary in summaries[:2]]
        as_text = percent if name == "gripper_agreement" else short
        texts = [as_text(value) for value in values]
        found.append(
            {
                "label": label, "value": texts[0], "unit": summaries[0][name]["unit"] if values[0] is not None else "",
                "second": texts[1] if len(texts) > 1 else "", "hint": hint,
            }
        )  # fmt: skip
    return found


def switches(summary: Mapping[str, Any]) -> str:
    """How many switches of the gripper were missed, and how many spurious; a dash where nothing is known of it."""
    cell = summary["gripper_timing"]
    return "–" if cell["missed"] is None else f"{cell['missed']}, {cell['spurious']}"


def problems_of(report: Mapping[str, Any]) -> list[str]:
    """What could not be used, bag by bag, and what the models raised."""
    several = len(report["bags"]) + len(report["unreadable"]) > 1
    problems = [f"{bag['name']} is not in this report: {bag['reason']}" for bag in report["unreadable"]]
    problems += [
        f"{bag['name'] + ', ' if several else ''}{p['where']}: {p['what']}"
        + (f" ({p['count']} times)" if p["count"] > 1 else "")
        for bag in report["bags"]
        for p in bag["problems"]
    ]
    problems += [
        f"{c['name']}: {text} ({count} times)" for c in report["checkpoints"] for text, count in c["failures"].items()
    ]
    return problems


def render(
    title: str, report: Mapping[str, Any], pictures: Pictures, gate: Sequence[Regression] = (), limit: float = 0.0
) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("instructvla_ros.bags.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"short": short, "interval": interval, "percent": percent, "words": words}
    episodes = []
    for row, timeline, frames in zip(report["episodes"], pictures.timelines, pictures.frames, strict=False):
        shown = [
            {"image": data_uri("image/jpeg", f.jpeg), "time": f"{f.time_s:.1f} s", "texts": f.texts} for f in frames
        ]
        episodes.append({**row, "timeline": data_uri("image/svg+xml", timeline) if timeline else "", "frames": shown})
    instructions = {(e["bag"], e["index"]): e["instruction"] for e in report["episodes"]}
    worst = [
        {
            **row, "time": f"{row['time_s']:.1f} s", "instruction": instructions[row["bag"], row["episode"]],
            "paths": data_uri("image/svg+xml", paths), "image": data_uri("image/jpeg", jpeg) if jpeg else "",
        }
        for row, paths, jpeg in zip(report["worst"], pictures.moments, pictures.moment_frames, strict=True)
    ]  # fmt: skip
    first = next(iter(report["summary"].values()))
    table = [
        {"name": name, "unit": cell["unit"], "cells": [summary[name] for summary in report["summary"].values()]}
        for name, cell in first.items()
        if any(summary[name]["n"] for summary in report["summary"].values())
    ]
    return environment.get_template("page.html.j2").render(
        title=title,
        seed=report["seed"],
        bags=report["bags"],
        seconds=sum(bag["duration_s"] for bag in report["bags"]),
        episodes=report["episodes"],
        checkpoints=report["checkpoints"],
        colors=COLORS,
        tiles=_tiles(report),
        table=table,
        switches=[switches(summary) for summary in report["summary"].values()],
        comparison=report["comparison"],
        min_chunks=MIN_CHUNKS,
        instructions=[{**row, "checkpoint": name} for name, rows in report["instructions"].items() for row in rows],
        shown=episodes,
        hidden=max(0, len(report["episodes"]) - len(episodes)),
        worst=worst,
        problems=problems_of(report),
        figures={
            "steps": data_uri("image/svg+xml", pictures.steps),
            "histograms": data_uri("image/svg+xml", pictures.histograms),
        },
        gate={"rows": gate, "failed": any(row.failed for row in gate), "limit": f"{100 * limit:g} %"} if gate else None,
    )
