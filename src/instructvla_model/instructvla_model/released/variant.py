"""What released tensors say about the policy they belong to: stage, queries, horizon, state, adapters, sizes.

Nothing here guesses a regime: that is named by whoever imports. The number of cameras is in no tensor; the released
files of eight steps are those for LIBERO, with two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from instructvla_model.config import ConfigError, PolicyConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.released.layout import EMBED, GATE, HEAD, LANGUAGE
from instructvla_model.released.sources import Source, read_json

LIBERO_HORIZON = 8
LIBERO_VIEWS = ("primary", "wrist")
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


def _is_tied(source: Source, language: str, named_so: bool) -> bool:
    """One table for both ends: there is no second, or the configuration says so and the two are equal."""
    if language + HEAD not in source.names:
        return True
    return named_so and torch.equal(source.tensor(language + HEAD), source.tensor(language + EMBED))


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that the pattern finds; 0 where it finds none."""
    return max((int(m.group(1)) + 1 for n in names if (m := re.search(pattern, n))), default=0)


def with_variant(source: Source, config: PolicyConfig, n_tokens: int) -> PolicyConfig:
    """`config` with what the tensors tell. `n_tokens`: size of the tokenizer without queries.

    Sizes that no tensor tells apart (heads, rotation) stay as they are. Raises CheckpointError.
    """
    stage, names = stage_of(source), source.names
    language = LANGUAGE[stage]
    rows = source.shape(language + EMBED)[0]
    vocabulary = replace(
        config.language,
        vocab_size=n_tokens,
        n_layers=_count(names, re.escape(language) + r"model\.layers\.(\d+)\."),
        tie_embeddings=_is_tied(source, language, config.language.tie_embeddings),
    )
    vision = replace(config.vision, n_layers=_count(names, r"^vision_model\..*\.encoder\.layers\.(\d+)\."))
    config = replace(config, language=vocabulary, vision=vision)
    if not any(name.startswith("action_model.") for name in names):
        return config
    if rows <= n_tokens:
        raise CheckpointError(
            f"{source.path}: {language + EMBED!r} has {rows} rows for a tokenizer of {n_tokens} tokens; expected more "
            "rows, the last being the latent queries; give the tokenizer it was trained with"
        )
    return _with_adapters(source, stage, _with_expert(source, replace(config, n_queries=rows - n_tokens)))


def _shape(source: Source, name: str) -> tuple[int, ...]:
    if name not in source.names:
        raise CheckpointError(f"{source.path} lacks tensor {name!r}; expected a whole action expert")
    return source.shape(name)


def _with_expert(source: Source, config: PolicyConfig) -> PolicyConfig:
    outputs = _shape(source, _HEAD + "6.bias")[0]
    horizon, rest = divmod(outputs, config.expert.action_dim)
    if rest or not horizon:
        raise CheckpointError(
            f"{source.path}: {_HEAD + '6.bias'!r} has {outputs} numbers; expected a multiple of "
            f"{config.expert.action_dim}, the numbers of an action"
        )
    state = "action_model.state_embed.0.weight"
    expert = replace(
        config.expert,
        horizon=horizon,
        state_dim=source.shape(state)[1] if state in source.names else 0,
        n_layers=_count(source.names, r"^action_model\.VideoGPT\.model\.layers\.(\d+)\."),
        head_widths=tuple(_shape(source, f"{_HEAD}{i}.bias")[0] for i in (0, 2, 4)),
    )
    depth = _count(source.names, r"^action_model\.film_vision_model\..*blocks\.(\d+)\.")
    film = replace(config.film, depth=depth)
    views = LIBERO_VIEWS if horizon == LIBERO_HORIZON else config.views
    return with_views(replace(config, expert=expert, film=film), views)


def with_views(config: PolicyConfig, views: tuple[str, ...]) -> PolicyConfig:
    """`config` for these cameras; the released code shows several to the VLM side by side."""
    return replace(config, views=views, vlm_input="side_by_side" if len(views) > 1 else "first_view")


def _with_adapters(source: Source, stage: str, config: PolicyConfig) -> PolicyConfig:
    if stage == "base":
        return config
    ranks = {name: source.shape(name)[0] for name in source.names if ".lora_A." in name}
    if len(set(ranks.values())) != 1:
        name = min(ranks, key=lambda n: ranks[n], default="lora_A")
        raise CheckpointError(
            f"{source.path}: adapters of ranks {sorted(set(ranks.values()))} ({name!r}); expected one"
        )
    rank = next(iter(ranks.values()))
    adapters = replace(config.adapters, rank=rank, alpha=config.adapters.scale * rank)
    if stage == "generalist":
        adapters = replace(adapters, gate_size=_shape(source, GATE + "layers.0.bias")[0])
    return replace(config, adapters=adapters)


def with_backbone_numbers(folder: Path, config: PolicyConfig) -> PolicyConfig:
    """`config` with the numbers of Eagle2-2B's config.json that no tensor tells.

    Raises CheckpointError for a layout of the vision tower that this library does not have.
    """
    path = folder / "config.json"
    values = read_json(path)
    words, vision = values.get("llm_config"), values.get("vision_config")
    if not isinstance(words, dict) or not isinstance(vision, dict):
        raise CheckpointError(f"{path} lacks llm_config or vision_config; expected Eagle2-2B's configuration")
    for name, expected in (("select_layer", -1), ("downsample_ratio", 1.0 / config.vision.shuffle)):
        if values.get(name, expected) != expected:
            raise CheckpointError(f"{path}: {name} is {values[name]}; expected {expected}; no other is supported")
    try:
        return replace(
            config,
            language=_replaced(config.language, words, LANGUAGE_KEYS),
            vision=_replaced(config.vision, vision, VISION_KEYS),
        )
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


LANGUAGE_KEYS = {
    "hidden_size": "hidden_size",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "mlp_size",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_eps",
    "max_position_embeddings": "max_position",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "initializer_range",
}
VISION_KEYS = {
    "hidden_size": "hidden_size",
    "num_attention_heads": "n_heads",
    "intermediate_size": "mlp_size",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_act": "activation",
}


def _replaced(config: Any, values: dict[str, Any], keys: dict[str, str]) -> Any:
    """The dataclass with the values that are there, each of the type it has already (an int may be a float)."""
    changes = {}
    for theirs, ours in keys.items():
        if theirs not in values:
            continue
        kind = type(getattr(config, ours))
        value = float(values[theirs]) if kind is float and type(values[theirs]) is int else values[theirs]
        if type(value) is not kind:
            raise TypeError(f"{theirs} is {value!r}; expected a {kind.__name__}")
        changes[ours] = value
    return replace(config, **changes)
