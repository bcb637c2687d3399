"""Modules of a preset's size with random weights, and inputs for them. No checkpoint and no tokenizer is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instructvla_model.compiled import compile_vision
from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert
from instructvla_model.packed import pack_linears, packs
from instructvla_model.quantized import quantize_linears
from instructvla_model.vlm import VisionLanguageModel, prepare_for_stage

Call = Callable[[], Tensor]
PROMPT_WORDS = 48  # tokens of a prompt beside the image's: template and instruction
TEXT_TOKENS = 40  # of a reasoning
IMAGE_TOKEN = 0


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
class LanguageBench:
    """The vision-language model and its inputs: batch 1, all on one device."""

    config: PolicyConfig
    device: torch.device
    vlm: VisionLanguageModel
    n_parameters: int
    pixels: Tensor  # [1, 3, S, S]
    prompt_ids: Tensor  # [1, P], image placeholders among them
    text_ids: Tensor  # [1, T]
    query_ids: Tensor  # [1, N]


@dataclass(frozen=True)
class ExpertBench:
    """The action expert and its inputs: batch 1, all on one device."""

    config: PolicyConfig
    device: torch.device
    expert: ActionExpert  # as the runtime has it: without unread blocks, its matrices packed where that pays
    whole: ActionExpert  # as the checkpoint has it
    n_parameters: int
    views: Tensor  # [1, V, 3, S, S]
    latents: Tensor  # [1, N, H]
    state: Tensor | None
    noise: Tensor  # [1, 1, F, 7]


@torch.inference_mode()
def build_language(
    config: PolicyConfig,
    device: torch.device,
    dtype: torch.dtype,
    stage: str = "generalist",
    vlm_weights: str = "full",
    seed: int = 0,
    compiled: bool = False,
) -> LanguageBench:
    """The VLM as `stage` runs it; one seed gives the same weights and inputs on every machine."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        vlm = VisionLanguageModel(config, IMAGE_TOKEN)
        prepare_for_stage(vlm, stage)
    fill(vlm, device, dtype)
    vlm.finish_loading(device)
    n_parameters = sum(tensor.numel() for tensor in vlm.parameters())
    if vlm_weights == "int8":
        quantize_linears(vlm)
    if compiled:
        compile_vision(vlm, None)
    elif packs(vlm, device, dtype):
        pack_linears(vlm)
    generator = torch.Generator().manual_seed(seed)

    def words(n: int) -> Tensor:
        return torch.randint(1, min(1000, config.language.vocab_size), (1, n), generator=generator)

    head, size, first = words(PROMPT_WORDS), config.vision.image_size, config.language.vocab_size
    image = torch.full((1, config.vision.tokens_per_image), IMAGE_TOKEN)
    return LanguageBench(
        config=config,
        device=device,
        vlm=vlm.eval(),
        n_parameters=n_parameters,
        pixels=torch.randn((1, 3, size, size), generator=generator).to(device, dtype),
        prompt_ids=torch.cat([head[:, :8], image, head[:, 8:]], dim=1).to(device),
        text_ids=words(TEXT_TOKENS).to(device),
        query_ids=torch.arange(first, first + config.n_queries, device=device)[None],
    )


@torch.inference_mode()
def build_expert(
    config: PolicyConfig, device: torch.device, dtype: torch.dtype, seed: int = 0, compiled: bool = False
) -> ExpertBench:
    """The expert, and latents as a final norm gives them; one seed gives the same on every machine."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        whole, expert = ActionExpert(config), ActionExpert(config.without_unread_blocks())
    fill(whole, device, dtype)
    held = whole.state_dict()
    expert.load_state_dict({name: held[name] for name in expert.state_dict()}, assign=True)
    if compiled:
        compile_vision(None, expert)
    elif packs(expert, device, dtype):
        pack_linears(expert)
    generator, sizes, film = torch.Generator().manual_seed(seed), config.expert, config.film

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    return ExpertBench(
        config=config,
        device=device,
        expert=expert.eval(),
        whole=whole.eval(),
        n_parameters=sum(tensor.numel() for tensor in whole.parameters()),
        views=normal(1, len(config.views), 3, film.image_size, film.image_size),
        latents=normal(1, config.n_queries, config.language.hidden_size),
        state=normal(1, sizes.state_dim) if sizes.state_dim else None,
        noise=torch.randn((1, 1, sizes.horizon, sizes.action_dim), generator=generator).to(device),
    )
