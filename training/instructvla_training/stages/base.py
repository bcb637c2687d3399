"""Stage 0, only for presets that start from random weights: pre-trains the backbones on rendered stills.

Stands where Eagle2 and DINOv2 bring pre-trained weights. The VLM learns captions, questions, knowledge and
to point at what is named; both vision towers learn which object each patch shows. No action, no instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instructvla_model.batch import LanguageBatch
from instructvla_model.image import recipe
from instructvla_model.policy import InstructVLA
from instructvla_model.prompts import Encoded
from instructvla_sim.catalog import NAMES
from instructvla_training.data.shards import NO_OBJECT, Frames
from instructvla_training.pointing import PointingHead
from instructvla_training.recipes import StageRecipe
from instructvla_training.trainer import Drawn

from .draw import Draw, names_of
from .simulated import SimulatedStage
from .text import NOBODY, QUESTION_KINDS, Prompter, choose
from .vision_text import RoleTargets, language_batch, vlm_pointing


@dataclass(frozen=True)
class BaseBatch:
    language: LanguageBatch
    pixels_ICHW: Tensor
    targets: RoleTargets  # of the rows in ``pointing_rows``
    pointing_rows: Tensor
    grid_IHW: Tensor  # class of each patch, the last one for nothing
    drawn: Drawn


class BaseStage(SimulatedStage):
    """The policy with the heads that only pre-training needs."""

    def __init__(self, policy: InstructVLA, prompter: Prompter, frames: Frames, config: StageRecipe):
        super().__init__(policy, prompter, frames, config)
        self.vlm_pointing = PointingHead(policy.config.language.hidden_size)
        classes = len(NAMES) + 1
        self.siglip_patches = nn.Linear(policy.config.vision.hidden_size, classes)
        self.dino_patches = nn.Linear(policy.config.film.dim, classes)
        self.image_recipe = recipe(policy.config.vlm_recipe, policy.config.vision.image_size)
        self._stills = Draw.by_dataset(frames, (("stills", 1.0),), self.held_out)
        self.class_weight = torch.ones(classes)
        self.class_weight[-1] = 0.3  # most patches show the table

    def trainable(self) -> None:
        """All of the VLM, the expert's vision tower, and the heads."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad = not name.startswith("policy.expert.") or ".film_vision_model." in name

    # ---- batch ----------------------------------------------------------------------------------------

    def make_batch(self, rng: np.random.Generator) -> BaseBatch:
        index = self._stills(self.recipe.groups, rng)
        samples: list[Encoded] = []
        image_index, roles, pointing = [], [], []
        kinds = dict.fromkeys((f"prompt/{kind}" for kind in QUESTION_KINDS), 0)
        for row, i in enumerate(index):
            kind, encoded, target, second, has_image = self._sample(int(i), rng)
            kinds[f"prompt/{kind}"] += 1
            samples.append(encoded)
            image_index.append(row if has_image else -1)
            if target != NOBODY:
                pointing.append(row)
                roles.append((target, second))
        grid = self.frames.grid[index]
        pixels = self.image_recipe.normalize(torch.from_numpy(jitter(self.frames.image[index], rng)))
        rows = torch.tensor(pointing, dtype=torch.long)
        return BaseBatch(
            language=language_batch(samples, self.prompter.builder.tokenizer.pad_id, np.array(image_index)),
            pixels_ICHW=pixels,
            targets=RoleTargets(torch.from_numpy(grid)[rows], torch.tensor(roles, dtype=torch.long).view(-1, 2)),
            pointing_rows=rows,
            grid_IHW=torch.from_numpy(np.where(grid == NO_OBJECT, len(NAMES), grid).astype(np.int64)),
            drawn=Drawn(names_of(self.frames, index), kinds),
        )

    def _sample(self, i: int, rng: np.random.Generator) -> tuple[str, Encoded, int, int, bool]:
        """Kind, tokens, the objects of both roles, and whether the image is shown."""
        view = self.view(i)
        kind = choose(self.recipe.prompts, rng)
        language = self.prompter.language
        if kind == "knowledge":
            return kind, self.prompter.question(language.knowledge(rng), image=False), NOBODY, NOBODY, False
        if kind == "caption":
            return kind, self.prompter.question(language.caption(view, rng)), NOBODY, NOBODY, True
        item = language.qa(view, rng) if kind == "qa" else None
        if item is not None:
            return kind, self.prompter.question(item), NOBODY, NOBODY, True
        return "point", *self.prompter.point(view, rng), True

    # ---- loss -----------------------------------------------------------------------------------------

    def forward(self, batch: BaseBatch) -> dict[str, Tensor]:
        """Named losses; "loss" is the weighted sum."""
        policy, vlm, weights = self.policy, self.policy.vlm, self.recipe.weights
        features_IPC = vlm.vision_model(pixel_values=batch.pixels_ICHW).last_hidden_state
        tokens_ITH = vlm.project(features_IPC)
        embeds = vlm.embed(batch.language.input_ids_BS, tokens_ITH, batch.language.image_index_B)
        hidden_BSH = vlm.hidden(embeds)
        language = vlm.language_loss(hidden_BSH, batch.language.labels_BS)
        rows = batch.pointing_rows
        pointing, hit = vlm_pointing(
            policy, self.vlm_pointing, hidden_BSH[rows], batch.language.input_ids_BS[rows], batch.targets
        )
        no_condition = tokens_ITH.new_zeros(len(tokens_ITH), policy.config.language.hidden_size)
        dino_IPD = policy.expert.film_vision_model.vision_model(batch.pixels_ICHW, no_condition)
        siglip = self._patch_loss(self.siglip_patches(features_IPC), batch.grid_IHW)
        dino = self._patch_loss(self.dino_patches(dino_IPD), batch.grid_IHW)
        total = weights.language * language + weights.vlm_pointing * pointing + weights.patches * (siglip + dino)
        return {
            "loss": total, "language": language, "vlm_pointing": pointing, "vlm_pointing_hits": hit,
            "siglip_patches": siglip, "dino_patches": dino,
        }  # fmt: skip

    def _patch_loss(self, logits_IPC: Tensor, grid_IHW: Tensor) -> Tensor:
        """Cross-entropy of each patch's class; a tower with finer patches than the grid repeats its cells."""
        repeats = int(logits_IPC.shape[1] ** 0.5) // grid_IHW.shape[-1]
        grid_IHW = grid_IHW.repeat_interleave(repeats, 1).repeat_interleave(repeats, 2)
        weight = self.class_weight.to(logits_IPC.device)
        return F.cross_entropy(logits_IPC.float().flatten(0, 1), grid_IHW.flatten(), weight=weight)


def jitter(images_BHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and colour cast of each image, a little (reference §5.6 has the same kinds)."""
    jittered = np.empty_like(images_BHWC)
    levels = np.arange(256)[:, None]
    for row, image in enumerate(images_BHWC):
        gain = rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)
        table = np.clip(levels * gain + rng.uniform(-14, 14), 0, 255).astype(np.uint8)
        jittered[row] = cv2.LUT(image, table[:, None])
    return jittered
