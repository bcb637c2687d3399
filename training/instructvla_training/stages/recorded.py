"""Stages 1 and 2 on recorded datasets: what the recipes and fine-tuning share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from instructvla_model.image import recipe as image_recipe
from instructvla_model.manifest import Manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import PolicyTokenizer
from instructvla_training.data.episode_frames import EpisodeFrames, Part
from instructvla_training.data.formats.annotated import AnnotatedDataset
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.survey import STATISTICS_FILE, file_mark, write_published
from instructvla_training.parallel import Processes
from instructvla_training.recipes import StageRecipe
from instructvla_training.run import Prepared
from instructvla_training.workspace import builder_for

from .episode_text import EpisodePrompter
from .episodes import EpisodeStage
from .identity import recipe_identity


def recorded_stage(
    recipe: StageRecipe, policy: InstructVLA, tokenizer: PolicyTokenizer, parts: Sequence[Part],
    conversations: LlavaDataset | None, base: Manifest, group: Processes, moves: str | None = None, robot: str = "",
) -> Prepared:  # fmt: skip
    """``policy``, which was loaded from ``base``, on the datasets ``parts``.

    Its checkpoints say what they were trained on, with all statistics, and run with the first part's; its state says
    what a run must be of to go on. Raises DataError where a text becomes no prompt: here, and not at whatever step
    would draw it.
    """
    config, surveys = policy.config, [part.survey for part in parts]
    data = EpisodeFrames(
        parts, conversations, config.views, image_recipe(config.expert_recipe, config.film.image_size),
        image_recipe(config.vlm_recipe, config.vision.image_size), side_by_side=config.vlm_input == "side_by_side",
    )  # fmt: skip
    prompter = EpisodePrompter(builder_for(policy, tokenizer))
    stage = EpisodeStage(policy, prompter, data, recipe, moves)
    for episode in stage.with_words()[group.rank :: group.count]:
        prompter.check(data.words(episode))
    layouts = sorted({part.dataset.layout.name for part in parts})
    notes = {
        "datasets": {made.name: made.fingerprint for made in surveys}, "shares": data.shares, "state_layouts": layouts,
    }  # fmt: skip
    return Prepared(
        stage, tokenizer, surveys[0].statistics, notes | ({"robot": robot} if robot else {}),
        add_files=lambda folder: write_published(folder / STATISTICS_FILE, surveys),
        of=_identity(recipe, parts, conversations, base),
    )  # fmt: skip


def _identity(
    recipe: StageRecipe, parts: Sequence[Part], conversations: LlavaDataset | None, base: Manifest
) -> Mapping[str, Any]:
    """What decides what a run computes, besides the step's number."""
    surveys = [part.survey for part in parts]
    statistics = json.dumps([made.statistics.to_dict() for made in surveys])
    words = [part.dataset.annotations() if isinstance(part.dataset, AnnotatedDataset) else {} for part in parts]
    decides = recipe_identity(recipe)
    del decides["data"]  # what the simulation is asked for
    return {
        **decides, "loss weights": decides["weights"],
        "base": base.checkpoint_id,
        "datasets": {made.name: made.fingerprint for made in surveys},
        "weights": {made.name: part.weight for made, part in zip(surveys, parts, strict=True)},
        "statistics": hashlib.sha256(statistics.encode()).hexdigest()[:16],
        "annotations": hashlib.sha256(repr([sorted(found.items()) for found in words]).encode()).hexdigest()[:16],
        "conversations": file_mark(conversations.path) if conversations is not None else "",
    }  # fmt: skip
