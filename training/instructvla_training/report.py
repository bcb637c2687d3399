"""One page about a run: its recipe, its curves, what it drew, wrote and would have done. Made from the run's files."""

from __future__ import annotations

import base64
import html
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from .evaluation.tables import machine
from .recipes import StageRecipe
from .refusals import RunError

HIDDEN = {"step", "seconds"}
ABOUT_FILE = "about.json"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#1f2937}
h1{font-size:1.6em;margin-bottom:0}h2{font-size:1.15em;border-bottom:1px solid #d1d5db;margin-top:1.6em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2em .8em .2em 0;vertical-align:top}
th{color:#6b7280;font-weight:600}tr+tr td{border-top:1px solid #eef0f3}img{max-width:100%}p.small{color:#6b7280}
.cols{display:grid;grid-template-columns:1fr 1fr;gap:0 2em}.right{color:#15803d}"""


# ---- the log as curves --------------------------------------------------------------------------------


def read_log(run_dir: Path) -> dict[str, np.ndarray]:
    """Columns of ``log.jsonl``; a name missing from a row is NaN there.

    A resumed run logs the steps since its last save again: the later row of a step counts. A line that a kill has cut
    in two is left out. Raises RunError where no row is left.
    """
    path = Path(run_dir) / "log.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"found no {path}, expected the log of a training run; name its run folder")
    rows: dict[int, dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(text)
            rows[row["step"]] = row
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    if not rows:
        raise RunError(f"{path}: found no whole row, expected one for each logged step; train a few steps first")
    ordered = [rows[step] for step in sorted(rows)]
    names = sorted({name for row in ordered for name in row})
    return {name: np.array([row.get(name, np.nan) for row in ordered]) for name in names}


def plot_log(run_dir: Path, output: Path, title: str) -> None:
    """One small panel per logged quantity, raw and smoothed, written as a PNG."""
    columns = read_log(run_dir)
    names = [name for name in columns if name not in HIDDEN and not name.startswith("share/")]
    rows = -(-len(names) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(12, 2.6 * rows), squeeze=False, constrained_layout=True)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        values = columns[name]
        axis.plot(columns["step"], values, color="#b8c4d6", linewidth=1)
        axis.plot(columns["step"], _smooth(values), color="#1f4e8c", linewidth=1.6)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    minutes = columns["seconds"][-1] / 60
    figure.suptitle(f"{title}: {int(columns['step'][-1])} steps, {minutes:.0f} min", fontsize=12)
    figure.savefig(output, dpi=90)
    plt.close(figure)


def _smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    if len(values) < width:
        return values
    padded = np.pad(values, (width // 2, width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


# ---- the page -----------------------------------------------------------------------------------------


def write_about(run_dir: Path, recipe: StageRecipe, processes: int, parts: int) -> None:
    """What was asked for and where it runs, as ``about.json`` beside the log."""
    about = {
        "recipe": asdict(recipe), "machine": machine(), "processes": processes, "parts": parts,
        "python": platform.python_version(), "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }  # fmt: skip
    (run_dir / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def write_report(run_dir: Path) -> Path:
    """Writes ``losses.png`` and the self-contained ``report.html`` into the run folder -> the page's path."""
    run_dir = Path(run_dir)
    columns = read_log(run_dir)
    try:
        about: dict[str, Any] = json.loads((run_dir / ABOUT_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(
            f"{run_dir / ABOUT_FILE}: {error}; expected what the run is of; give its training command again, which "
            "writes it anew"
        ) from error
    plot_log(run_dir, run_dir / "losses.png", run_dir.name)
    samples = sorted((run_dir / "samples").glob("step-*.json"))
    parts = [
        f"<h1>{html.escape(run_dir.name)}</h1>",
        f"<p class=small>{html.escape(_headline(columns, about))}</p>",
        "<h2>Curves</h2>", _image(run_dir / "losses.png", "losses over the steps"),
        "<div class=cols><div><h2>Last values</h2>", _table(_last(columns)), "</div>",
        "<div><h2>What was drawn</h2>", _table(_drawn(columns)), "</div></div>",
    ]  # fmt: skip
    if samples:
        parts += _samples(samples[-1])
    parts += ["<h2>Recipe</h2>", _table(_flat(about["recipe"]))]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(run_dir.name)}</title>"
    page += f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    output = run_dir / "report.html"
    output.write_text(page, encoding="utf-8")
    return output


def _headline(columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    step, steps = int(columns["step"][-1]), about["recipe"]["optimisation"]["steps"]
    speed = float(np.median(columns["samples_per_s"])) if "samples_per_s" in columns else float("nan")
    return (
        f"step {step} of {steps}, {columns['seconds'][-1] / 60:.1f} min of training, {speed:.1f} samples/s; "
        f"{about['processes']} process(es) on {about['machine']}, GPU: {about['gpu']}; "
        f"torch {about['torch']}; {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    )


def _last(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {n: f"{v[-1]:.4g}" for n, v in columns.items() if n not in HIDDEN and not n.startswith("share/")}


def _drawn(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    shares = {n.removeprefix("share/"): float(np.nanmean(v)) for n, v in columns.items() if n.startswith("share/")}
    return {name: f"{100 * share:.1f} %" for name, share in shares.items() if share > 0}


def _samples(path: Path) -> list[str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        f"<tr><td>{html.escape(t['question'])}</td><td class={'right' if t['text'] == t['expected'] else 'other'}>"
        f"{html.escape(t['text'])}</td><td>{html.escape(t['expected'])}</td></tr>"
        for t in content["texts"]
    ]
    head = "<tr><th>question or instruction</th><th>the policy wrote</th><th>expected</th></tr>"
    title = f"<h2>Written at step {content['step']}, on pictures kept from training</h2>"
    found = [title, "<table>", head, *rows, "</table>"]
    picture = path.with_suffix(".png")
    if picture.exists():
        found += ["<h2>Chunks along a recorded episode, open loop</h2>", _image(picture, "predicted and recorded")]
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            rows[prefix + name] = ", ".join(" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
        else:
            rows[prefix + name] = str(value)
    return rows


def _table(rows: Mapping[str, str]) -> str:
    lines = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(lines)}</table>"


def _image(path: Path, description: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
