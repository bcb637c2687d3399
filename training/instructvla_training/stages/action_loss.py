"""The flow loss of a batch of chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from instructvla_model import flow
from instructvla_model.batch import ActionBatch
from instructvla_model.expert import ExpertPrefix
from instructvla_model.policy import InstructVLA
from instructvla_training.recipes import StageRecipe


def flow_loss(policy: InstructVLA, prefix: ExpertPrefix, action: ActionBatch, recipe: StageRecipe) -> Tensor:
    """Mean over draws, steps and dimensions; steps past an episode's end weigh what the recipe says."""
    weights_BF = None  # the plain mean, as in the reference
    if recipe.weights.padding != 1.0:
        assert action.inside_BF is not None, "padding is weighed by the mask of its steps"
        weights_BF = torch.where(action.inside_BF, 1.0, recipe.weights.padding)
    return flow.loss(policy.expert, prefix, action.actions_BFA, n_draws=recipe.draws, weights_BF=weights_BF)
