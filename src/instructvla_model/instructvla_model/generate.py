"""Greedy text and latent queries with key/value caches.

In gated mode there are two streams, each with its own cache: the base stream (adapters off) gives the
adapter weights of a token, the adapted stream writes. Otherwise one cache serves. Text ends at the first
query token, at an end token or at the cap; then all N queries pass in one parallel forward that reuses
the caches, equal to encoding everything again.

`config.text_cache` "shared" writes as the evaluations of the released checkpoints did: both streams append to one
cache and see each other in it. Latents are never read from such a cache; everything is encoded again for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from instructvla_model.adapters import AdapterMix
from instructvla_model.language import new_cache
from instructvla_model.tokenizer import PolicyTokenizer
from instructvla_model.vlm import VisionLanguageModel

STOPS = ("", "query", "end", "length", "asked")


def fork(cache: DynamicCache | None) -> DynamicCache | None:
    """A cache that continues from `cache` and leaves it as it is; shares memory until it grows."""
    if cache is None:
        return None
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


@dataclass(frozen=True)
class TextState:
    """Text written after a prompt, with the caches that hold prompt and text. Never mutated."""

    token_ids: tuple[int, ...]
    base_cache: DynamicCache | None
    cache: DynamicCache
    next_id: int
    gate_sum: tuple[float, ...]  # adapter weights summed over all tokens in the cache
    n_cached: int  # tokens of prompt and text
    stop: str = ""  # one of STOPS; "" while text may go on
    prompt_1SH: Tensor | None = None  # kept where the cache is shared

    @property
    def shared(self) -> bool:
        return self.prompt_1SH is not None

    @property
    def text_ids(self) -> tuple[int, ...]:
        """What goes into the next prompt. The released code keeps an end token that the model wrote."""
        return (*self.token_ids, self.next_id) if self.shared and self.stop == "end" else self.token_ids


@dataclass(frozen=True)
class Latents:
    """Read-out at the query tokens."""

    latents_1NH: Tensor
    gate_mean: tuple[float, ...]


def _advance(
    vlm: VisionLanguageModel,
    embeds_1SH: Tensor,
    base: DynamicCache | None,
    cache: DynamicCache | None,
    position: int | None = None,
) -> tuple[Tensor, tuple[float, ...]]:
    """Run new tokens through both streams, appending to the caches -> hidden [1, S, H], gate sums."""
    mix = vlm.mix_for(embeds_1SH, base, position)
    hidden_1SH = vlm.hidden(embeds_1SH, mix, cache, position)
    return hidden_1SH, _gate_sum(mix, embeds_1SH.shape[1])


def _gate_sum(mix: AdapterMix | None, n_tokens: int) -> tuple[float, ...]:
    if mix is None:
        return ()
    if mix.weights_BSA is None:
        return (float(n_tokens),) * len(mix.names)
    return tuple(mix.weights_BSA[0].sum(dim=0).tolist())


def _add(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _ids(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([list(values)], dtype=torch.long, device=device)


def _greedy(vlm: VisionLanguageModel, hidden_1SH: Tensor) -> int:
    return int(vlm.logits(hidden_1SH[:, -1]).argmax(dim=-1))


@torch.inference_mode()
def prefill(vlm: VisionLanguageModel, prompt_1SH: Tensor) -> TextState:
    """Encode a prompt (embeddings up to the open assistant header) into fresh caches."""
    shared = vlm.mode == "gated" and vlm.config.text_cache == "shared"
    cache = new_cache(vlm.language_model)
    base = cache if shared else new_cache(vlm.language_model) if vlm.mode == "gated" else None
    hidden_1SH, sums = _advance(vlm, prompt_1SH, base, cache, 0 if shared else None)
    kept = prompt_1SH if shared else None
    return TextState((), base, cache, _greedy(vlm, hidden_1SH), sums, prompt_1SH.shape[1], prompt_1SH=kept)


@torch.inference_mode()
def step(vlm: VisionLanguageModel, tokenizer: PolicyTokenizer, state: TextState, limit: int) -> TextState:
    """Take the next token into the text, or set `stop`. The given state's caches are used up."""
    if state.stop:
        return state
    if state.next_id >= vlm.first_query_id:
        return replace(state, stop="query")
    if state.next_id in tokenizer.stop_ids:
        return replace(state, stop="end")
    if len(state.token_ids) >= limit:
        return replace(state, stop="length")
    embeds_11H = vlm.embed(_ids([state.next_id], vlm.query_embed.device))
    position = state.n_cached if state.shared else None
    hidden_11H, sums = _advance(vlm, embeds_11H, state.base_cache, state.cache, position)
    return replace(
        state,
        token_ids=(*state.token_ids, state.next_id),
        next_id=_greedy(vlm, hidden_11H),
        gate_sum=_add(state.gate_sum, sums),
        n_cached=state.n_cached + 1,
    )


