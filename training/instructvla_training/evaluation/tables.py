"""Counts of outcomes as rows, with confidence intervals."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from .closed_loop import Outcome

Z95 = 1.959964
Tried = TypeVar("Tried")


def share(outcomes: Sequence[Tried], holds: Callable[[Tried], bool]) -> dict[str, Any]:
    """Successes, trials, rate and its 95 % Wilson interval."""
    n, k = len(outcomes), sum(map(holds, outcomes))
    if n == 0:
        return {"n": 0, "k": 0, "rate": None, "low": None, "high": None}
    low, high = wilson(k, n)
    return {"n": n, "k": k, "rate": k / n, "low": low, "high": high}


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of k in n (at least 1)."""
    p = k / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (p * (1 - p) / n + Z95**2 / (4 * n * n)) ** 0.5
    return centre - half, centre + half


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Success, naming and text, over all and by family, kind and target."""
    groups: dict[str, dict[str, list[Outcome]]] = {"family": {}, "kind": {}, "target": {}}
    for outcome in outcomes:
        groups["family"].setdefault(outcome.trial.task.family, []).append(outcome)
        groups["kind"].setdefault(outcome.trial.kind, []).append(outcome)
        groups["target"].setdefault(outcome.trial.task.target, []).append(outcome)
    approached = [o for o in outcomes if o.first_approached is not None]
    written = [o for o in outcomes if o.text_right is not None]
    return {
        "success": share(outcomes, lambda o: o.success),
        "named_object_first": share(approached, lambda o: o.named_first),
        "named_object_first_of_all": share(outcomes, lambda o: o.named_first),
        "text_right": share(written, lambda o: bool(o.text_right)),
        "text_right_by_kind": {
            kind: share([o for o in rows if o.text_right is not None], lambda o: bool(o.text_right))
            for kind, rows in sorted(groups["kind"].items())
        },
        **{
            f"success_by_{name}": {key: share(rows, lambda o: o.success) for key, rows in sorted(by.items())}
            for name, by in groups.items()
        },
    }


def provenance(checkpoint_id: str) -> dict[str, str]:
    """Where and when a figure was measured."""
    return {"checkpoint": checkpoint_id, "date": date.today().isoformat(), "machine": machine()}


def machine() -> str:
    """Processor and core count in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8")
        names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
        model = f"{names[0]}, {len(names)} cores" if names else model
    return model


def when_and_where(measurements: Iterable[Mapping[str, str]]) -> str:
    """Dates and machines of what `provenance` says of measurements, each once."""
    rows = list(measurements)
    *most, last = sorted({row["date"] for row in rows})
    dates = f"{', '.join(most)} and {last}" if most else last
    return f"Measured {dates} on {'; '.join(sorted({row['machine'] for row in rows}))}."


def line(name: str, counted: dict[str, Any]) -> str:
    """One row for people."""
    if not counted["n"]:
        return f"{name:34s} -"
    return (
        f"{name:34s} {100 * counted['rate']:5.1f} %  ({counted['k']}/{counted['n']}, "
        f"95 % {100 * counted['low']:.0f}..{100 * counted['high']:.0f})"
    )
