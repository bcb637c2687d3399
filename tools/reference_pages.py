"""Fills the generated tables of docs/ from the sources that they describe, so that they stay true.

    python tools/reference_pages.py            rewrite the tables
    python tools/reference_pages.py --check    only name the pages that are out of date (exit status 1)

A table stands between `<!-- begin KIND NAME -->` and `<!-- end -->`; all else on a page is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
RESULTS = REPOSITORY / "checkpoints" / "results"
BLOCK = re.compile(r"<!-- begin (\S+) (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def cell(text: str) -> str:
    """Text that is safe inside a table's cell."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").strip()


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def comment(lines: list[str]) -> str:
    """Comment lines as one sentence or more."""
    return " ".join(line.strip().lstrip("#").strip() for line in lines)


# ---- parameters, from launch/config/*.yaml ---------------------------------------------------------------


def parameters(name: str) -> str:
    """One table for each node of a parameter file; a comment belongs to all keys that follow it at once."""
    lines = (REPOSITORY / "launch" / "config" / name).read_text(encoding="utf-8").splitlines()
    head = lines[: lines.index("")]
    parts, rows, notes, group, fresh = [comment(head)], [], [], [], True

    def close() -> None:
        if rows:
            parts.append(
                table(
                    ("parameter", "default", "meaning"),
                    [("<br>".join(a), "<br>".join(b), c) for a, b, c in rows],
                )
            )
            rows.clear()

    for line in lines[len(head) :]:
        stripped, depth = line.strip(), (len(line) - len(line.lstrip())) // 2
        if not stripped:
            notes, fresh = [], True
        elif stripped.startswith("#"):
            notes = [*notes, stripped] if not fresh else [stripped]
            fresh = False
        elif stripped.endswith(":") and depth == 0:
            close()
            parts.append(f"### `{stripped.rstrip(':').rsplit('/', 1)[-1]}`")
        elif stripped.endswith(":") and depth == 1:
            group, notes, fresh = [], [], True
        elif stripped.endswith(":"):
            group, notes, fresh = [*group[: depth - 2], stripped[:-1]], [], True
        else:
            key, _, value = stripped.partition(":")
            full = ".".join([*group[: depth - 2], key])
            if notes:
                rows.append(([f"`{full}`"], [f"`{value.strip()}`"], cell(comment(notes))))
            elif rows and not fresh:
                rows[-1][0].append(f"`{full}`")
                rows[-1][1].append(f"`{value.strip()}`")
            else:
                raise ValueError(f"{name}: parameter {full} has no comment; write one above it")
            notes, fresh = [], False
    close()
    return "\n\n".join(parts)


# ---- messages, from the definitions ----------------------------------------------------------------------


SECTIONS = {"msg": ("",), "srv": ("request", "response"), "action": ("goal", "result", "feedback")}


def messages(package: str) -> str:
    """Every message, service and action of a package: purpose, fields, constants."""
    folder = next(
        path for path in (REPOSITORY / "src", REPOSITORY / "ros2_ws/src/interfaces") if (path / package).is_dir()
    )
    files = [file for kind in SECTIONS for file in sorted((folder / package / kind).glob(f"*.{kind}"))]
    return "\n\n".join(part for file in files for part in _definition(file))