def stream(
    vlm: VisionLanguageModel,
    tokenizer: PolicyTokenizer,
    prompt_1SH: Tensor,
    max_new_tokens: int,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[TextState]:
    """Yield the state after the prompt and after each token; the last one has `stop` set.

    `should_stop` is asked before every token. The text never grows past the model's context.
    """
    room = vlm.config.language.max_position - prompt_1SH.shape[1] - vlm.config.n_queries - 1
    limit = max(0, min(max_new_tokens, room))
    state = prefill(vlm, prompt_1SH)
    while True:
        yield state
        if state.stop:
            return
        if should_stop is not None and should_stop():
            state = replace(state, stop="asked")
            continue
        state = step(vlm, tokenizer, state, limit)


def query_tail(tokenizer: PolicyTokenizer, text_ids: Sequence[int]) -> list[int]:
    """Ids that follow the text: a space unless the text is empty or ends in one, then the queries."""
    text = tokenizer.decode(text_ids)
    separator = tokenizer.encode(" ") if text_ids and not text.endswith((" ", "\n")) else []
    return [*separator, *tokenizer.query_ids]


@torch.inference_mode()
def latents_after(vlm: VisionLanguageModel, tokenizer: PolicyTokenizer, state: TextState) -> Latents:
    """All queries in one forward over the text's caches, which stay as they are."""
    if state.prompt_1SH is not None:
        return latents_of_text(vlm, tokenizer, state.prompt_1SH, state.text_ids)
    return latents_behind(vlm, state, query_tail(tokenizer, state.token_ids))


@torch.inference_mode()
def extend(vlm: VisionLanguageModel, embeds_1SH: Tensor, state: TextState) -> Tensor:
    """Append given tokens to the state's caches, as if they had been written -> hidden [1, S, H]."""
    return _advance(vlm, embeds_1SH, state.base_cache, state.cache)[0]


@torch.inference_mode()
def latents_behind(vlm: VisionLanguageModel, state: TextState, tail: Sequence[int]) -> Latents:
    """Append `tail`, whose last ids are the queries, to copies of the text's caches."""
    embeds_1SH = vlm.embed(_ids(tail, vlm.query_embed.device))
    hidden_1SH, sums = _advance(vlm, embeds_1SH, fork(state.base_cache), fork(state.cache))
    total = state.n_cached + len(tail)
    return Latents(hidden_1SH[:, -vlm.config.n_queries :], tuple(s / total for s in _add(state.gate_sum, sums)))


@torch.inference_mode()
def latents_of_text(
    vlm: VisionLanguageModel,
    tokenizer: PolicyTokenizer,
    prompt_1SH: Tensor,
    text_ids: Sequence[int] | None = None,
) -> Latents:
    """Encode prompt, text (None: no text was asked for) and queries at once, without a cache."""
    tail_1SH = vlm.embed(_ids(_after_prompt(vlm, tokenizer, text_ids), vlm.query_embed.device))
    embeds_1SH = torch.cat([prompt_1SH, tail_1SH], dim=1)
    hidden_1SH, sums = _advance(vlm, embeds_1SH, None, None)
    return Latents(hidden_1SH[:, -vlm.config.n_queries :], tuple(s / embeds_1SH.shape[1] for s in sums))


def _after_prompt(vlm: VisionLanguageModel, tokenizer: PolicyTokenizer, text_ids: Sequence[int] | None) -> list[int]:
    if text_ids is None:
        return list(tokenizer.query_ids)
    if vlm.config.text_cache == "shared":  # as the released code: the text as a string, and always a space
        return [*tokenizer.encode(tokenizer.decode(text_ids) + " "), *tokenizer.query_ids]
    return [*text_ids, *query_tail(tokenizer, text_ids)]
