"""The report as a PDF of A4 pages, for those who do not open HTML: the same numbers, pictures and words."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from instructvla_ros.bags.comparison import Regression
from instructvla_ros.bags.report.page import KeyFrame, figure_name, interval, problems_of, short, switches, words

_WIDTH_IN, _HEIGHT_IN, _MARGIN_IN = 8.27, 11.69, 0.6
_INNER_IN = _WIDTH_IN - 2 * _MARGIN_IN
_INK, _SOFT = "#1d2126", "#667080"
_COLUMNS_A_LINE = 108
"""Letters of size 9 that fit into a line."""


class _Pages:
    """Blocks one below the other, on as many pages as they need. Inches from the top left."""

    def __init__(self, target: PdfPages) -> None:
        self._target = target
        self._begin()

    def _begin(self) -> None:
        self._page, self._y = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN)), _MARGIN_IN

    def end(self) -> None:
        """Write the page at hand."""
        self._target.savefig(self._page, dpi=130)
        self._begin()

    def _room(self, height_in: float) -> None:
        if self._y + height_in > _HEIGHT_IN - _MARGIN_IN and self._y > _MARGIN_IN:
            self.end()

    def text(self, text: str, size: float = 9.0, *, color: str = _INK, bold: bool = False, keep_in: float = 0) -> None:
        """A paragraph; with `keep_in` inches more it is not parted from what follows."""
        lines = textwrap.wrap(text, int(_COLUMNS_A_LINE * 9.0 / size)) or [""]
        height = len(lines) * size / 72 * 1.45
        self._room(height + keep_in)
        self._page.text(
            _MARGIN_IN / _WIDTH_IN, 1 - self._y / _HEIGHT_IN, "\n".join(lines), fontsize=size, color=color, va="top",
            weight="bold" if bold else "normal", linespacing=1.3, parse_math=False,
        )  # fmt: skip
        self._y += height + 0.05

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of texts; the first is the head, the first column is wide."""
        first_in, others = 2.6, len(rows[0]) - 1
        step_in = (_INNER_IN - first_in) / others
        places = [_MARGIN_IN, *(_MARGIN_IN + first_in + (n + 1) * step_in for n in range(others))]
        for number, row in enumerate(rows):
            self._room(0.2)
            for place, (x_in, cell) in enumerate(zip(places, row, strict=True)):
                self._page.text(
                    x_in / _WIDTH_IN, 1 - self._y / _HEIGHT_IN, cell, fontsize=8.5, va="top", parse_math=False,
                    ha="right" if place else "left", color=_INK if number else _SOFT,
                )  # fmt: skip
            self._y += 0.2
        self._y += 0.12

    def images(self, many: Sequence[tuple[bytes, str]], columns: int) -> None:
        """JPEGs or PNGs with captions, so many side by side."""
        for begin in range(0, len(many), columns):
            row = [(_pixels(data), caption) for data, caption in many[begin : begin + columns]]
            width_in = (_INNER_IN - 0.12 * (columns - 1)) / columns
            heights = [width_in * pixels.shape[0] / pixels.shape[1] for pixels, _ in row]
            wrapped = [textwrap.wrap(caption, int(width_in * 17)) for _, caption in row]
            words_in = max(map(len, wrapped)) * 0.13
            self._room(max(heights) + words_in + 0.1)
            for place, ((pixels, _), height_in, lines) in enumerate(zip(row, heights, wrapped, strict=True)):
                x_in = _MARGIN_IN + place * (width_in + 0.12)
                box = (
                    x_in / _WIDTH_IN, 1 - (self._y + height_in) / _HEIGHT_IN, width_in / _WIDTH_IN,
                    height_in / _HEIGHT_IN,
                )  # fmt: skip
                axes = self._page.add_axes(box)
                axes.imshow(pixels, aspect="auto", interpolation="none")
                axes.set_axis_off()
                self._page.text(
                    box[0], box[1] - 0.03 / _HEIGHT_IN, "\n".join(lines), fontsize=7, va="top", color=_SOFT,
                    linespacing=1.25, parse_math=False,
                )  # fmt: skip
            self._y += max(heights) + words_in + 0.12


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


