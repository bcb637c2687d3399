"""What released tensors say about the policy they belong to: stage, queries, horizon, state, adapters, sizes.

Nothing here guesses a regime: that is named by whoever imports. Cameras and the duration of a step are in no tensor:
they are the preset's, which must therefore have the file's horizon and state.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.presets import PRESETS
from instructvla_model.released.layout import EMBED, GATE, HEAD, LANGUAGE
from instructvla_model.released.sources import Source, shape_of

MOST_LAYERS, MOST_QUERIES, MOST_ADAPTERS = 128, 1024, 16  # more are refused before anything is built for them
_HEAD = "action_model.action_head."


def stage_of(source: Source) -> str:
    """The stage whose layout the language model's names have."""
    found = [s for s in ("generalist", "expert") if any(n.startswith(LANGUAGE[s]) for n in source.names)]
    plain = LANGUAGE["base"] + EMBED in source.names
    if len(found) + plain != 1:
        raise CheckpointError(
            f"{source.path} has language models of {len(found) + plain} layouts; expected one of {sorted(LANGUAGE)}: "
            "this is no released file of this model"
        )
    return found[0] if found else "base"


def has_expert(source: Source) -> bool:
    """Whether the file holds a whole policy, not a vision-language model alone."""
    return any(name.startswith("action_model.") for name in source.names)


def holds_queries(source: Source, n_tokens: int) -> bool:
    """Whether the token tables end in the latent queries: in all but a backbone's own files."""
    rows = shape_of(source, LANGUAGE[stage_of(source)] + EMBED, 2)[0]
    return has_expert(source) or (not source.padded and rows > n_tokens)


def _is_tied(source: Source, language: str, named_so: bool) -> bool:
    """One table for both ends: there is no second, or the configuration says so and the two are equal."""
    if language + HEAD not in source.names:
        return True
    return named_so and torch.equal(source.tensor(language + HEAD), source.tensor(language + EMBED))


def _count(source: Source, pattern: str) -> int:
    """How many numbers from 0 on the pattern finds in the names. Raises CheckpointError if one is left out."""
    found = {m.group(1) for n in source.names if (m := re.search(pattern, n))}
    strange = sorted(found - {str(i) for i in range(min(len(found), MOST_LAYERS))})
    if strange:
        name = next(n for n in source.names if (m := re.search(pattern, n)) and m.group(1) == strange[0])
        raise CheckpointError(
            f"{source.path} holds tensor {name!r} among {len(found)} layers; expected layers 0 onwards without a gap, "
            f"at most {MOST_LAYERS}; it is incomplete, or another model's"
        )
    return len(found)


def with_variant(source: Source, config: PolicyConfig, n_tokens: int) -> PolicyConfig:
    """`config` with what the tensors tell. `n_tokens`: size of the tokenizer without queries.

    Sizes that no tensor tells apart (heads, rotation), cameras and times stay as they are. Raises CheckpointError, also
    for a policy whose horizon or state is not the preset's.
    """
    stage = stage_of(source)
    language = LANGUAGE[stage]
    rows = shape_of(source, language + EMBED, 2)[0]
    words = replace(
        config.language,
        vocab_size=n_tokens,
        n_layers=_count(source, re.escape(language) + r"model\.layers\.(\d+)\."),
        tie_embeddings=_is_tied(source, language, config.language.tie_embeddings),
    )
    vision = replace(config.vision, n_layers=_count(source, r"^vision_model\..*\.encoder\.layers\.(\d+)\."))
    config = replace(config, language=words, vision=vision)
    if holds_queries(source, n_tokens):
        if not 0 < rows - n_tokens <= MOST_QUERIES:
            raise CheckpointError(
                f"{source.path}: {language + EMBED!r} has {rows} rows for a tokenizer of {n_tokens} tokens; expected 1 "
                f"to {MOST_QUERIES} more, the latent queries; give the tokenizer it was trained with"
            )
        config = replace(config, n_queries=rows - n_tokens)
    if has_expert(source):
        config = _with_expert(source, config)
    return config if stage == "base" else _with_adapters(source, stage, config)


