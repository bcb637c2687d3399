"""InstructVLA: the vision-language model and the action expert as one module.

Read on in vlm.py (image, text and queries -> latents), expert.py (latents, pixels, state -> velocity),
flow.py (loss and sampling).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instructvla_model import flow
from instructvla_model.batch import ActionBatch, Losses, PolicyBatch
from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert, ExpertPrefix, Probe
from instructvla_model.vlm import STAGES, VisionLanguageModel, prepare_for_stage

__all__ = ["STAGES", "InstructVLA"]


class InstructVLA(nn.Module):
    """The policy. `stage` decides which adapters exist and which mode the language model runs in."""

    def __init__(self, config: PolicyConfig, image_token_id: int, stage: str = "base") -> None:
        super().__init__()
        self.config = config
        self.vlm = VisionLanguageModel(config, image_token_id)
        self.expert = ActionExpert(config)
        self.set_stage(stage)

    @classmethod
    def from_parts(
        cls, config: PolicyConfig, vlm: VisionLanguageModel, expert: ActionExpert, stage: str
    ) -> InstructVLA:
        """Assemble modules that exist already."""
        policy = cls.__new__(cls)
        nn.Module.__init__(policy)
        policy.config, policy.vlm, policy.expert = config, vlm, expert
        policy.set_stage(stage)
        return policy

    def set_stage(self, stage: str) -> None:
        """Add what the stage needs and is missing, and switch the mode; nothing is removed."""
        prepare_for_stage(self.vlm, stage)
        self.stage = stage

    def encode_context(self, hidden_BSH: Tensor, ids_BS: Tensor, action: ActionBatch) -> Tensor:
        """Latents for each frame of the action batch -> [B_action, N, H]."""
        index = action.context_index_B
        if index is None:
            return self.vlm.latents_of(hidden_BSH, ids_BS)
        rows, inverse = torch.unique(index, return_inverse=True)
        return self.vlm.latents_of(hidden_BSH[rows], ids_BS[rows])[inverse]

    def prefix(self, action: ActionBatch, latents_BNH: Tensor, probe: Probe | None = None) -> ExpertPrefix:
        return self.expert.encode_prefix(action.pixels_BVCHW, latents_BNH, action.state_BS, probe)

    def forward(self, batch: PolicyBatch, n_draws: int = 1, generator: torch.Generator | None = None) -> Losses:
        """L = L_LM + L_FM; the gradient of L_FM flows into the language model through the latents."""
        language, action = batch.language, batch.action
        hidden_BSH = self.vlm.hidden_of(language)
        zero = hidden_BSH.new_zeros((), dtype=torch.float32)
        lm = zero if language.labels_BS is None else self.vlm.language_loss(hidden_BSH, language.labels_BS)
        fm = zero
        if action is not None:
            latents_BNH = self.encode_context(hidden_BSH, language.input_ids_BS, action)
            fm = flow.loss(
                self.expert, self.prefix(action, latents_BNH), action.actions_BFA,
                n_draws=n_draws, generator=generator,
            )  # fmt: skip
        return Losses(lm + fm, lm, fm)
