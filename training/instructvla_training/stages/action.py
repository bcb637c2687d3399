"""Stages 1 and 2: instructions about recorded frames, latents, and the flow loss of the expert on them.

One VLM pass over an image and its text serves several later frames of the same episode: so the expert learns
to act on latents that are some steps old, as it must in the running graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from instructvla_model import flow
from instructvla_model.batch import ActionBatch, LanguageBatch
from instructvla_model.image import recipe
from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.prompts import Encoded
from instructvla_model.trainable import set_trainable
from instructvla_sim.catalog import CATALOG
from instructvla_sim.robots import robot_spec
from instructvla_training.data.chunks import chunk_actions, later_frames
from instructvla_training.data.observe import scene_view
from instructvla_training.data.shards import Frames
from instructvla_training.language import SceneView
from instructvla_training.pointing import (
    LocationHead,
    PointingHead,
    Whereabouts,
    hit_rate,
    mass_loss,
    patches_of,
    pool_grid,
)
from instructvla_training.recipes import StageRecipe

from .base import jitter
from .text import Prompter, choose, role_index
from .vision_text import RoleTargets, language_batch, vlm_pointing

LOOKING_HEADS = (0, 1)
"""Attention heads whose latent rows learn to look at the target and at the place, in one middle layer."""
ENCODE_AT_ONCE = 256
SYMMETRY = torch.tensor([2 * np.pi / spec.yaw_period_rad if spec.yaw_period_rad else 0.0 for spec in CATALOG])
"""How often each object of the catalogue looks the same in one turn; 0 for round ones."""


@dataclass(frozen=True)
class ActionStageBatch:
    """``language``: one row per acting group, then per still group, all with latent queries; then plain
    question rows. ``query_rows`` counts those with queries."""

    language: LanguageBatch
    query_rows: int
    action: ActionBatch
    vlm_targets: RoleTargets
    expert_targets: RoleTargets
    where: Whereabouts  # of the expert's frames


class ActionStage(nn.Module):
    """Stage "expert" or "generalist" of ``policy``, whose vision tower is frozen and encoded once."""

    def __init__(
        self,
        policy: InstructVLA,
        prompter: Prompter,
        frames: Frames,
        config: StageRecipe,
        statistics: Statistics,
    ):
        super().__init__()
        self.policy, self.prompter, self.frames, self.recipe = policy, prompter, frames, config
        self.statistics = statistics
        self.vlm_pointing = PointingHead(policy.config.language.hidden_size)
        self.location = LocationHead(policy.config.expert.dim)
        self._looking_layer = (policy.config.expert.n_layers - 1) // 2
        self.image_recipe = recipe(policy.config.expert_recipe, policy.config.film.image_size)
        self._base_m = np.float32(robot_spec(config.data.robot).base_m)  # states are told from it, objects are not
        still = np.array([e.source == "still" for e in frames.episodes])[frames.episode]
        self._acting = _Draw(np.where(still, 0.0, frames.weight))
        self._stills = _Draw(still.astype(np.float64)) if config.still_groups else None
        self._image_tokens: Tensor | None = None

    def trainable(self) -> None:
        """The paper's trainable set of the stage, and the auxiliary heads."""
        set_trainable(self.policy, self.recipe.stage)
        self.vlm_pointing.requires_grad_(True)
        self.location.requires_grad_(self.recipe.stage == "expert")  # it reads the expert, frozen in stage 2

    @torch.no_grad()
    def encode_frames(self, device: torch.device, report: Callable[[int, int], None]) -> None:
        """Runs the frozen vision tower over every frame and keeps the image tokens in bfloat16."""
        self.policy.eval()
        vlm_recipe = recipe(self.policy.config.vlm_recipe, self.policy.config.vision.image_size)
        kept = []
        for start in range(0, len(self.frames), ENCODE_AT_ONCE):
            pixels = vlm_recipe.normalize(torch.from_numpy(self.frames.image[start : start + ENCODE_AT_ONCE]))
            with torch.autocast(device.type, dtype=torch.bfloat16):
                kept.append(self.policy.vlm.encode_images(pixels.to(device)).to(torch.bfloat16))
            report(start, len(self.frames))
        self._image_tokens = torch.cat(kept)

    # ---- batch ----------------------------------------------------------------------------------------

    def make_batch(self, rng: np.random.Generator) -> ActionStageBatch:
        config = self.recipe
        acting = self._acting(config.groups, rng)
        index = np.concatenate([acting, self._stills(config.still_groups, rng)]) if self._stills else acting
        still_prompts = config.still_prompts or config.prompts
        samples = [self._action_sample(int(i), choose(config.prompts, rng), rng) for i in acting]
        samples += [self._action_sample(int(i), choose(still_prompts, rng), rng) for i in index[len(acting) :]]
        shown = list(index)
        image_index = list(range(len(index)))
        source = self._stills or self._acting
        for i in source(round(len(index) * config.multimodal_ratio), rng):
            encoded, has_image = self._plain_sample(int(i), rng)
            samples.append(encoded)
            image_index.append(len(shown) if has_image else -1)
            shown.append(i)
        language = language_batch(samples, self.prompter.builder.tokenizer.pad_id, np.array(image_index))
        later = self._expert_frames(acting, rng)
        context = np.repeat(np.arange(config.groups), config.expert_frames)
        assert self._image_tokens is not None, "encode_frames first"
        language = LanguageBatch(
            language.input_ids_BS, language.attention_mask_BS, language.labels_BS,
            image_tokens_ITH=self._image_tokens[torch.tensor(shown)], image_index_B=language.image_index_B,
        )  # fmt: skip
        seen = self._targets(later)
        return ActionStageBatch(
            language=language,
            query_rows=len(index),
            action=self._actions(later, context, rng),
            vlm_targets=self._targets(index),
            expert_targets=seen,
            where=self._whereabouts(later, seen.roles_BR.clamp(min=0).numpy()),
        )

    def _expert_frames(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        delay = rng.integers(0, self.recipe.max_latent_age + 1, size=(len(index), self.recipe.expert_frames))
        return later_frames(self.frames, np.repeat(index, self.recipe.expert_frames), delay.ravel())

    def _actions(self, later: np.ndarray, context: np.ndarray, rng: np.random.Generator) -> ActionBatch:
        chunk = chunk_actions(self.frames, later, self.policy.config.expert.horizon)
        state = self.statistics.state
        pixels = self.image_recipe.normalize(torch.from_numpy(jitter(self.frames.image[later], rng)))
        return ActionBatch(
            pixels_BVCHW=pixels[:, None],
            actions_BFA=torch.from_numpy(self.statistics.action.normalize(chunk)),
            state_BS=None if state is None else torch.from_numpy(state.normalize(self.frames.state[later])),
            context_index_B=torch.from_numpy(context),
        )

    def _targets(self, index: np.ndarray) -> RoleTargets:
        episodes = [self.frames.episodes[e] for e in self.frames.episode[index]]
        roles = [(role_index(e.target), role_index(e.place)) for e in episodes]
        return RoleTargets(torch.from_numpy(self.frames.grid[index]), torch.tensor(roles))

    def _whereabouts(self, later: np.ndarray, roles: np.ndarray) -> Whereabouts:
        objects, state = self.frames.objects, self.frames.state
        return Whereabouts(
            xyz_BR3=torch.from_numpy(objects[later[:, None], roles, :3]),
            yaw_B=torch.from_numpy(objects[later, roles[:, 0], 4]),
            symmetry_B=SYMMETRY[torch.from_numpy(roles[:, 0])],
            ee_xyz_B3=torch.from_numpy(state[later, :3] + self._base_m),
            ee_yaw_B=torch.from_numpy(state[later, 5]),
        )

    def view(self, i: int) -> SceneView:
        """The scene of frame ``i`` as the language generator sees it."""
        episode = self.frames.episodes[self.frames.episode[i]]
        return scene_view(self.frames.objects[i], episode.family, episode.target, episode.place)

    def _action_sample(self, i: int, kind: str, rng: np.random.Generator) -> Encoded:
        episode = self.frames.episodes[self.frames.episode[i]]
        motion = episode.motion[self.frames.step[i]] if episode.motion else ""
        # instructions are given at the start of an episode: words such as "leftmost" are true of that frame
        first = int(self.frames.first[self.frames.episode[i]])
        return self.prompter.action(kind, self.view(first), motion, rng)

    def _plain_sample(self, i: int, rng: np.random.Generator) -> tuple[Encoded, bool]:
        language, draw = self.prompter.language, rng.random()
        if draw < 0.25:
            return self.prompter.question(language.knowledge(rng), image=False), False
        item = language.caption(self.view(i), rng) if draw < 0.45 else language.qa(self.view(i), rng)
        return self.prompter.question(item or language.caption(self.view(i), rng)), True

    # ---- loss -----------------------------------------------------------------------------------------

    def losses(self, batch: ActionStageBatch) -> dict[str, Tensor]:
        policy, weights, rows = self.policy, self.recipe.weights, batch.query_rows
        ids_BS = batch.language.input_ids_BS
        hidden_BSH = policy.vlm.hidden_of(batch.language)
        language = policy.vlm.language_loss(hidden_BSH, batch.language.labels_BS)
        pointing, hit_vlm = vlm_pointing(
            policy, self.vlm_pointing, hidden_BSH[:rows], ids_BS[:rows], batch.vlm_targets
        )
        latents_BNH = policy.encode_context(hidden_BSH, ids_BS, batch.action)
        prefix = policy.prefix(batch.action, latents_BNH, (self._looking_layer, LOOKING_HEADS))
        motion = flow.loss(policy.expert, prefix, batch.action.actions_BFA, n_draws=self.recipe.draws)
        looking, seen, hits = self._expert_pointing(prefix.probe_logits_BHNP, prefix.n_vision, batch.expert_targets)
        vision_BVD, rows_BND = prefix.tokens_BPD[:, : prefix.n_vision], prefix.probe_states_BND
        assert rows_BND is not None, "the probed layer must not be the expert's last"
        location, error_m = self.location.losses(vision_BVD, rows_BND, hits, batch.where)
        total = (
            weights.language * language
            + weights.flow * motion
            + weights.vlm_pointing * pointing
            + weights.expert_pointing * looking
            + weights.location * location
        )
        return {
            "loss": total,
            "language": language,
            "flow": motion,
            "vlm_pointing": pointing,
            "vlm_pointing_hits": hit_vlm,
            "expert_pointing": looking,
            "expert_pointing_hits": seen,
            "location": location,
            "location_error_m": error_m,
        }

    def _expert_pointing(
        self, logits_BHNP: Tensor | None, n_vision: int, targets: RoleTargets
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Loss, hit rate of the target, and for each role the vision tokens that show its object."""
        assert logits_BHNP is not None
        losses, rates, hits = [], [], []
        for head in range(targets.roles_BR.shape[1]):
            hit_BV = patches_of(targets.grid_BHW, targets.roles_BR[:, head])
            hit_BV = pool_grid(hit_BV, self.policy.config.film.shuffle)
            hit_BP = nn.functional.pad(hit_BV, (0, logits_BHNP.shape[-1] - n_vision))
            losses.append(mass_loss(logits_BHNP[:, head], hit_BP))
            rates.append(hit_rate(logits_BHNP[:, head, :, :n_vision], hit_BV))
            hits.append(hit_BV)
        return torch.stack(losses).sum(), rates[0], hits


class _Draw:
    """Draws frame numbers by weight."""

    def __init__(self, weight: np.ndarray):
        if not weight.sum() > 0:
            raise ValueError("found no frame to draw from; expected demonstrations or stills: instructvla-train data")
        self._cumulative = np.cumsum(weight / weight.sum())

    def __call__(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return np.searchsorted(self._cumulative, rng.random(count)).clip(max=len(self._cumulative) - 1)
