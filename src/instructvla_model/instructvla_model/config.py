"""Frozen configuration of one policy. Presets (presets.py) differ in these numbers only.

Every difference between the paper and the released checkpoints is a named value here, never inferred
(`ExpertConfig.attention`, `FilmVitConfig.n_blocks_used`, the image recipes).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

ATTENTION_REGIMES = ("block_causal", "additive_bias")
TEXT_CACHES = ("clean", "shared")
VLM_INPUTS = ("first_view", "side_by_side")
STATE_DTYPES = ("float32", "latents")


class ConfigError(ValueError):
    """A configuration value that cannot work; the message says found, expected and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """SigLIP-type tower of the VLM, pixel shuffle and projector."""

    image_size: int
    patch_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    mlp_size: int
    stem_layers: int = 0  # 0 = patch convolution; n = n stride-2 3x3 convolutions (2**n == patch_size)
    shuffle: int = 2  # pixel shuffle side: 2 means scale 0.5, four patches per token
    layer_norm_eps: float = 1e-6
    activation: str = "gelu_pytorch_tanh"

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens_per_image(self) -> int:
        return (self.patches_per_side // self.shuffle) ** 2


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Qwen2-type language model. `vocab_size` excludes the query tokens, which follow it directly."""

    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlp_size: int
    rope_theta: float = 1e6
    rms_eps: float = 1e-6
    max_position: int = 16384
    tie_embeddings: bool = False
    initializer_range: float = 0.02


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA adapters by name, and the gate that mixes them."""

    names: tuple[str, ...] = ("action", "language")
    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    gate_size: int = 128
    gate_dropout: float = 0.2

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True, kw_only=True)
class FilmVitConfig:
    """DINOv2-type tower of the expert, conditioned by FiLM on the mean latent."""

    image_size: int
    patch_size: int
    dim: int
    depth: int
    n_heads: int
    mlp_size: int
    n_registers: int = 4
    stem_layers: int = 0
    shuffle: int = 1  # side of the cells of patches folded into one token for the trunk; 1 = none
    n_blocks_used: int | None = None  # None = all; the released checkpoints use 3
    final_norm: bool = True  # the released checkpoints read the block output without it
    layer_norm_eps: float = 1e-6
    layer_scale_init: float = 1e-5
    film_init_std: float | None = None  # None = the default of nn.Linear
    conditioned: bool = True  # False: every image is encoded under the same FiLM (ablation)

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens_per_image(self) -> int:
        return (self.patches_per_side // self.shuffle) ** 2

    @property
    def token_dim(self) -> int:
        return self.dim * self.shuffle**2

    @property
    def blocks_used(self) -> int:
        return self.n_blocks_used or self.depth

    @property
    def has_norm(self) -> bool:
        """The released files hold a final norm that nothing reads; it goes where their unread blocks go."""
        return self.final_norm or self.blocks_used < self.depth


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Flow-matching action expert."""

    dim: int
    n_layers: int
    n_heads: int
    mlp_size: int
    horizon: int
    head_widths: tuple[int, int, int]
    action_dim: int = 7
    state_dim: int = 0  # 0 = no proprioception token
    attention: str = "block_causal"
    rope_theta: float = 1000.0
    rms_eps: float = 1e-6
    time_max_period: float = 100.0
    dropout: float = 0.0  # attention dropout (0.1 in the reference's training)
    image_stream: bool = True  # False: no image tokens, it acts from latents and state alone (ablation)
    initializer_range: float = 0.02


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Rectified-flow path: t = 0 is noise, t = 1 is data."""

    sigma_min: float = 0.001
    time_max: float = 0.999
    beta_a: float = 1.5
    beta_b: float = 1.0
    n_steps: int = 10
    state_dtype: str = "float32"  # of sampled actions and clock; "latents": theirs (released evaluations: bfloat16)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Everything needed to build the modules of one policy."""

    name: str
    vision: VisionConfig
    language: LanguageConfig
    film: FilmVitConfig
    expert: ExpertConfig
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    n_queries: int = 64
    views: tuple[str, ...] = ("primary",)
    vlm_recipe: str  # names of image.py; always given: the released recipes differ from those of our own training
    expert_recipe: str
    vlm_input: str = "first_view"  # or all views in one picture, side by side
    text_cache: str = "clean"  # one cache for each stream; "shared": both in one, as in the released evaluations
    binary_gripper: bool = False  # openings are 0 or 1, switched at 0.5
    system_message: str | None = "You are a helpful assistant."  # None drops the system turn
    lowercase_instructions: bool = False  # instructions enter a prompt in lower case
    strip_instructions: bool = True  # spaces become single, and with lower case an end mark goes; False: as given
    dt_s: float = 0.2  # duration of one action step

    def __post_init__(self) -> None:
        check(self)

    @property
    def n_prefix_tokens(self) -> int:
        """Length of the expert's constant prefix: vision, latents and, if any, the state token."""
        n_vision = len(self.views) * self.film.tokens_per_image * self.expert.image_stream
        return n_vision + self.n_queries + (self.expert.state_dim > 0)

    def with_vocab_size(self, vocab_size: int) -> PolicyConfig:
        """The same policy for a tokenizer of `vocab_size` tokens (query tokens not counted)."""
        return dataclasses.replace(self, language=dataclasses.replace(self.language, vocab_size=vocab_size))

    def without_unread_blocks(self) -> PolicyConfig:
        """The same policy without the blocks of the expert's vision tower that nothing reads."""
        return dataclasses.replace(self, film=dataclasses.replace(self.film, depth=self.film.blocks_used))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _require(condition: bool, found: str, expected: str, mend: str) -> None:
    if not condition:
        raise ConfigError(f"{found}; expected {expected}; {mend}")


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_IN_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
_MAY_BE_ZERO = ("n_layers", "stem_layers", "n_registers", "state_dim")


def _check_values(label: str, part: Any) -> None:
    """Each entry of the type that it is declared with; floats finite, counts and sizes at least 1."""
    for entry in dataclasses.fields(part):
        declared, _, optional = str(entry.type).partition(" | ")
        value = getattr(part, entry.name)
        if declared not in _KINDS or (optional and value is None):
            continue
        found, mend = f"{label}{entry.name}={value!r}", "correct it, or restore the manifest"
        fits = isinstance(value, _KINDS[declared]) and (declared == "bool" or not isinstance(value, bool))
        _require(fits, found, _IN_WORDS[declared], mend)
        if declared == "float":
            _require(math.isfinite(value), found, "a finite number", mend)
        if declared == "int":
            least = 0 if entry.name in _MAY_BE_ZERO else 1
            _require(value >= least, found, f"{least} or more", mend)


def check(config: PolicyConfig) -> None:
    """Raise ConfigError on the first value that cannot work."""
    _check_values("", config)
    for label in _NESTED:
        _check_values(f"{label}.", getattr(config, label))
    for label, tower in (("vision", config.vision), ("film", config.film)):
        _require(
            tower.image_size % tower.patch_size == 0,
            f"{label}.image_size={tower.image_size} with patch_size={tower.patch_size}",
            "a multiple of the patch size",
            "change one of the two",
        )
        _require(
            tower.stem_layers == 0 or 2**tower.stem_layers == tower.patch_size,
            f"{label}.stem_layers={tower.stem_layers} with patch_size={tower.patch_size}",
            "0, or the base-2 logarithm of the patch size",
            "change one of the two",
        )
        _require(
            tower.patches_per_side % tower.shuffle == 0,
            f"{label}: {tower.patches_per_side} patches a side with shuffle {tower.shuffle}",
            "patches a side divisible by the shuffle",
            "change the image size",
        )
    for label, width, heads in (
        ("vision", config.vision.hidden_size, config.vision.n_heads),
        ("language", config.language.hidden_size, config.language.n_heads),
        ("film", config.film.dim, config.film.n_heads),
        ("expert", config.expert.dim, config.expert.n_heads),
    ):
        _require(
            width % heads == 0,
            f"{label}: width {width} with {heads} heads",
            "a width divisible by the heads",
            "change one of the two",
        )
    _require(
        config.language.n_heads % config.language.n_kv_heads == 0,
        f"language: {config.language.n_heads} heads with {config.language.n_kv_heads} key/value heads",
        "heads divisible by key/value heads",
        "change one of the two",
    )
    _require(
        config.expert.attention in ATTENTION_REGIMES,
        f"expert.attention={config.expert.attention!r}",
        f"one of {ATTENTION_REGIMES}",
        "correct the name",
    )
    for label, found, names in (
        ("text_cache", config.text_cache, TEXT_CACHES),
        ("vlm_input", config.vlm_input, VLM_INPUTS),
        ("flow.state_dtype", config.flow.state_dtype, STATE_DTYPES),
    ):
        _require(found in names, f"{label}={found!r}", f"one of {names}", "correct the name")
    used = config.film.n_blocks_used
    _require(
        used is None or 1 <= used <= config.film.depth,
        f"film.n_blocks_used={used} with depth {config.film.depth}",
        "None or a number from 1 to the depth",
        "change it",
    )
    _require(
        len(config.expert.head_widths) == 3,
        f"expert.head_widths={config.expert.head_widths}",
        "three widths",
        "give three numbers",
    )
    _require(len(config.views) > 0, "views is empty", "at least one view", 'for example ("primary",)')
    _require(
        all(config.views) and len(set(config.views)) == len(config.views),
        f"views {config.views}",
        "each name once and none empty",
        'for example ("primary", "wrist")',
    )


_NESTED = {
    "vision": VisionConfig,
    "language": LanguageConfig,
    "film": FilmVitConfig,
    "expert": ExpertConfig,
    "adapters": AdapterConfig,
    "flow": FlowConfig,
}


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is a {type(values).__name__}; expected an object; repair the manifest")
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{where} has unknown keys {unknown}; expected only {sorted(known)}; "
            "the file was written by another version"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where} is incomplete: {error}; expected all of {sorted(known)}") from error


def policy_config_from_dict(values: dict[str, Any]) -> PolicyConfig:
    """Inverse of PolicyConfig.to_dict (JSON lists become tuples); unknown keys are refused."""
    if not isinstance(values, dict):
        raise ConfigError(f"config is a {type(values).__name__}; expected an object; repair the manifest")
    parsed = {key: _build(_NESTED[key], value, key) if key in _NESTED else value for key, value in values.items()}
    return _build(PolicyConfig, parsed, "config")
