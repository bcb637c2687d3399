"""What a run must be of to be gone on with: all that decides what its steps compute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instructvla_training.recipes import StageRecipe

HOW_LONG_AND_WHERE = ("steps", "log_every", "save_every", "checkpoint_activations", "gather")
"""Of an optimisation: what may be another when a run goes on."""
HOW_DIVIDED = ("optimisation", "groups", "still_groups", "parts")
"""Of a recipe, besides; the groups are those of one part here."""


def recipe_identity(recipe: StageRecipe) -> dict[str, Any]:
    """Of a recipe, or of one part of it. The number of steps counts where the rate falls towards the last of them."""
    optimisation = recipe.optimisation
    found = {name: value for name, value in asdict(recipe).items() if name not in HOW_DIVIDED}
    found |= {name: value for name, value in asdict(optimisation).items() if name not in HOW_LONG_AND_WHERE}
    found |= {"groups": recipe.groups * recipe.parts, "still_groups": recipe.still_groups * recipe.parts}
    return found | ({"steps": optimisation.steps} if optimisation.final_fraction < 1.0 else {})


def recordings_identity(folders: Iterable[Path]) -> dict[str, str]:
    """Name of each folder of shards -> hash of what its episodes are."""
    return {folder.name: _episodes(folder) for folder in folders if folder.exists()}


def _episodes(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.glob("shard-*/episodes.jsonl")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
