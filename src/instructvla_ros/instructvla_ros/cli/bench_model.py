"""instructvla bench model: how long each stage of a policy takes, with random weights of a preset's sizes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

BASELINES = ("legacy-schedule", "no-cache")
STAGES = "vision, prefill, decode (a token), latents, latents-after-text, dino-film, flow-loop, chunk"


def add_parser(subjects: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `model` to `bench`."""
    parser = subjects.add_parser("model", help="measure the stages of a policy with random weights; needs no graph")
    parser.add_argument("--preset", default="nano", help="configuration to build")
    parser.add_argument(
        "--regime",
        choices=("paper", "reference"),
        help="the paper's values or the released code's; default: the preset's",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:index]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--vlm-weights", choices=("full", "int8"), default="full", help="how the VLM's matrices are kept"
    )
    parser.add_argument(
        "--compile", action="store_true", help="hand the vision towers to torch.compile; its minutes are not measured"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: what PyTorch chooses")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="measurements of each stage")
    parser.add_argument("--warm-up", type=int, default=3, metavar="N", help="rounds before the first measurement")
    parser.add_argument("--stages", metavar="A,B", help=f"which to measure, of {STAGES}; default: all")
    parser.add_argument(
        "--against", choices=BASELINES, help="measure in turns with the released code's schedule, or without caches"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    import torch

    from instructvla_model.benchmark.run import STAGES, Settings
    from instructvla_model.benchmark.run import run as measure
    from instructvla_model.presets import in_regime, preset
    from instructvla_model.runtime import choose_device, choose_dtype

    if arguments.rounds < 1 or arguments.warm_up < 0 or (arguments.threads is not None and arguments.threads < 1):
        raise ValueError("--rounds and --threads must be at least 1, --warm-up at least 0")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config = preset(arguments.preset)
    if arguments.regime is not None:
        config = in_regime(config, arguments.regime)
    device = choose_device(arguments.device)
    result = measure(
        Settings(
            config=config,
            device=device,
            dtype=choose_dtype(arguments.dtype, device),
            vlm_weights=arguments.vlm_weights,
            compiled=arguments.compile,
            rounds=arguments.rounds,
            warm_up=arguments.warm_up,
            against=arguments.against,
            only=tuple(name.strip() for name in arguments.stages.split(",")) if arguments.stages else STAGES,
        )
    )
    for line in result.lines():
        print(line)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 0