def _definition(file: Path) -> Iterator[str]:
    kind = file.suffix[1:]
    texts = re.split(r"^---$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    purpose = re.match(r"(?:#.*\n)+", texts[0])
    yield f"### `{kind}/{file.stem}`"
    if purpose:
        yield cell(comment(purpose.group().splitlines()))
        texts[0] = texts[0][purpose.end() :]
    for title, text in zip(SECTIONS[kind], texts, strict=True):
        rows = list(_fields(text))
        if title:
            yield f"**{title}**" if rows else f"**{title}**: empty"
        if rows:
            yield table(("field", "type", "meaning"), rows)


def _fields(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        code, _, note = (part.strip() for part in line.partition("#"))
        if code:
            kind, name = code.split(maxsplit=1)
            yield f"`{name}`" + (" (constant)" if "=" in name else ""), f"`{kind}`", cell(note)
        elif note:
            yield "", "", f"*{cell(note)}*"


# ---- command lines, from the argument parsers ------------------------------------------------------------


def parsers() -> dict[str, Callable[[], argparse.ArgumentParser]]:
    """The project's commands and what makes their parsers."""
    from instructvla_ros.cli.main import parser as run_parser
    from instructvla_training.cli import parser as train_parser

    return {"instructvla": run_parser, "instructvla-train": train_parser}


def options(program: str) -> str:
    """The options of a command and of its sub-commands."""
    with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere):
        return "\n\n".join(_options(program, parsers()[program](), ""))


def _options(name: str, parser: argparse.ArgumentParser, purpose: str) -> Iterator[str]:
    yield f"### `{name}`"
    if purpose:
        yield purpose[0].upper() + purpose[1:] + "."
    rows = [_option(action) for action in parser._actions if action.default is not argparse.SUPPRESS]
    rows = [row for row in rows if row is not None]
    if rows:
        yield table(("argument", "default", "meaning"), rows)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            purposes = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for command, inner in action.choices.items():
                yield from _options(f"{name} {command}", inner, purposes.get(command, ""))


def _option(action: argparse.Action) -> tuple[str, str, str] | None:
    if isinstance(action, argparse._SubParsersAction):
        return None
    name = str(action.metavar or action.dest)
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        name = ", ".join(action.option_strings) + value
    meaning = action.help or ""
    if action.choices is not None:
        listed = "one of " + ", ".join(f"`{choice}`" for choice in action.choices)
        meaning = f"{meaning}; {listed}" if meaning else listed
    return f"`{name}`", _default(action), cell(meaning)


def _default(action: argparse.Action) -> str:
    value = action.default
    if value is None or value is False or value == "" or value is argparse.SUPPRESS:
        return "required" if action.required and action.nargs != "*" else ""
    if isinstance(value, int) and action.dest in ("workers", "threads") and value == (os.cpu_count() or 1):
        return "number of cores"
    if isinstance(value, Path):
        known = {Path.cwd(): "the current folder", REPOSITORY: "the repository"}
        return known.get(value, f"`{value}`")
    if isinstance(value, list):
        return " ".join(f"`{part}`" for part in value)
    return f"`{value}`"


# ---- the graph -------------------------------------------------------------------------------------------


def arguments(graph: str) -> str:
    """Arguments of a graph, as `name:=value`."""
    from instructvla_ros.robots import graphs

    rows = [
        (f"`{a.name}`", f"`{a.default}`" if a.default else "", cell(a.description))
        for a in graphs()[graph].arguments
    ]
    return table(("argument", "default", "meaning"), rows)


def qos(_: str) -> str:
    """The profiles of nodes/qos.py, read without importing ROS."""
    source = (REPOSITORY / "src/instructvla_ros/instructvla_ros/nodes/qos.py").read_text(encoding="utf-8")
    lines, rows = source.splitlines(), []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
            above = node.lineno - 1
            while lines[above - 1].startswith("#"):
                above -= 1
            why = comment(lines[above : node.lineno - 1])
            rows.append(
                (
                    f"`{ast.unparse(node.targets[0])}`",
                    str(ast.literal_eval(call.args[0])),
                    "reliable" if given.get("reliable", True) else "best effort",
                    "transient local" if given.get("latched", False) else "volatile",
                    cell(why),
                )
            )
    return table(("profile", "depth", "reliability", "durability", "why"), rows)


# ---- simulation and model --------------------------------------------------------------------------------


def objects(_: str) -> str:
    """The catalogue of the simulation."""
    from instructvla_sim.catalog import CATALOG

    rows = []
    for spec in CATALOG:
        size = " × ".join(f"{2000 * half:g}" for half in spec.half_m)
        use = f"things are put {spec.support} it" if spec.is_receptacle else "is picked up"
        rows.append((f"`{spec.name}`", spec.color, spec.shape, size, f"{1000 * spec.mass_kg:g}", use))
    return table(("name", "colour", "shape", "size in mm", "mass in g", "use"), rows)


def benchmark(name: str) -> str:
    """What `instructvla bench model` wrote."""
    run = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    about = (
        f"`{run['preset']}`, attention `{run['attention']}`, {run['dtype']}, {run['threads']} threads of "
        f"{run['device']}, {run['date']}."
    )
    rows = []
    for stage, ours in run["stages"].items():
        other = run["baseline"].get(stage)
        compared = ("", "", "")
        if other:
            compared = (f"{other['p50_ms']:.1f}", f"{run['ratios'][stage]:.2f} ×", f"{run['differences'][stage]:.0e}")
        rows.append((f"`{stage}`", f"{ours['p50_ms']:.1f}", *compared))
    return f"{about}\n\n" + table(("stage", "ms", f"{run['against']}, ms", "faster", "largest difference"), rows)


def memory(name: str) -> str:
    """What `instructvla bench memory` wrote."""
    run = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    about = (
        f"`{run['preset']}`, attention `{run['attention']}`, stored as {run['stored']}, loaded as {run['dtype']}, VLM "
        f"weights {run['vlm_weights']}, {run['device']}, {run['date']}."
    )
    rows = [
        (figure["work"], *(f"{figure[f'{kind}_bytes'] / 1e9:.2f}" for kind in ("weights", "peak", "private")))
        for figure in run["figures"]
    ]
    return f"{about}\n\n" + table(("work", "weights, GB", "peak, GB", "of it private, GB"), rows)


def preset(name: str) -> str:
    """The numbers of a preset."""
    from instructvla_model.presets import preset as find

    config = find(name)
    vision, words, film, expert = config.vision, config.language, config.film, config.expert
    stem = f"{vision.stem_layers} strided convolutions" if vision.stem_layers else "one convolution"
    adapters, blocks = config.adapters, film.n_blocks_used or film.depth
    rows = [
        (
            "vision tower of the VLM",
            f"{vision.image_size} px in patches of {vision.patch_size} px ({stem}), {vision.n_layers} layers "
            f"of width {vision.hidden_size}; {vision.tokens_per_image} image tokens",
        ),
        (
            "language model",
            f"{words.n_layers} layers of width {words.hidden_size}, {words.n_heads} heads, "
            f"{words.n_kv_heads} key/value heads, {words.vocab_size} tokens, context {words.max_position}",
        ),
        ("latent actions", f"{config.n_queries} queries of width {words.hidden_size}"),
        (
            "adapters",
            f"{' and '.join(adapters.names)}, rank {adapters.rank}, scale {adapters.scale:g}",
        ),
        (
            "vision tower of the expert",
            f"{film.image_size} px in patches of {film.patch_size} px, {blocks} blocks of width {film.dim} "
            f"with FiLM; {film.tokens_per_image} tokens for each view",
        ),
        (
            "action expert",
            f"{expert.n_layers} layers of width {expert.dim}, {expert.n_heads} heads, attention "
            f"`{expert.attention}`, state of {expert.state_dim} numbers",
        ),
        (
            "action chunk",
            f"{expert.horizon} steps of {config.dt_s:g} s, {expert.action_dim} numbers each; "
            f"{config.flow.n_steps} Euler steps",
        ),
    ]
    return table(("part", f"`{name}`"), rows)


KINDS: dict[str, Callable[[str], str]] = {
    "parameters": parameters,
    "messages": messages,
    "options": options,
    "arguments": arguments,
    "qos": qos,
    "objects": objects,
    "preset": preset,
    "benchmark": benchmark,
    "memory": memory,
}


def pages() -> dict[Path, str]:
    """Every page with generated tables, and what it should hold."""

    def fill(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind not in KINDS:
            raise ValueError(f"table of kind {kind!r}; expected one of {', '.join(KINDS)}")
        return f"<!-- begin {kind} {name} -->\n{KINDS[kind](name)}\n<!-- end -->"

    found = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
    return {page: BLOCK.sub(fill, text) for page, text in found.items() if BLOCK.search(text)}


def main(given: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Fill the generated tables of docs/.")
    parser.add_argument("--check", action="store_true", help="only name the pages that are out of date")
    check = parser.parse_args(given).check
    stale = [(page, text) for page, text in pages().items() if page.read_text(encoding="utf-8") != text]
    for page, text in stale:
        print(f"{page.relative_to(REPOSITORY)} {'is out of date' if check else 'rewritten'}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
