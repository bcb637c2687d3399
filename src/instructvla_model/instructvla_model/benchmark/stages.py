"""The stages of a policy step as calls without arguments, as this library runs them."""

from __future__ import annotations

import torch
from torch import Tensor

from instructvla_model import flow, generate
from instructvla_model.benchmark.model import Call, ExpertBench, LanguageBench
from instructvla_model.generate import TextState
from instructvla_model.graphs import Graphed

LANGUAGE = ("vision", "prefill", "decode", "latents", "latents-after-text")
EXPERT = ("dino-film", "flow-loop", "chunk")


class _NeverStops:
    stop_ids: frozenset[int] = frozenset()


def _fork(state: TextState) -> TextState:
    """The same state over copies of its caches; a shared cache stays shared."""
    cache = generate.fork(state.cache)
    assert cache is not None
    base = cache if state.base_cache is state.cache else generate.fork(state.base_cache)
    return TextState(
        state.token_ids, base, cache, state.next_id, state.gate_sum, state.n_cached, prompt_1SH=state.prompt_1SH
    )


class LanguageStages:
    """Calls that return what a stage of the VLM computes; everything before the stage is done once, here."""

    @torch.inference_mode()
    def __init__(self, bench: LanguageBench) -> None:
        self.bench = bench
        self.image_tokens = bench.vlm.encode_images(bench.pixels)
        self._prompt = bench.vlm.embed(bench.prompt_ids, self.image_tokens)
        self._state = generate.prefill(bench.vlm, self._prompt)
        self._written = self._write(self._state)

    def calls(self) -> dict[str, Call]:
        """By the names of `LANGUAGE`, in the order of a step."""
        calls = (self.vision, self.prefill, self.decode, self.latents, self.latents_after_text)
        return {name: torch.inference_mode()(call) for name, call in zip(LANGUAGE, calls, strict=True)}

    def vision(self) -> Tensor:
        return self.bench.vlm.encode_images(self.bench.pixels)

    def prefill(self) -> Tensor:
        return torch.tensor(generate.prefill(self.bench.vlm, self._prompt).next_id)

    def decode(self) -> Tensor:
        """One token."""
        state = generate.step(self.bench.vlm, _NeverStops(), _fork(self._state), 1)  # type: ignore[arg-type]
        return torch.tensor(state.next_id)

    def latents(self) -> Tensor:
        """Latents without text: image tokens are there, prompt and queries pass in one forward without a cache."""
        return self.encode(self.bench.query_ids)

    def latents_after_text(self) -> Tensor:
        """Queries behind the caches of prompt and text; where both streams share one, everything once more."""
        if self._written.shared:
            return self.encode(self.bench.text_ids, self.bench.query_ids)
        return generate.latents_behind(self.bench.vlm, self._written, self.bench.query_ids[0].tolist()).latents_1NH

    def encode(self, *ids: Tensor) -> Tensor:
        """Hidden states at the queries, of the prompt and `ids` in one forward without a cache."""
        vlm = self.bench.vlm
        embeds = torch.cat([self._prompt, *(vlm.embed(part) for part in ids)], dim=1)
        return vlm.hidden(embeds, vlm.mix_for(embeds))[:, -self.bench.config.n_queries :]

    def _write(self, state: TextState) -> TextState:
        """`state` after the benchmark's text."""
        if not state.shared:
            state = _fork(state)
            generate.extend(self.bench.vlm, self.bench.vlm.embed(self.bench.text_ids), state)
        return state


class ExpertStages:
    """Calls that return what a stage of the expert computes; everything before the stage is done once, here."""

    @torch.inference_mode()
    def __init__(self, bench: ExpertBench) -> None:
        self.bench = bench
        self.vision_1PD = self.see()
        self._whole = Graphed(self._chunk) if bench.device.type == "cuda" else self._chunk

    def calls(self) -> dict[str, Call]:
        """By the names of `EXPERT`, in the order of a step."""
        calls = (self.see, self.flow, self.chunk)
        return {name: torch.inference_mode()(call) for name, call in zip(EXPERT, calls, strict=True)}

    def see(self) -> Tensor:
        return self.bench.expert.see(self.bench.views, self.bench.latents)

    def flow(self) -> Tensor:
        """From vision tokens to actions: prefix and all Euler steps."""
        prefix = self.bench.expert.prefix_of(self.vision_1PD, self.bench.latents, self.bench.state)
        return flow.sample(self.bench.expert, prefix, noise_BKFA=self.bench.noise)

    def chunk(self) -> Tensor:
        """From pixels to actions, as the runtime does it."""
        return self._whole(self.bench.views, self.bench.latents, self.bench.state, self.bench.noise)

    def _chunk(self, views: Tensor, latents: Tensor, state: Tensor | None, noise: Tensor) -> Tensor:
        prefix = self.bench.expert.encode_prefix(views, latents, state)
        return flow.sample(self.bench.expert, prefix, noise_BKFA=noise)
