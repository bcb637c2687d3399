"""Registry of presets: functions that return a PolicyConfig. Presets differ in numbers only."""

from __future__ import annotations

from collections.abc import Callable

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


PRESETS: dict[str, Callable[[], PolicyConfig]] = {"nano": nano, "tiny": tiny}


def preset(name: str) -> PolicyConfig:
    """The preset of that name; ConfigError lists the known names otherwise."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} does not exist; expected one of {sorted(PRESETS)}")
    return PRESETS[name]()
