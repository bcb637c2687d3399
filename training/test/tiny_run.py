"""A program: trains stages of the tiny preset on synthetic frames, in one process or under torchrun.

Usage: tiny_run.py ROOT STAGE... STEPS PARTS
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from instructvla_training.parallel import processes
from instructvla_training.recipes import StageRecipe, debug
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace


def recipe(stage: str, steps: int, parts: int) -> StageRecipe:
    """The debug recipe in float32, so that results of one and of several processes can be compared closely, and at a
    constant rate, so that a run may be made longer."""
    whole = debug(stage)
    optimisation = replace(
        whole.optimisation, steps=steps, save_every=3, autocast="float32", checkpoint_activations=True,
        final_fraction=1.0,
    )  # fmt: skip
    return replace(whole, optimisation=optimisation, parts=parts)


if __name__ == "__main__":
    root, *stages, steps, parts = sys.argv[1:]
    with processes("cpu", longest_wait_s=900.0):
        for name in stages:
            run_stage(recipe(name, int(steps), int(parts)), Workspace(Path(root), "tiny"), "cpu", threads=1)
