"""The pictures of a report, drawn once and written as SVG (into the page) and as PNG (beside it)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instructvla_ros.bags.report.content import BagReplay
from instructvla_ros.bags.score import ChunkScores

RECORDED = "#33383f"
COLORS = ("#2563c9", "#d9702b", "#2e8b57", "#8e44ad", "#b3352a", "#0e8a94")
"""Of the checkpoints; from the seventh on they come again."""
_DPI = 140
_FAINT, _GRID = "#8a929c", "#e4e7eb"
_AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "instructvla",
    "path.simplify_threshold": 0.5,
}


def styled(width_in: float, height_in: float, **grid: object) -> tuple[Figure, np.ndarray]:
    """A figure in the report's style and its axes as an array; needs no display."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = figure.subplots(**grid)
    return figure, np.atleast_1d(axes)


def save(figure: Figure, kind: str) -> bytes:
    """The figure as "svg" or "png", the same bytes for the same content."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=_DPI, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once; the next format takes it over
    return stream.getvalue()


def along_the_chunk(names: Sequence[str], scores: Sequence[ChunkScores]) -> Figure:
    """Means and middle halves of the errors at each step of a chunk."""
    rows = (
        ("path_error_mm", "path, mm"),
        ("translation_error_mm", "translation, mm"),
        ("rotation_error_deg", "rotation, deg"),
    )
    figure, axes = styled(9.0, 2.6, nrows=1, ncols=len(rows))
    for axis, (metric, title) in zip(axes, rows, strict=True):
        for name, one, color in zip(names, scores, cycle(COLORS), strict=False):
            values = one.by_step[metric]
            known = [values[np.isfinite(values[:, k]), k] for k in range(values.shape[1])]
            steps = [k + 1 for k, found in enumerate(known) if len(found)]
            found = [v for v in known if len(v)]
            if not found:
                continue
            low, middle, high = np.array([np.percentile(v, [25, 50, 75]) for v in found]).T
            axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
            axis.plot(steps, middle, color=color, marker="o", markersize=3, linewidth=1.6, label=name)
        axis.set_title(title, loc="left", fontsize=9.5, color=RECORDED)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("step of the chunk")
    if len(names) > 1:
        axes[0].legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def histograms(names: Sequence[str], scores: Sequence[ChunkScores]) -> Figure:
    """How the numbers of the chunks are spread."""
    rows = (
        ("translation_error_mm", "translation error, mm"), ("rotation_error_deg", "rotation error, deg"),
        ("direction_cosine", "direction cosine"), ("seam_jump_mm", "seam jump, mm"),
    )  # fmt: skip
    figure, axes = styled(9.0, 2.3, nrows=1, ncols=len(rows))
    for axis, (metric, title) in zip(axes, rows, strict=True):
        everything = np.concatenate([one.values[metric] for one in scores])
        everything = everything[np.isfinite(everything)]
        if len(everything):
            top = np.percentile(everything, 99) if metric != "direction_cosine" else 1.0
            bottom = -1.0 if metric == "direction_cosine" else 0.0
            edges = np.linspace(bottom, max(top, bottom + 1e-6), 25)
            for name, one, color in zip(names, scores, cycle(COLORS), strict=False):
                shown = np.clip(one.values[metric][np.isfinite(one.values[metric])], edges[0], edges[-1])
                axis.hist(shown, edges, color=color, alpha=0.55, label=name)
        axis.set_title(title, loc="left", fontsize=9.5, color=RECORDED)
        axis.set_yticks([])
        axis.grid(False)
    if len(names) > 1:
        axes[0].legend(loc="upper right", fontsize=7.5, frameon=False)
    return figure


def timeline(replay: BagReplay, episode: int) -> Figure:
    """Predicted and recorded steps of one episode over time, axis by axis, and the error of the path below."""
    figure, axes = styled(9.0, 8.4, nrows=8, ncols=1, sharex=True)
    origin_s = replay.start_ns * 1e-9
    scale = (1e3, 1e3, 1e3, 57.29578, 57.29578, 57.29578, 1.0)
    units = ("mm", "mm", "mm", "deg", "deg", "deg", "open")
    first = replay.scores[0]
    chosen = first.episode == episode
    for number, axis in enumerate(axes[:7]):
        times = first.received_s[chosen] - origin_s
        recorded = first.recorded[chosen, 0, number] * scale[number]
        _line(axis, times, recorded, RECORDED, "recorded", 1.4)
        for run, scores, color in zip(replay.result.runs, replay.scores, cycle(COLORS), strict=False):
            mine = scores.episode == episode
            values = scores.predicted[mine, 0, number] * scale[number]
            _line(axis, scores.received_s[mine] - origin_s, values, color, run.name, 1.3)
        axis.set_ylabel(f"{_AXES[number]}\n{units[number]}", rotation=0, ha="right", va="center")
        axis.locator_params(axis="y", nbins=3)
    axes[6].set_ylim(-0.08, 1.08)
    for run, scores, color in zip(replay.result.runs, replay.scores, cycle(COLORS), strict=False):
        mine = scores.episode == episode
        errors = scores.values["path_error_mm"][mine]
        _line(axes[7], scores.received_s[mine] - origin_s, errors, color, run.name, 1.3)
    axes[7].set_ylabel("path error\nmm", rotation=0, ha="right", va="center")
    axes[7].set_ylim(bottom=0)
    axes[7].set_xlabel("time in the bag, s")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize=8.5, frameon=False)
    figure.align_ylabels(axes)
    return figure


def _line(axis: Axes, times: np.ndarray, values: np.ndarray, color: str, label: str, width: float) -> None:
    axis.plot(times, values, color=color, linewidth=width, label=label, solid_joinstyle="round")


def moment(replay: BagReplay, chunk: int) -> Figure:
    """The path of one chunk seen from above and from the side, predicted and recorded, mm."""
    figure, axes = styled(4.4, 2.4, nrows=1, ncols=2)
    scores = replay.scores[0]
    for axis, (across, up), title in zip(axes, ((1, 0), (0, 2)), ("from above", "from the side"), strict=True):
        for rows, color, label in (
            (scores.recorded[chunk], RECORDED, "recorded"),
            (scores.predicted[chunk], COLORS[0], "predicted"),
        ):
            path = 1e3 * np.vstack([np.zeros(3), np.cumsum(rows[:, :3], axis=0)])
            axis.plot(path[:, across], path[:, up], color=color, marker="o", markersize=2.5, linewidth=1.4, label=label)
        axis.plot(0, 0, marker="o", markersize=6, markerfacecolor="white", markeredgecolor=_FAINT)
        axis.set_title(title, loc="left", fontsize=9, color=RECORDED)
        axis.set_xlabel(("y, mm (left)", "x, mm (forward)")[up == 2])
        axis.set_ylabel(("x, mm (forward)", "z, mm (up)")[up == 2])
        axis.set_aspect("equal", adjustable="datalim")
    axes[0].invert_xaxis()  # y points left
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7.5, frameon=False)
    return figure
