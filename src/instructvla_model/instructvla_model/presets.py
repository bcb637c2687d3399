"""Registry of presets: functions that return a PolicyConfig. Presets differ in numbers only.

The full-size presets are the paper's. `in_regime(config, "reference")` gives the same policy with the values that
the authors' released code has in place of the paper's; nothing else in the library tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from instructvla_model.config import (
    AdapterConfig,
    ConfigError,
    ExpertConfig,
    FilmVitConfig,
    LanguageConfig,
    PolicyConfig,
    VisionConfig,
)


def nano() -> PolicyConfig:
    """Trains from random initialisation on two CPU cores; runs at tens of hertz on one."""
    return PolicyConfig(
        name="nano",
        vision=VisionConfig(
            image_size=112,
            patch_size=8,
            stem_layers=3,
            hidden_size=128,
            n_layers=2,
            n_heads=2,
            mlp_size=384,
            activation="gelu",
        ),
        language=LanguageConfig(
            vocab_size=1536,
            hidden_size=192,
            n_layers=4,
            n_heads=6,
            n_kv_heads=2,
            mlp_size=512,
            rope_theta=1e4,
            max_position=512,
        ),
        adapters=AdapterConfig(rank=32, alpha=64.0, dropout=0.0, gate_size=64, gate_dropout=0.0),
        film=FilmVitConfig(
            image_size=112,
            patch_size=8,
            stem_layers=3,
            shuffle=2,
            dim=128,
            depth=3,
            n_heads=2,
            mlp_size=384,
            n_registers=2,
            layer_scale_init=1.0,
            film_init_std=0.02,
        ),
        expert=ExpertConfig(
            dim=128,
            n_layers=4,
            n_heads=4,
            mlp_size=384,
            horizon=8,
            head_widths=(512, 256, 128),
            state_dim=8,
        ),
        n_queries=8,
        views=("primary",),
        vlm_recipe="nano_area",
        expert_recipe="nano_area",
        system_message=None,
        lowercase_instructions=True,
    )


def tiny() -> PolicyConfig:
    """Smallest shape with every feature on: for tests and debug recipes."""
    return PolicyConfig(
        name="tiny",
        vision=VisionConfig(
            image_size=32,
            patch_size=4,
            stem_layers=2,
            hidden_size=16,
            n_layers=1,
            n_heads=2,
            mlp_size=32,
            activation="gelu",
        ),
        language=LanguageConfig(
            vocab_size=320,
            hidden_size=24,
            n_layers=2,
            n_heads=4,
            n_kv_heads=2,
            mlp_size=48,
            rope_theta=1e4,
            max_position=512,
        ),
        adapters=AdapterConfig(rank=4, alpha=8.0, dropout=0.0, gate_size=8, gate_dropout=0.0),
        film=FilmVitConfig(
            image_size=32,
            patch_size=8,
            dim=16,
            depth=2,
            n_heads=2,
            mlp_size=32,
            n_registers=2,
            layer_scale_init=1.0,
            film_init_std=0.02,
        ),
        expert=ExpertConfig(
            dim=16,
            n_layers=2,
            n_heads=2,
            mlp_size=32,
            horizon=4,
            head_widths=(32, 24, 16),
            state_dim=8,
        ),
        n_queries=4,
        vlm_recipe="nano_area",
        expert_recipe="nano_area",
        system_message=None,
        lowercase_instructions=True,
    )


def two_b() -> PolicyConfig:
    """Full size: Eagle2-2B and DINOv2-L, one camera, no state, 16 steps.

    The vocabulary's size is that of Eagle2-2B's tokenizer; an import takes it from the file.
    """
    return PolicyConfig(
        name="2b",
        vision=VisionConfig(
            image_size=448, patch_size=14, hidden_size=1152, n_layers=27, n_heads=16, mlp_size=4304
        ),
        language=LanguageConfig(
            vocab_size=151674,
            hidden_size=1536,
            n_layers=28,
            n_heads=12,
            n_kv_heads=2,
            mlp_size=8960,
            max_position=32768,
        ),
        adapters=AdapterConfig(),
        film=FilmVitConfig(image_size=224, patch_size=14, dim=1024, depth=24, n_heads=16, mlp_size=4096),
        expert=ExpertConfig(
            dim=768, n_layers=12, n_heads=12, mlp_size=3072, horizon=16, head_widths=(3072, 1536, 384)
        ),
        n_queries=64,
        vlm_recipe="siglip_squash",
        expert_recipe="dino_squash",
        strip_instructions=False,
    )  # fmt: skip


def two_b_state() -> PolicyConfig:
    """`2b` with a token for the arm's state."""
    config = two_b()
    return replace(config, name="2b-state", expert=replace(config.expert, state_dim=8))


def two_b_libero() -> PolicyConfig:
    """`2b` for LIBERO: two cameras, which the VLM sees side by side, 8 steps at 20 Hz."""
    config = two_b()
    return replace(
        config,
        name="2b-libero",
        expert=replace(config.expert, horizon=8),
        views=("primary", "wrist"),
        vlm_input="side_by_side",
        lowercase_instructions=True,
        dt_s=0.05,
    )


PRESETS: dict[str, Callable[[], PolicyConfig]] = {
    "nano": nano,
    "tiny": tiny,
    "2b": two_b,
    "2b-state": two_b_state,
    "2b-libero": two_b_libero,
}


def preset(name: str) -> PolicyConfig:
    """The preset of that name; ConfigError lists the known names otherwise."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} does not exist; expected one of {sorted(PRESETS)}")
    return PRESETS[name]()


# ---- the paper's values and the released code's --------------------------------------------------------


_WHOLE_IMAGE = ("nano_area", "siglip_squash", "dino_squash")  # recipes that are the paper's already


def _paper(config: PolicyConfig) -> PolicyConfig:
    return replace(
        config,
        film=replace(config.film, n_blocks_used=None, final_norm=True),
        expert=replace(config.expert, attention="block_causal", dropout=0.0),
        flow=replace(config.flow, state_dtype="float32"),
        vlm_recipe=config.vlm_recipe if config.vlm_recipe in _WHOLE_IMAGE else "siglip_squash",
        expert_recipe=config.expert_recipe if config.expert_recipe in _WHOLE_IMAGE else "dino_squash",
        text_cache="clean",
        binary_gripper=False,
    )


def _reference(config: PolicyConfig) -> PolicyConfig:
    vlm_recipe, expert_recipe = "siglip_center_crop", "dino_center_crop"  # its evaluation without state
    if config.expert.state_dim:
        vlm_recipe, expert_recipe = "siglip_squash", "dino_crop"
    elif len(config.views) > 1:
        vlm_recipe, expert_recipe = "siglip_libero", "dino_libero"
    return replace(
        config,
        film=replace(config.film, n_blocks_used=min(3, config.film.depth), final_norm=False),
        expert=replace(config.expert, attention="additive_bias", dropout=0.1),
        flow=replace(config.flow, state_dtype="latents"),
        vlm_recipe=vlm_recipe,
        expert_recipe=expert_recipe,
        text_cache="shared",
        binary_gripper=True,
    )


REGIMES: dict[str, Callable[[PolicyConfig], PolicyConfig]] = {"paper": _paper, "reference": _reference}


def in_regime(config: PolicyConfig, name: str) -> PolicyConfig:
    """The same policy under the paper's values or the released code's; ConfigError lists the names otherwise."""
    if name not in REGIMES:
        raise ConfigError(f"regime {name!r} does not exist; expected one of {sorted(REGIMES)}")
    return REGIMES[name](config)
