"""The vision-language model: image tokens, latent queries, hidden states, logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from instructvla_model.adapters import AdapterMix, Gate, moe_linears
from instructvla_model.batch import IGNORE, LanguageBatch
from instructvla_model.config import PolicyConfig
from instructvla_model.language import build_language_model, run
from instructvla_model.norm import stream_dtype
from instructvla_model.stem import pixel_shuffle
from instructvla_model.vision import build_projector, build_vision_model

MODES = ("base", "single", "gated")
STAGES = ("base", "expert", "generalist")


class VisionLanguageModel(nn.Module):
    """Eagle2-type VLM with N latent-action queries and a mixture of adapters.

    The queries are the last N tokens of the vocabulary. Their embedding and output rows are parameters of
    their own (`query_embed`, `query_head`), so that training them alone needs no gradient hook.

    `mode`: "base" (adapters off), "single" (one adapter, weight one), "gated" (weights per token).
    """

    def __init__(self, config: PolicyConfig, image_token_id: int) -> None:
        super().__init__()
        self.config = config
        self.image_token_id = image_token_id
        hidden = config.language.hidden_size
        self.vision_model = build_vision_model(config.vision)
        self.mlp1 = build_projector(config.vision, hidden)
        self.language_model = build_language_model(config.language, config.adapters)
        self.query_embed = nn.Parameter(torch.empty(config.n_queries, hidden))
        nn.init.normal_(self.query_embed, std=config.language.initializer_range)
        if config.language.tie_embeddings:
            self.query_head = self.query_embed
        else:
            self.query_head = nn.Parameter(torch.empty(config.n_queries, hidden))
            nn.init.normal_(self.query_head, std=config.language.initializer_range)
        self.gate: Gate | None = None
        self.adapter_names: tuple[str, ...] = ()
        self.mode = "base"
        self.single_adapter = "action"

    @property
    def first_query_id(self) -> int:
        return self.config.language.vocab_size

    # ---- adapters -------------------------------------------------------------------------------------

    def add_adapters(self, *names: str) -> None:
        """Add the adapters that are missing; a new one changes nothing until it is trained."""
        for name in names:
            if name not in self.config.adapters.names:
                raise ValueError(f"adapter {name!r} is unknown; expected one of {self.config.adapters.names}")
            if name in self.adapter_names:
                continue
            for linear in moe_linears(self.language_model):
                linear.add_adapter(name)
            self.adapter_names += (name,)

    def add_gate(self) -> None:
        if self.gate is None:
            weight = self.query_embed
            gate = Gate(self.config.language.hidden_size, self.config.adapters)
            self.gate = gate.to(weight.device, weight.dtype).train(self.training)

    def set_mode(self, mode: str, adapter: str = "action") -> None:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} does not exist; expected one of {MODES}")
        if mode == "single" and adapter not in self.adapter_names:
            raise ValueError(f"adapter {adapter!r} is not loaded (have {self.adapter_names}); add_adapters first")
        if mode == "gated" and (self.gate is None or set(self.adapter_names) != set(self.config.adapters.names)):
            raise ValueError(
                f"gated mode needs the gate and all of {self.config.adapters.names}; "
                f"have {self.adapter_names} and gate={self.gate is not None}; add them first"
            )
        self.mode, self.single_adapter = mode, adapter

    def finish_loading(self, device: torch.device | str) -> None:
        """After weights replaced the parameters: tie what is tied, rebuild buffers that are not stored."""
        model = self.language_model.model
        model.rotary_emb = type(model.rotary_emb)(config=self.language_model.config).to(device)
        positions = torch.arange(self.config.vision.patches_per_side**2, device=device)[None]
        self.vision_model.embeddings.register_buffer("position_ids", positions, persistent=False)
        if self.config.language.tie_embeddings:
            self.language_model.lm_head.weight = model.embed_tokens.weight
            self.query_head = self.query_embed

    # ---- inputs ---------------------------------------------------------------------------------------

    def encode_images(self, pixels_ICHW: Tensor) -> Tensor:
        """Pixels of the VLM's recipe -> image tokens [I, T, H]."""
        return self.project(self.vision_model(pixel_values=pixels_ICHW).last_hidden_state)

    def project(self, features_IPC: Tensor) -> Tensor:
        """Patch features of the vision tower -> image tokens [I, T, H] by pixel shuffle and projector."""
        side = self.config.vision.patches_per_side
        grid_IHWC = features_IPC.reshape(-1, side, side, features_IPC.shape[-1])
        return self.mlp1(pixel_shuffle(grid_IHWC, self.config.vision.shuffle).flatten(1, 2))

    def embed_ids(self, ids_BS: Tensor) -> Tensor:
        """Embedding rows of ordinary and query tokens -> [B, S, H]."""
        first = self.first_query_id
        table_VH = self.language_model.model.embed_tokens.weight
        text_BSH = F.embedding(ids_BS.clamp(max=first - 1), table_VH)
        query_BSH = F.embedding((ids_BS - first).clamp(min=0), self.query_embed)
        return torch.where((ids_BS >= first)[..., None], query_BSH, text_BSH)

    def embed(
        self, ids_BS: Tensor, image_tokens_ITH: Tensor | None = None, image_index_B: Tensor | None = None
    ) -> Tensor:
        """Embeddings with image tokens in place of the image placeholders -> [B, S, H].

        Raises ValueError where the number of placeholders differs from the number of image tokens.
        """
        embeds_BSH = self.embed_ids(ids_BS)
        embeds_BSH = embeds_BSH.to(stream_dtype(embeds_BSH))
        if image_tokens_ITH is None:
            return embeds_BSH
        if image_index_B is not None:
            image_tokens_ITH = image_tokens_ITH[image_index_B[image_index_B >= 0]]
        at_BS = ids_BS == self.image_token_id
        rows_RH = image_tokens_ITH.reshape(-1, image_tokens_ITH.shape[-1]).to(embeds_BSH.dtype)
        found = int(at_BS.sum())
        if found != rows_RH.shape[0]:
            raise ValueError(
                f"{found} image placeholder tokens for {rows_RH.shape[0]} image tokens; expected as many "
                f"({self.config.vision.tokens_per_image} for each image); build prompts with prompts.py"
            )
        return embeds_BSH.masked_scatter(at_BS[..., None], rows_RH)

    def embed_batch(self, batch: LanguageBatch) -> Tensor:
        tokens = batch.image_tokens_ITH
        if tokens is None and batch.pixels_ICHW is not None:
            tokens = self.encode_images(batch.pixels_ICHW)
        return self.embed(batch.input_ids_BS, tokens, batch.image_index_B)

    # ---- forward --------------------------------------------------------------------------------------

    @torch.no_grad()
    def gate_inputs(self, embeds_BSH: Tensor, cache: Cache | None = None, position: int | None = None) -> Tensor:
        """Final-norm hidden states of the base stream (adapters off), without gradient."""
        return run(self.language_model, embeds_BSH, None, cache, position)

    def mix_for(
        self, embeds_BSH: Tensor, base_cache: Cache | None = None, position: int | None = None
    ) -> AdapterMix | None:
        """The adapter mix for these inputs in the current mode; runs the base stream in gated mode."""
        if self.mode == "base":
            return None
        if self.mode == "single":
            return AdapterMix((self.single_adapter,))
        assert self.gate is not None
        weights_BSA = self.gate(self.gate_inputs(embeds_BSH, base_cache, position))
        return AdapterMix(self.config.adapters.names, weights_BSA)

    def hidden(
        self,
        embeds_BSH: Tensor,
        mix: AdapterMix | None = None,
        cache: Cache | None = None,
        position: int | None = None,
    ) -> Tensor:
        """Final-norm hidden states [B, S, H] under the given mix (see `mix_for`; `position` as in `run`)."""
        return run(self.language_model, embeds_BSH, mix, cache, position)

    def hidden_of(self, batch: LanguageBatch) -> Tensor:
        """Embed, gate and run a batch -> final-norm hidden states [B, S, H]."""
        embeds_BSH = self.embed_batch(batch)
        return self.hidden(embeds_BSH, self.mix_for(embeds_BSH))

    def logits(self, hidden_XH: Tensor) -> Tensor:
        """Logits over the vocabulary followed by the query tokens: [..., V + N]."""
        text_XV = self.language_model.lm_head(hidden_XH)
        return torch.cat([text_XV, F.linear(hidden_XH, self.query_head)], dim=-1)

    def language_loss(self, hidden_BSH: Tensor, labels_BS: Tensor) -> Tensor:
        """Mean cross-entropy over the supervised tokens; logits only where the next label is one of them.

        Zero (with a gradient path) where nothing is supervised.
        """
        target_BS = labels_BS[:, 1:]
        keep_BS = target_BS != IGNORE
        target_R = target_BS[keep_BS]
        if target_R.numel() == 0:
            return hidden_BSH.float().sum() * 0.0
        return F.cross_entropy(self.logits(hidden_BSH[:, :-1][keep_BS]).float(), target_R)

    def latents_of(self, hidden_BSH: Tensor, ids_BS: Tensor) -> Tensor:
        """Hidden states at the query tokens -> [B, N, H]; every row must hold exactly N of them.

        Rows without queries are to be left out by the caller (index both arguments first).
        """
        at_BS = ids_BS >= self.first_query_id
        N = self.config.n_queries
        counts = at_BS.sum(dim=1)
        if not bool((counts == N).all()):
            raise ValueError(f"rows hold {counts.tolist()} query tokens; expected {N} in each row")
        return hidden_BSH[at_BS].view(hidden_BSH.shape[0], N, hidden_BSH.shape[-1])


def prepare_for_stage(vlm: VisionLanguageModel, stage: str) -> None:
    """Add the adapters and the gate a stage needs and switch the mode; nothing is removed.

    base: no adapters; expert: the action adapter with weight one; generalist: all adapters, gated where there is
    more than one.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} does not exist; expected one of {STAGES}")
    if stage == "expert":
        vlm.add_adapters("action")
        vlm.set_mode("single", "action")
    elif stage == "generalist":
        vlm.add_adapters(*vlm.config.adapters.names)
        if len(vlm.adapter_names) > 1:
            vlm.add_gate()
            vlm.set_mode("gated")
        else:
            vlm.set_mode("single", *vlm.adapter_names)
    else:
        vlm.set_mode("base")
