"""The numbers of Eagle2-2B's config.json that no tensor tells, in both directions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from instructvla_model.config import ConfigError, PolicyConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.released.sources import read_json

CONFIG_FILE = "config.json"
# keys of llm_config that change the mathematics, with the one value that this library has
_LARGEST = 1 << 24
_ONLY = {"hidden_act": "silu", "use_sliding_window": False, "rope_scaling": None}


def with_backbone_numbers(folder: Path, config: PolicyConfig) -> PolicyConfig:
    """`config` with the numbers of Eagle2-2B's config.json that no tensor tells.

    Raises CheckpointError for a layout of the vision tower that this library does not have.
    """
    path = folder / CONFIG_FILE
    values = read_json(path)
    words, vision = values.get("llm_config"), values.get("vision_config")
    if not isinstance(words, dict) or not isinstance(vision, dict):
        raise CheckpointError(f"{path} lacks llm_config or vision_config; expected Eagle2-2B's configuration")
    for name, expected in (("select_layer", -1), ("downsample_ratio", 1.0 / config.vision.shuffle)):
        if values.get(name, expected) != expected:
            raise CheckpointError(f"{path}: {name} is {values[name]}; expected {expected}; no other is supported")
    for name, only in _ONLY.items():
        if words.get(name) not in (only, None, {"rope_type": "default"}):
            raise CheckpointError(f"{path}: {name} is {words[name]!r}; expected {only!r}; no other is supported")
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
        if kind is int and not 1 <= value <= _LARGEST:
            raise TypeError(f"{theirs} is {value}; expected 1 to {_LARGEST}")
        changes[ours] = value
    return replace(config, **changes)


def backbone_json(config: PolicyConfig) -> dict[str, Any]:
    """config.json of a backbone with these numbers: what Eagle2-2B's own has, apart from how to run its code."""
    return {
        "architectures": ["Eagle2ChatModel"],
        "model_type": "eagle_chat",
        "template": "qwen2-chat",
        "force_image_size": config.vision.image_size,
        "select_layer": -1,
        "downsample_ratio": 1.0 / config.vision.shuffle,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "num_hidden_layers": config.language.n_layers,
            "vocab_size": config.language.vocab_size,
            **{theirs: getattr(config.language, ours) for theirs, ours in LANGUAGE_KEYS.items()},
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "num_channels": 3,
            "num_hidden_layers": config.vision.n_layers,
            **{theirs: getattr(config.vision, ours) for theirs, ours in VISION_KEYS.items()},
        },
    }
