"""One evaluation from its name to its table."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from instructvla_model.manifest import read_manifest
from instructvla_sim import RenderSpec, World

from . import MAX_STEPS, trials
from .closed_loop import run_trials, world_config
from .questions import ask
from .tables import line, provenance, share, summarise

SETS = {"atomic": trials.atomic_trials, "shuffled": trials.shuffled_trials, "heldout": trials.heldout_trials}


def evaluate(
    checkpoint: Path, kind: str, families: Sequence[str], episodes: int, think: bool, workers: int,
    output: Path | None = None, max_steps: int = MAX_STEPS, device: str = "cpu",
) -> list[str]:  # fmt: skip
    """Plays ``episodes`` trials of the set ``kind`` -> lines of a table; writes JSON where ``output`` is given."""
    manifest = read_manifest(checkpoint)
    world_config(manifest)  # refused here, not in a process of its own
    world = World(RenderSpec(width=64, height=48, samples=0))
    chosen = SETS[kind](world, tuple(families), episodes)
    world.close()
    outcomes = run_trials(checkpoint, chosen, think, workers, max_steps, device)
    summary = summarise(outcomes)
    about = provenance(manifest.checkpoint_id) | {
        "stage": manifest.stage, "preset": manifest.preset, "set": kind, "think": think, "episodes": episodes,
        "families": list(families), "max_steps": max_steps, "device": device,
    }  # fmt: skip
    _write(output, about, summary, [asdict(outcome) for outcome in outcomes])
    return _lines(about, summary)


def evaluate_questions(checkpoint: Path, count: int, output: Path | None = None, device: str = "cpu") -> list[str]:
    """Asks about ``count`` unseen scenes -> lines of a table; writes JSON where ``output`` is given."""
    manifest = read_manifest(checkpoint)
    answered = ask(checkpoint, count, device=device)
    about = provenance(manifest.checkpoint_id) | {
        "stage": manifest.stage, "preset": manifest.preset, "set": "questions", "episodes": count, "device": device,
    }  # fmt: skip
    summary = {"right": share(answered, lambda item: item.right)}
    _write(output, about, summary, [asdict(item) | {"right": item.right} for item in answered])
    head = f"{about['preset']} {about['stage']} ({about['checkpoint']}), questions; {about['date']}, {about['machine']}"
    return [head, line("answered right", summary["right"])]


def _write(output: Path | None, about: dict, summary: dict, outcomes: list[dict]) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        content = {"about": about, "summary": summary, "outcomes": outcomes}
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, output)


def _lines(about: dict, summary: dict) -> list[str]:
    head = (
        f"{about['preset']} {about['stage']} ({about['checkpoint']}), {about['set']}, "
        f"{'with' if about['think'] else 'without'} reasoning; {about['date']}, {about['machine']}"
    )
    text_only = about["max_steps"] == 1
    counts = ("text_right",) if text_only else ("success", "named_object_first", "text_right")
    rows = [head, *(line(name.replace("_", " "), summary[name]) for name in counts)]
    groups = ("text_right_by_kind",) if text_only else ("success_by_family", "success_by_kind", "success_by_target")
    for group in groups:
        if len(summary[group]) > 1:
            rows += [line(f"  {group.split('_')[-1]} {name}", value) for name, value in summary[group].items()]
    return rows
