"""Stages 1 and 2: instructions about recorded frames, latents, and the flow loss of the expert on them.

One VLM pass over an image and its text serves several later frames of the same episode: so the expert learns
to act on latents that are some steps old, as it must in the running graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from instructvla_model.batch import ActionBatch, LanguageBatch
from instructvla_model.image import recipe
from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.prompts import Encoded
from instructvla_model.trainable import set_trainable
from instructvla_sim.catalog import CATALOG
from instructvla_sim.robots import robot_spec
from instructvla_training.data.chunks import chunk_actions, later_frames
from instructvla_training.data.shards import Frames
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
from instructvla_training.trainer import Drawn

from .action_loss import flow_loss
from .base import jitter
from .draw import Draw, names_of
from .simulated import SimulatedStage
from .text import ACTION_KINDS, Prompter, choose, motion_share, role_index
from .vision_text import RoleTargets, encode_all, hidden_states, language_batch, vlm_pointing

LOOKING_HEADS = (0, 1)
"""Attention heads whose latent rows learn to look at the target and at the place, in one middle layer."""
STILLS = (("stills", 1.0),)
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
    drawn: Drawn


class ActionStage(SimulatedStage):
    """Stage "expert" or "generalist" of ``policy``, whose vision tower is frozen and encoded once."""

    def __init__(
        self,
        policy: InstructVLA,
        prompter: Prompter,
        frames: Frames,
        config: StageRecipe,
        statistics: Statistics,
    ):
        super().__init__(policy, prompter, frames, config)
        self.statistics = statistics
        self.vlm_pointing = PointingHead(policy.config.language.hidden_size)
        self.location = LocationHead(policy.config.expert.dim)
        self._looking_layer = (policy.config.expert.n_layers - 1) // 2
        self.image_recipe = recipe(policy.config.expert_recipe, policy.config.film.image_size)
        # states are told from it, objects are not
        self._base_m = np.asarray(robot_spec(config.data.robot).base_m, np.float32)
        self._acting = Draw.by_dataset(frames, config.datasets, self.held_out)
        self._stills = Draw.by_dataset(frames, STILLS, self.held_out) if config.still_groups else None
        self.vlm_recipe = recipe(policy.config.vlm_recipe, policy.config.vision.image_size)
        self._image_tokens: Tensor | None = None

    def trainable(self) -> None:
        """The paper's trainable set of the stage, and the auxiliary heads."""
        weights = self.recipe.weights
        set_trainable(self.policy, self.recipe.stage)
        self.vlm_pointing.requires_grad_(weights.vlm_pointing > 0)
        # it reads the expert, which is frozen in stage 2
        self.location.requires_grad_(self.recipe.stage == "expert" and weights.location > 0)

    @torch.no_grad()
    def encode_frames(self, device: torch.device) -> None:
        """Runs the frozen vision tower over every frame and keeps the image tokens in bfloat16."""
        self.policy.eval()
        self._image_tokens = encode_all(self.policy, self.frames.image, self.vlm_recipe, device)

    # ---- batch ----------------------------------------------------------------------------------------

    def make_batch(self, rng: np.random.Generator) -> ActionStageBatch:
        config = self.recipe
        acting = self._acting(config.groups, rng)
        index = np.concatenate([acting, self._stills(config.still_groups, rng)]) if self._stills else acting
        still_prompts = config.still_prompts or config.prompts
        asked = [(i, choose(config.prompts, rng)) for i in acting]
        asked += [(i, choose(still_prompts, rng)) for i in index[len(acting) :]]
        kinds, samples = map(list, zip(*[self._action_sample(int(i), kind, rng) for i, kind in asked], strict=True))
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
        language = self._with_images(language, np.array(shown), rng)
        seen = self._targets(later)
        return ActionStageBatch(
            language=language,
            query_rows=len(index),
            action=self._actions(later, context, rng),
            vlm_targets=self._targets(index),
            expert_targets=seen,
            where=self._whereabouts(later, seen.roles_BR.clamp(min=0).numpy()),
            drawn=self._drawn(acting, np.array(shown), kinds, len(samples)),
        )

    def _with_images(self, language: LanguageBatch, shown: np.ndarray, rng: np.random.Generator) -> LanguageBatch:
        if self._image_tokens is not None:
            return replace(language, image_tokens_ITH=self._image_tokens[torch.from_numpy(shown)])
        pixels = self.vlm_recipe.normalize(torch.from_numpy(jitter(self.frames.image[shown], rng)))
        return replace(language, pixels_ICHW=pixels)

    def _drawn(self, acting: np.ndarray, shown: np.ndarray, kinds: list[str], rows: int) -> Drawn:
        """Names of what the rows rest on, and how often each dataset, prompt and kind of row came."""
        datasets = [self.frames.episodes[e].source for e in self.frames.episode[acting]]
        counts = {f"data/{source}": datasets.count(source) for source in self._acting.sources}
        counts |= {f"prompt/{kind}": kinds.count(kind) for kind in ACTION_KINDS}
        stills, multimodal = len(kinds) - len(acting), rows - len(kinds)
        counts |= {"row/action": len(acting), "row/still": stills, "row/multimodal": multimodal}
        return Drawn(names_of(self.frames, shown), counts)

    def _expert_frames(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        delay = rng.integers(0, self.recipe.max_latent_age + 1, size=(len(index), self.recipe.expert_frames))
        return later_frames(self.frames, np.repeat(index, self.recipe.expert_frames), delay.ravel())

    def _actions(self, later: np.ndarray, context: np.ndarray, rng: np.random.Generator) -> ActionBatch:
        chunk, inside = chunk_actions(self.frames, later, self.policy.config.expert.horizon)
        state = self.statistics.state if self.policy.config.expert.state_dim else None
        pixels = self.image_recipe.normalize(torch.from_numpy(jitter(self.frames.image[later], rng)))
        return ActionBatch(
            pixels_BVCHW=pixels[:, None],
            actions_BFA=torch.from_numpy(self.statistics.action.normalize(chunk)),
            state_BS=torch.from_numpy(state.normalize(self.frames.state[later])) if state is not None else None,
            context_index_B=torch.from_numpy(context),
            inside_BF=torch.from_numpy(inside),
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

    def _action_sample(self, i: int, kind: str, rng: np.random.Generator) -> tuple[str, Encoded]:
        episode = self.frames.episodes[self.frames.episode[i]]
        motion = episode.motion[self.frames.step[i]] if episode.motion else ""
        # instructions are given at the start of an episode: words such as "leftmost" are true of that frame
        first = int(self.frames.first[self.frames.episode[i]])
        return self.prompter.action(kind, self.view(first), motion, rng, motion_share(self.recipe.prompts))

    def _plain_sample(self, i: int, rng: np.random.Generator) -> tuple[Encoded, bool]:
        language, draw = self.prompter.language, rng.random()
        if draw < 0.25:
            return self.prompter.question(language.knowledge(rng), image=False), False
        item = language.caption(self.view(i), rng) if draw < 0.45 else language.qa(self.view(i), rng)
        return self.prompter.question(item or language.caption(self.view(i), rng)), True

    # ---- loss -----------------------------------------------------------------------------------------

    def forward(self, batch: ActionStageBatch) -> dict[str, Tensor]:
        """Named losses; "loss" is the weighted sum."""
        policy, weights, rows = self.policy, self.recipe.weights, batch.query_rows
        ids_BS = batch.language.input_ids_BS
        hidden_BSH = hidden_states(policy, batch.language, self.rows_at_once)
        latents_BNH = policy.encode_context(hidden_BSH, ids_BS, batch.action)
        looks = weights.expert_pointing > 0 or weights.location > 0
        prefix = policy.prefix(batch.action, latents_BNH, (self._looking_layer, LOOKING_HEADS) if looks else None)
        losses = {
            "language": policy.vlm.language_loss(hidden_BSH, batch.language.labels_BS),
            "flow": flow_loss(policy, prefix, batch.action, self.recipe),
        }
        measures: dict[str, Tensor] = {}
        if weights.vlm_pointing > 0:
            losses["vlm_pointing"], measures["vlm_pointing_hits"] = vlm_pointing(
                policy, self.vlm_pointing, hidden_BSH[:rows], ids_BS[:rows], batch.vlm_targets
            )
        if looks:
            looking, seen, hits = self._expert_pointing(prefix.probe_logits_BHNP, prefix.n_vision, batch.expert_targets)
            vision_BVD, rows_BND = prefix.tokens_BPD[:, : prefix.n_vision], prefix.probe_states_BND
            assert rows_BND is not None, "the probed layer must not be the expert's last"
            losses["expert_pointing"], measures["expert_pointing_hits"] = looking, seen
            losses["location"], measures["location_error_m"] = self.location.losses(
                vision_BVD, rows_BND, hits, batch.where
            )
        total = torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()
        return {"loss": total} | losses | measures

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
