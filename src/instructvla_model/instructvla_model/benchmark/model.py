"""A policy of a preset's size with random weights, and inputs for it. No checkpoint and no tokenizer is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert
from instructvla_model.quantized import quantize_linears
from instructvla_model.vlm import VisionLanguageModel, prepare_for_stage

PROMPT_WORDS = 48  # tokens of a prompt beside the image's: template and instruction
TEXT_TOKENS = 40  # of a reasoning


def fill(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give a module built on the meta device memory and harmless numbers, tensor by tensor."""
    module.to_empty(device=device)
    module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                bound = (3.0 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound)


@dataclass(frozen=True)
class Bench:
    """Modules and inputs: batch 1, all on one device."""

    config: PolicyConfig
    device: torch.device
    vlm: VisionLanguageModel
    expert: ActionExpert
    pixels: Tensor  # of the VLM, [1, 3, S, S]
    prompt_ids: Tensor  # [1, P], image placeholders among them
    text_ids: Tensor  # [1, T]
    query_ids: Tensor  # [1, N]
    views: Tensor  # of the expert, [1, V, 3, S, S]
    state: Tensor | None
    noise: Tensor  # [1, 1, F, 7]

    @property
    def n_parameters(self) -> int:
        tensors = [*self.vlm.parameters(), *self.vlm.buffers(), *self.expert.parameters()]
        return sum(t.numel() for t in tensors)


@torch.inference_mode()
def build(
    config: PolicyConfig,
    device: torch.device,
    dtype: torch.dtype,
    stage: str = "generalist",
    vlm_weights: str = "full",
    seed: int = 0,
) -> Bench:
    """Build every module of the stage, without memory first, then one after the other with it."""
    torch.manual_seed(seed)
    image_token = 0
    with torch.device("meta"):
        vlm = VisionLanguageModel(config, image_token)
        prepare_for_stage(vlm, stage)
        expert = ActionExpert(config)
    fill(vlm, device, dtype)
    vlm.finish_loading(device)
    if vlm_weights == "int8":
        quantize_linears(vlm)
    fill(expert, device, dtype)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def words(n: int) -> Tensor:
        return torch.randint(1, min(1000, config.language.vocab_size), (1, n), generator=generator)

    head, size = words(PROMPT_WORDS), config.vision.image_size
    image = torch.full((1, config.vision.tokens_per_image), image_token)
    first = config.language.vocab_size
    return Bench(
        config=config,
        device=device,
        vlm=vlm.eval(),
        expert=expert.eval(),
        pixels=normal(1, 3, size, size),
        prompt_ids=torch.cat([head[:, :8], image, head[:, 8:]], dim=1).to(device),
        text_ids=words(TEXT_TOKENS).to(device),
        query_ids=torch.arange(first, first + config.n_queries, device=device)[None],
        views=normal(1, len(config.views), 3, config.film.image_size, config.film.image_size),
        state=normal(1, config.expert.state_dim) if config.expert.state_dim else None,
        noise=torch.randn(1, 1, config.expert.horizon, config.expert.action_dim, generator=generator).to(device),
    )
