"""instructvla bench memory: what loading and importing a policy of a preset's size take, with random weights."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructvla_model.benchmark.memory import Memory
    from instructvla_model.config import PolicyConfig

_DTYPES = ("float32", "bfloat16", "float16")


def add_parser(subjects: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `memory` to `bench`."""
    parser = subjects.add_parser("memory", help="measure the memory that loading and importing a policy take")
    parser.add_argument("--preset", default="nano", help="configuration to build")
    parser.add_argument("--regime", choices=("paper", "reference"), default="paper", help="whose values")
    parser.add_argument("--stored", choices=_DTYPES, default="bfloat16", help="number type of the files")
    parser.add_argument("--dtype", choices=_DTYPES, default="bfloat16", help="number type to load in")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda[:index]")
    parser.add_argument(
        "--vlm-weights", choices=("full", "int8"), default="full", help="how the VLM's matrices are kept"
    )
    parser.add_argument(
        "--import", action="store_true", dest="imports", help="also bring a released .pt of that size in"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the files go for a while; default: the system's"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the files, measure, print, and remove the files."""
    from instructvla_model.benchmark import memory
    from instructvla_model.presets import in_regime, preset
    from instructvla_model.runtime import choose_device

    choose_device(arguments.device)  # a device that is not there is told before anything is written
    config = in_regime(preset(arguments.preset), arguments.regime)
    try:
        figures = _measure(arguments, config)
    except RuntimeError as error:  # of the measured process
        raise ValueError(str(error)) from error
    result = memory.Result.of(config, arguments.stored, arguments.dtype, arguments.vlm_weights, figures)
    for line in result.lines():
        print(line)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(arguments: argparse.Namespace, config: PolicyConfig) -> list[Memory]:
    from instructvla_model.benchmark import memory

    with tempfile.TemporaryDirectory(prefix="instructvla-memory-", dir=arguments.folder) as name:
        folder = Path(name)
        memory.write_random(folder / "random", config, "generalist", arguments.stored)
        figures = [
            memory.measure(
                "load",
                folder=str(folder / "random"),
                device=arguments.device,
                dtype=arguments.dtype,
                vlm_weights=arguments.vlm_weights,
            )
        ]
        if arguments.imports:
            source, backbone = memory.write_released(folder / "random", folder / "released")
            figures.append(
                memory.measure(
                    "import",
                    source=str(source),
                    backbone=str(backbone),
                    out=str(folder / "imported"),
                    preset=arguments.preset,
                    regime=arguments.regime,
                    dtype=arguments.stored,
                )
            )
    return figures
