"""Stages 1 and 2 on recorded datasets: what the recipes and fine-tuning share."""

from __future__ import annotations

from collections.abc import Sequence

from instructvla_model.image import recipe as image_recipe
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import PolicyTokenizer
from instructvla_training.data.episode_frames import EpisodeFrames, Part
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.survey import STATISTICS_FILE, write_published
from instructvla_training.recipes import StageRecipe
from instructvla_training.run import Prepared
from instructvla_training.workspace import builder_for

from .episode_text import EpisodePrompter
from .episodes import EpisodeStage


def recorded_stage(
    recipe: StageRecipe, policy: InstructVLA, tokenizer: PolicyTokenizer, parts: Sequence[Part],
    conversations: LlavaDataset | None, moves: str | None = None,
) -> Prepared:  # fmt: skip
    """``policy`` on the datasets ``parts``. Its checkpoints say what they were trained on, with all statistics."""
    config, surveys = policy.config, [part.survey for part in parts]
    data = EpisodeFrames(
        parts, conversations, config.views, image_recipe(config.expert_recipe, config.film.image_size),
        image_recipe(config.vlm_recipe, config.vision.image_size),
    )  # fmt: skip
    stage = EpisodeStage(policy, EpisodePrompter(builder_for(policy, tokenizer)), data, recipe, moves)
    notes = {"datasets": {made.name: made.fingerprint for made in surveys}, "shares": data.shares}
    return Prepared(
        stage, tokenizer, surveys[0].statistics, notes,
        add_files=lambda folder: write_published(folder / STATISTICS_FILE, surveys),
    )  # fmt: skip
