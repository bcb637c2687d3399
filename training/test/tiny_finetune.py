"""A program: fine-tunes a checkpoint on a dataset, two parts a step, in one process or under torchrun.

Usage: tiny_finetune.py CHECKPOINT DATASET RUN_FOLDER NUMBER_TYPE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from instructvla_training.data.formats.opening import Reading
from instructvla_training.finetune import Request, prepare
from instructvla_training.parallel import processes
from instructvla_training.run import place, train


def run(base: Path, dataset: Path, run_dir: Path, number_type: str) -> Path:
    """Weights travel in ``number_type`` and matrix products are computed in it, where the machine gains by that."""
    request = Request(base=base, datasets=[(dataset, 1.0)], reading=Reading(), run_dir=run_dir, parts=2)
    with processes("cpu", longest_wait_s=900.0) as group:
        prepared, recipe = prepare(request, group)
        optimisation = replace(recipe.optimisation, steps=4, log_every=1, autocast=number_type, gather=number_type)
        recipe = replace(recipe, optimisation=optimisation)
        place(prepared, recipe, group)
        return train(prepared, recipe, run_dir, group)


if __name__ == "__main__":
    checkpoint, dataset, run_dir, number_type = sys.argv[1:]
    run(Path(checkpoint), Path(dataset), Path(run_dir), number_type)
