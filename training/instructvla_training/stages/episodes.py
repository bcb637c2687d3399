"""Stages 1 and 2 on recorded datasets: their words, views and statistics, the same latents and flow loss.

Recorded data does not say where things are, so there is no pointing here; conversations take the place of stills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from instructvla_model.batch import ActionBatch, LanguageBatch
from instructvla_model.image import recipe
from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.prompts import Encoded
from instructvla_model.trainable import set_trainable
from instructvla_model.types import Observation
from instructvla_training.data.augment import Augmentation, Draws, augment
from instructvla_training.data.chunks import chunk_actions, later_frames
from instructvla_training.data.episode_frames import MULTIMODAL, EpisodeFrames
from instructvla_training.recipes import StageRecipe
from instructvla_training.samples import TrainedStage
from instructvla_training.trainer import Drawn

from .action_loss import flow_loss
from .draw import names_of
from .episode_text import EPISODE_KINDS, EpisodePrompter
from .text import choose, motion_share
from .vision_text import encode_all, hidden_states, language_batch


@dataclass(frozen=True)
class EpisodeBatch:
    """``language``: a row with latent queries per group, then the conversations."""

    language: LanguageBatch
    action: ActionBatch
    drawn: Drawn


class EpisodeStage(TrainedStage):
    """``policy`` on ``data``; each dataset is normalised by its own statistics.

    ``moves``: the stage whose trainable set is used, by default the recipe's. Image tokens of the frozen tower are
    computed once by `encode_frames`, or, with augmentation, for each batch.
    """

    def __init__(
        self, policy: InstructVLA, prompter: EpisodePrompter, data: EpisodeFrames, config: StageRecipe,
        moves: str | None = None, augmentation: Augmentation | None = None,
    ) -> None:  # fmt: skip
        """Raises ValueError where the recipe asks for conversations and the data has none."""
        super().__init__()
        if config.multimodal_ratio and data.conversations is None:
            raise ValueError(f"found a multimodal ratio of {config.multimodal_ratio}, expected conversations for it")
        self.policy, self.prompter, self.data, self.recipe = policy, prompter, data, config
        self.frames, self.moves, self.augmentation = data.frames, moves or config.stage, augmentation
        self.image_recipe = recipe(policy.config.expert_recipe, policy.config.film.image_size)
        self.vlm_recipe = recipe(policy.config.vlm_recipe, policy.config.vision.image_size)
        weight = data.frames.weight.astype(np.float64)
        self._cumulative = np.cumsum(weight / weight.sum())
        sources = np.array([record.source == MULTIMODAL for record in data.frames.episodes])
        self._conversations = np.flatnonzero(sources[data.frames.episode])
        self._image_tokens: Tensor | None = None

    def trainable(self) -> None:
        """The trainable set of `moves`."""
        self.requires_grad_(False)
        set_trainable(self.policy, self.moves)

    @torch.no_grad()
    def encode_frames(self, device: torch.device) -> None:
        """Runs the frozen vision tower over every frame and keeps the image tokens in bfloat16."""
        self.policy.eval()
        self._image_tokens = encode_all(self.policy, self.data.vlm_view, self.vlm_recipe, device)

    # ---- batch ----------------------------------------------------------------------------------------

    def make_batch(self, rng: np.random.Generator) -> EpisodeBatch:
        """The first part of a step; a function of the generator alone."""
        return self.make_part(rng, 0)

    def make_part(self, rng: np.random.Generator, part: int) -> EpisodeBatch:
        """A function of the generator and of the part's number, by which the step's conversations are dealt out."""
        config, frames = self.recipe, self.frames
        acting = np.searchsorted(self._cumulative, rng.random(config.groups)).clip(max=len(frames) - 1)
        counts = {f"data/{part.survey.name}": 0 for part in self.data.parts}
        counts |= {f"prompt/{kind}": 0 for kind in EPISODE_KINDS}
        samples: list[Encoded] = []
        for i in acting:
            kind, encoded = self._action_sample(int(i), rng)
            samples.append(encoded)
            counts[f"prompt/{kind}"] += 1
            counts[f"data/{frames.episodes[frames.episode[i]].source}"] += 1
        talks = self._talks(config.talks(part), rng)
        image_index = np.arange(len(acting) + len(talks))
        for row, i in enumerate(talks, len(acting)):
            encoded, has_image = self._plain_sample(int(i))
            samples.append(encoded)
            if not has_image:
                image_index[row] = -1
        counts |= {"row/action": len(acting), "row/multimodal": len(talks)}
        language = language_batch(samples, self.prompter.builder.tokenizer.pad_id, image_index)
        delay = rng.integers(0, config.max_latent_age + 1, size=len(acting) * config.expert_frames)
        later = later_frames(frames, np.repeat(acting, config.expert_frames), delay)
        shown = np.concatenate([acting, talks])
        encoded_already = self._image_tokens is not None
        draws = [] if encoded_already else [Draws.of(len(shown), rng) for _ in self.data.views]
        return EpisodeBatch(
            language=self._with_images(language, shown, draws),
            action=self._actions(later, np.repeat(np.arange(len(acting)), config.expert_frames), rng, shown, draws),
            drawn=Drawn(names_of(frames, shown), counts),
        )

    def _talks(self, count: int, rng: np.random.Generator) -> np.ndarray:
        if not count:
            return np.empty(0, int)
        return self._conversations[rng.integers(len(self._conversations), size=count)]

    def _action_sample(self, i: int, rng: np.random.Generator) -> tuple[str, Encoded]:
        words = self.data.words(int(self.frames.episode[i]))
        kind = choose(self.recipe.prompts, rng)
        return self.prompter.action(kind, words, lambda: self.data.motion(i), rng, motion_share(self.recipe.prompts))

    def _plain_sample(self, i: int) -> tuple[Encoded, bool]:
        assert self.data.conversations is not None
        talk = self.data.conversations[self.frames.episodes[self.frames.episode[i]].seed]
        return self.prompter.conversation(talk), talk.image is not None

    def _with_images(self, language: LanguageBatch, shown: np.ndarray, draws: Sequence[Draws]) -> LanguageBatch:
        """``draws``: of each view, a row for each of ``shown``; none where the tower's tokens are there already."""
        if self._image_tokens is not None:
            return replace(language, image_tokens_ITH=self._image_tokens[torch.from_numpy(shown)])
        images = self._here(self.data.vlm_view[shown])
        of_talks = np.isin(shown, self._conversations)
        for rows, views in ((~of_talks, self.data.halves), (of_talks, 1)):
            if not rows.any():
                continue
            where = torch.from_numpy(np.flatnonzero(rows))
            sides = images[where].chunk(views, dim=2)
            own = [Draws(each.uniform_B6[rows]) for each in draws[:views]]
            changed = [augment(side, d, self.augmentation) for side, d in zip(sides, own, strict=True)]
            images[where] = torch.cat(changed, dim=2)
        return replace(language, pixels_ICHW=self.vlm_recipe.normalize(images))

    def _here(self, images: np.ndarray) -> Tensor:
        """Bytes, on the device of the policy: it changes them faster than the thread that makes batches."""
        return torch.from_numpy(images).to(self.policy.vlm.query_embed.device)

    def _actions(
        self, later: np.ndarray, context: np.ndarray, rng: np.random.Generator, shown: np.ndarray | None = None,
        draws: Sequence[Draws] = (),
    ) -> ActionBatch:  # fmt: skip
        """A frame that the VLM sees too, as one of ``shown`` with the ``draws``, is changed as it is there (§5.6)."""
        chunk, inside = chunk_actions(self.frames, later, self.policy.config.expert.horizon)
        state = np.asarray(self.frames.state[later])
        actions, states = np.empty(chunk.shape, np.float32), np.empty(state.shape, np.float32)
        parts = self.data.part[self.frames.episode[later]]
        for number in np.unique(parts):
            rows, statistics = parts == number, self.data.parts[number].survey.statistics
            actions[rows] = statistics.action.normalize(chunk[rows])
            if statistics.state is not None:
                states[rows] = statistics.state.normalize(state[rows])
        views = []
        for number, column in enumerate(self.data.views):
            own = Draws.of(len(later), rng)
            if shown is not None and draws:
                same = later == shown[context]
                own.uniform_B6[same] = draws[number].uniform_B6[context[same]]
            images = augment(self._here(column[later]), own, self.augmentation)
            views.append(self.image_recipe.normalize(images))
        return ActionBatch(
            pixels_BVCHW=torch.stack(views, dim=1),
            actions_BFA=torch.from_numpy(actions),
            state_BS=torch.from_numpy(states) if self.policy.config.expert.state_dim else None,
            context_index_B=torch.from_numpy(context),
            inside_BF=torch.from_numpy(inside),
        )

    # ---- what a person looks at ------------------------------------------------------------------------

    @property
    def held_out(self) -> np.ndarray:
        """Numbers of the episodes with words that are never drawn."""
        weight = self.frames.weight[self.frames.first]
        spoken = self._spoken
        return np.flatnonzero(spoken & (weight[: len(spoken)] == 0))

    @property
    def _spoken(self) -> np.ndarray:
        """Whether each own episode has words; conversations follow them."""
        return np.concatenate([part.survey.spoken for part in self.data.parts])

    def with_words(self) -> list[int]:
        return np.flatnonzero(self._spoken).tolist()

    def asked(self, episode: int, rng: np.random.Generator) -> tuple[str, str, str]:
        """Mode, question and recorded answer about an episode's first frame."""
        words = self.data.words(episode)
        pairs = words.annotation.cr if words.annotation is not None else ()
        if pairs and self.recipe.stage == "generalist":
            return "think", pairs[0].question, pairs[0].answer
        return "motion", self.instruction(episode), self.data.motion(int(self.frames.first[episode]))

    def statistics_of(self, episode: int) -> Statistics:
        return self.data.parts[int(self.data.part[episode])].survey.statistics

    def instruction(self, episode: int) -> str:
        return self.data.words(episode).instruction

    def observation(self, frame: int) -> Observation:
        """What the runtime would be given at a recorded step: the cameras' own pictures."""
        episode, step = int(self.frames.episode[frame]), int(self.frames.step[frame])
        seen = self.data.episode(episode)
        images = {view: seen.view(view)[step] for view in self.policy.config.views}
        return Observation(images, np.asarray(self.frames.state[frame], np.float32), 0.0)

    # ---- loss -----------------------------------------------------------------------------------------

    def forward(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Language and flow loss, weighted as the recipe says; "loss" is their sum."""
        policy, weights = self.policy, self.recipe.weights
        hidden_BSH = hidden_states(policy, batch.language, self.rows_at_once)
        language = policy.vlm.language_loss(hidden_BSH, batch.language.labels_BS)
        latents_BNH = policy.encode_context(hidden_BSH, batch.language.input_ids_BS, batch.action)
        prefix = policy.prefix(batch.action, latents_BNH)
        motion = flow_loss(policy, prefix, batch.action, self.recipe)
        return {"loss": weights.language * language + weights.flow * motion, "language": language, "flow": motion}
