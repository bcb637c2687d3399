"""A stage of the size of a recorded one, on random numbers: for measuring, where there are no data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from instructvla_model.batch import IGNORE, ActionBatch, LanguageBatch
from instructvla_model.config import PolicyConfig
from instructvla_model.policy import InstructVLA

from .recipes import StageRecipe
from .samples import TrainedStage
from .stages.episodes import EpisodeBatch, EpisodeStage
from .trainer import Drawn

IMAGE_TOKEN = 0
BEFORE_IMAGE, AFTER_IMAGE = 8, 40  # tokens of template and instruction
ANSWER = 40  # tokens of a reasoning, or of what is asked before acting; stage 2 alone has them
END = 1


class MadeUpStage(EpisodeStage):
    """The loss and the trainable set of recorded stages on one batch of random numbers, which is always the same.

    Every row is as long as the longest of a real batch: all of them are padded to it anyway.
    """

    def __init__(self, policy: InstructVLA, config: StageRecipe) -> None:
        TrainedStage.__init__(self)  # all else of a recorded stage is about its records
        self.policy, self.recipe, self.moves = policy, config, config.stage
        self._made: dict[int, EpisodeBatch] = {}

    def make_part(self, rng: np.random.Generator, part: int) -> EpisodeBatch:
        """On the CPU, as recorded ones are made; the same tensors each time."""
        talks = self.recipe.talks(part)
        if talks not in self._made:
            self._made[talks] = self.batch(self.recipe.groups, talks)
        return self._made[talks]

    def batch(self, samples: int, talks: int) -> EpisodeBatch:
        """``samples`` rows with latent queries, a frame to act on for each, and ``talks`` rows of conversations."""
        config, generator = self.policy.config, torch.Generator().manual_seed(0)
        rows = samples + talks
        language = self._language(samples, talks, generator)
        size, film = config.vision.image_size, config.film.image_size
        steps, state = config.expert.horizon, config.expert.state_dim
        return EpisodeBatch(
            language=replace(language, pixels_ICHW=torch.randn((rows, 3, size, size), generator=generator)),
            action=ActionBatch(
                pixels_BVCHW=torch.randn((samples, len(config.views), 3, film, film), generator=generator),
                actions_BFA=2 * torch.rand((samples, steps, config.expert.action_dim), generator=generator) - 1,
                state_BS=torch.randn((samples, state), generator=generator) if state else None,
                context_index_B=torch.arange(samples),
                inside_BF=torch.ones(samples, steps, dtype=torch.bool),
            ),
            drawn=Drawn(tuple(f"made up {row}" for row in range(rows)), {}),
        )

    def _language(self, samples: int, talks: int, generator: torch.Generator) -> LanguageBatch:
        """Words, image, words, in stage 2 an answer, then queries and the end; conversations have words for queries."""
        config = self.policy.config
        answer = ANSWER if self.recipe.stage == "generalist" else 0
        told = answer + config.n_queries + END
        image = config.vision.tokens_per_image
        length = BEFORE_IMAGE + image + AFTER_IMAGE + told
        ids_BS = _words((samples + talks, length), config, generator)
        ids_BS[:, BEFORE_IMAGE : BEFORE_IMAGE + image] = IMAGE_TOKEN
        first = config.language.vocab_size
        ids_BS[:samples, -END - config.n_queries : -END] = torch.arange(first, first + config.n_queries)
        labels_BS = ids_BS.clone()
        labels_BS[:, : length - told] = IGNORE
        return LanguageBatch(ids_BS, torch.ones_like(ids_BS), labels_BS)


def _words(shape: tuple[int, int], config: PolicyConfig, generator: torch.Generator) -> Tensor:
    return torch.randint(IMAGE_TOKEN + 1, config.language.vocab_size, shape, generator=generator)