def render(
    title: str, report: Mapping[str, Any], drawn: Mapping[str, bytes], frames: Sequence[Sequence[KeyFrame]],
    moment_frames: Sequence[bytes | None], gate: Sequence[Regression] = (), limit: float = 0.0,
) -> bytes:  # fmt: skip
    """The file. `drawn` has the figures as PNG by name, `frames` and `moment_frames` are those of the page."""
    stream = io.BytesIO()
    names = list(report["summary"])
    with PdfPages(stream, metadata={"CreationDate": None, "Title": f"Replay · {title}"}) as target:
        pages = _Pages(target)
        pages.text(title, 17, bold=True)
        seconds = sum(bag["duration_s"] for bag in report["bags"])
        pages.text(
            f"Recordings: {len(report['bags'])}, {seconds:.0f} s; episodes: {len(report['episodes'])}; recorded "
            f"actions: {report['bags'][0]['actions'] or 'none'}; seed {report['seed']}", color=_SOFT,
        )  # fmt: skip
        if gate:
            _gate(pages, gate, limit)
        for text in problems_of(report):
            pages.text(f"Could not be used: {text}", 8.5, color="#b3352a")
        pages.table([["", *(name[:24] for name in names)], *_numbers(report["summary"])])
        if report["comparison"]:
            _compare(pages, report["comparison"])
        if len({row["instruction"] for row in report["episodes"]}) > 1:  # else it is the table above
            _instructions(pages, report["instructions"])
        for name, heading in (("along_the_chunk", "Along the chunk"), ("histograms", "How the errors are spread")):
            pages.text(heading, 12, bold=True, keep_in=2.2)
            pages.images([(drawn[name], "")], 1)
        for row, shown in zip(report["episodes"], frames, strict=False):
            pages.end()
            pages.text(row["instruction"], 13, bold=True)
            text = row["annotation"] or row["recorded_text"]
            said = f"; recorded: “{text}”" if text else ""
            span = f"from {row['start_s']:.1f} s for {row['duration_s']:.1f} s"
            mark = {None: "", True: "; marked a success", False: "; marked a failure"}[row["success"]]
            pages.text(f"{row['bag']}, {span}{mark}{said}", color=_SOFT)
            if shown:
                pages.images([(f.jpeg, f"{f.time_s:.1f} s {' '.join(f.texts)}") for f in shown], len(shown))
            timeline = drawn.get(figure_name("episode", row["bag"], row["index"]))
            if timeline:
                pages.images([(timeline, "")], 1)
        hidden = len(report["episodes"]) - len(frames)
        if hidden > 0:
            pages.text(f"{hidden} further episodes are in report.json and chunks.csv.", color=_SOFT)
        if report["worst"]:
            pages.end()
            pages.text(f"Worst moments of {names[0]}", 13, bold=True)
            for row, jpeg in zip(report["worst"], moment_frames, strict=True):
                caption = f"{row['bag']}, {row['time_s']:.1f} s: path error {short(row['path_error_mm'])} mm"
                paths = (drawn[figure_name("worst", row["bag"], row["chunk"])], caption)
                pages.images([paths, *([(jpeg, "")] if jpeg else [])], 2)
        pages.end()
    return stream.getvalue()


def _gate(pages: _Pages, gate: Sequence[Regression], limit: float) -> None:
    failed = any(row.failed for row in gate)
    verdict = "Worse than the baseline" if failed else "No worse than the baseline"
    pages.text(f"{verdict} (limit {100 * limit:g} %)", 12, bold=True, color="#b3352a" if failed else _INK, keep_in=1.0)
    rows = [
        [words(r.metric), short(r.before), short(r.after), f"{100 * r.worse_by:+.1f} %{' WORSE' if r.failed else ''}"]
        for r in gate
    ]
    pages.table([["", "baseline", "now", "change for the worse"], *rows])


def _instructions(pages: _Pages, many: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    pages.text("By instruction", 12, bold=True, keep_in=0.6)
    names = ("translation_error_mm", "rotation_error_deg", "direction_cosine", "gripper_agreement")
    for checkpoint, rows in many.items():
        head = [checkpoint[:34], "chunks", "transl., mm", "rot., deg", "cosine", "gripper"]
        cells = [
            [textwrap.shorten(row["instruction"], 38), str(row["chunks"]), *(short(row[name]) for name in names)]
            for row in rows
        ]
        pages.table([head, *cells])


def _numbers(summary: Mapping[str, Any]) -> list[list[str]]:
    first = next(iter(summary.values()))
    counts = [["Gripper switches missed, spurious", *(switches(one) for one in summary.values())]]
    return [
        [f"{words(name)} {cell['unit']}", *(short(one[name]["mean"]) for one in summary.values())]
        for name, cell in first.items()
        if any(one[name]["n"] for one in summary.values())
    ] + counts


def _compare(pages: _Pages, comparison: Mapping[str, Any]) -> None:
    a, b = comparison["a"], comparison["b"]
    pages.text(f"{b} against {a}", 12, bold=True, keep_in=1.0)
    rows = [["", "difference", "95 % interval", "better"]]
    for row in comparison["metrics"]:
        if row["n"]:
            better = {"A": a, "B": b, "": "undecided"}[row["better"]]
            rows.append([words(row["metric"]), f"{row['difference']:+.3g}", interval(row), better])
    pages.table(rows)