def _with_expert(source: Source, config: PolicyConfig) -> PolicyConfig:
    outputs = shape_of(source, _HEAD + "6.bias", 1)[0]
    horizon, rest = divmod(outputs, config.expert.action_dim)
    if rest or not horizon:
        raise CheckpointError(
            f"{source.path}: {_HEAD + '6.bias'!r} has {outputs} numbers; expected a multiple of "
            f"{config.expert.action_dim}, the numbers of an action"
        )
    state = "action_model.state_embed.0.weight"
    state_dim = shape_of(source, state, 2)[1] if state in source.names else 0
    if (horizon, state_dim) != (config.expert.horizon, config.expert.state_dim):
        raise _another_preset(source, config, horizon, state_dim)
    widths = [shape_of(source, f"{_HEAD}{i}.bias", 1)[0] for i in (0, 2, 4)]
    expert = replace(
        config.expert,
        n_layers=_count(source, r"^action_model\.VideoGPT\.model\.layers\.(\d+)\."),
        head_widths=(widths[0], widths[1], widths[2]),
    )
    film = replace(config.film, depth=_count(source, r"^action_model\.film_vision_model\..*blocks\.(\d+)\."))
    return replace(config, expert=expert, film=film)


def _another_preset(source: Source, config: PolicyConfig, horizon: int, state_dim: int) -> CheckpointError:
    """The refusal of a preset with another horizon or state, which also has other cameras or times."""

    def words(steps: int, state: int) -> str:
        return f"{steps} steps and {f'a state of {state} numbers' if state else 'no state'}"

    fitting = [
        repr(name)
        for name, make in PRESETS.items()
        if (make().expert.horizon, make().expert.state_dim) == (horizon, state_dim)
        and make().language.hidden_size == config.language.hidden_size
    ]
    mend = f"give the preset {' or '.join(fitting)}" if fitting else "no preset has both: write one (presets.py)"
    return CheckpointError(
        f"{source.path} is a policy of {words(horizon, state_dim)}; preset {config.name!r} has "
        f"{words(config.expert.horizon, config.expert.state_dim)}, and cameras and times to match; {mend}"
    )


def with_views(config: PolicyConfig, views: tuple[str, ...]) -> PolicyConfig:
    """`config` for these cameras; the released code shows several to the VLM side by side."""
    return replace(config, views=views, vlm_input="side_by_side" if len(views) > 1 else "first_view")


def _with_adapters(source: Source, stage: str, config: PolicyConfig) -> PolicyConfig:
    ranks = {name: shape_of(source, name, 2)[0] for name in source.names if ".lora_A." in name}
    if len(set(ranks.values())) != 1 or 0 in ranks.values():
        name = min(ranks, key=lambda n: ranks[n], default="lora_A")
        raise CheckpointError(
            f"{source.path}: adapters of ranks {sorted(set(ranks.values()))} ({name!r}); expected one"
        )
    rank = next(iter(ranks.values()))
    adapters = replace(config.adapters, rank=rank, alpha=config.adapters.scale * rank)
    if stage == "generalist":
        adapters = replace(adapters, gate_size=shape_of(source, GATE + "layers.0.bias", 1)[0])
    return replace(config, adapters=adapters)


def mixed_adapters(source: Source) -> int:
    """How many adapters the gate of a stage 2 file mixes. Raises CheckpointError."""
    name = GATE + "layers.9.bias"
    count = shape_of(source, name, 1)[0]
    if not 0 < count <= MOST_ADAPTERS:
        raise CheckpointError(
            f"{source.path}: {name!r} weighs {count} adapters; expected 1 to {MOST_ADAPTERS}; the file is damaged"
        )
    return count
