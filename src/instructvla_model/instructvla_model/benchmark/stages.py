"""The stages of a policy step as calls without arguments, as this library runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from instructvla_model import flow, generate
from instructvla_model.benchmark.model import Bench
from instructvla_model.generate import TextState
from instructvla_model.graphs import Graphed

Call = Callable[[], torch.Tensor]


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


class Stages:
    """Calls that return what a stage computes; everything before the stage is done once, here."""

    @torch.inference_mode()
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        vlm, expert = bench.vlm, bench.expert
        self.image_tokens = vlm.encode_images(bench.pixels)
        self._prompt = vlm.embed(bench.prompt_ids, self.image_tokens)
        self._state = generate.prefill(vlm, self._prompt)
        self._written = self._write(self._state)
        self.latents_1NH = self.latents()
        self.vision_1PD = expert.see(bench.views, self.latents_1NH)
        self._whole = Graphed(self._chunk) if bench.device.type == "cuda" else self._chunk

    def calls(self) -> dict[str, Call]:
        """By name, in the order of a step."""
        calls = {
            "vision": self.vision,
            "prefill": self.prefill,
            "decode, one token": self.decode,
            "latents": self.latents,
            "latents after text": self.latents_after_text,
            "DINO + FiLM": self.see,
            "trunk and flow loop": self.flow,
            "expert, whole chunk": self.chunk,
        }
        return {name: torch.inference_mode()(call) for name, call in calls.items()}

    def vision(self) -> torch.Tensor:
        return self.bench.vlm.encode_images(self.bench.pixels)

    def prefill(self) -> torch.Tensor:
        return torch.tensor(generate.prefill(self.bench.vlm, self._prompt).next_id)

    def decode(self) -> torch.Tensor:
        state = generate.step(self.bench.vlm, _NeverStops(), _fork(self._state), 1)  # type: ignore[arg-type]
        return torch.tensor(state.next_id)

    def latents(self) -> torch.Tensor:
        """Latents without text: image tokens are there, prompt and queries pass in one forward without a cache."""
        return self._encode(self.bench.query_ids)

    def latents_after_text(self) -> torch.Tensor:
        """Queries behind the caches of prompt and text; where both streams share one, everything once more."""
        if self._written.shared:
            return self._encode(self.bench.text_ids, self.bench.query_ids)
        return generate.latents_behind(self.bench.vlm, self._written, self.bench.query_ids[0].tolist()).latents_1NH

    def _encode(self, *ids: torch.Tensor) -> torch.Tensor:
        vlm = self.bench.vlm
        embeds = torch.cat([self._prompt, *(vlm.embed(part) for part in ids)], dim=1)
        return vlm.hidden(embeds, vlm.mix_for(embeds))[:, -self.bench.config.n_queries :]

    def see(self) -> torch.Tensor:
        return self.bench.expert.see(self.bench.views, self.latents_1NH)

    def flow(self) -> torch.Tensor:
        """From vision tokens to actions: prefix and all Euler steps."""
        prefix = self.bench.expert.prefix_of(self.vision_1PD, self.latents_1NH, self.bench.state)
        return flow.sample(self.bench.expert, prefix, noise_BKFA=self.bench.noise)

    def chunk(self) -> torch.Tensor:
        """From pixels to actions, as the runtime does it."""
        return self._whole(self.bench.views, self.latents_1NH, self.bench.state, self.bench.noise)

    def _chunk(
        self, views: torch.Tensor, latents: torch.Tensor, state: torch.Tensor | None, noise: torch.Tensor
    ) -> torch.Tensor:
        prefix = self.bench.expert.encode_prefix(views, latents, state)
        return flow.sample(self.bench.expert, prefix, noise_BKFA=noise)

    def _write(self, state: TextState) -> TextState:
        """`state` after the benchmark's text."""
        if not state.shared:
            state = _fork(state)
            generate.extend(self.bench.vlm, self.bench.vlm.embed(self.bench.text_ids), state)
        return state
