"""Recipes: functions that return typed configurations. One per checkpoint that the project can make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .trainer import Optimisation


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What the simulation is asked for. Seeds of training scenes start at ``first_seed``; evaluation uses
    seeds below it, so no scene is shared."""

    robot: str = "wx250s"
    stills: int = 16_000
    episodes: int = 1_800
    corrections: int = 600
    families: tuple[str, ...] = ("pick", "place", "near", "stack")
    family_weights: tuple[float, ...] = (0.35, 0.45, 0.1, 0.1)
    noise_probability: float = 0.35  # of a step, in the episodes that are disturbed
    disturbed_fraction: float = 0.7  # of the episodes
    noise_xyz_m: float = 0.012
    noise_yaw_rad: float = 0.12
    shard_episodes: int = 40
    first_seed: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the summed loss; language and flow are 1:1 as in the paper."""

    language: float = 1.0
    flow: float = 1.0
    expert_pointing: float = 0.3
    vlm_pointing: float = 0.3
    location: float = 0.5
    patches: float = 0.3


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One training stage. ``groups`` images (VLM passes) a step, each with ``expert_frames`` later frames that
    use its latents (0..``max_latent_age`` steps later, as the running graph does), each frame with ``draws``
    noise draws of the flow loss. ``still_groups`` more images are stills: text and pointing, no action."""

    stage: str  # "base" | "expert" | "generalist"
    preset: str
    optimisation: Optimisation
    groups: int = 32
    still_groups: int = 0
    expert_frames: int = 2
    max_latent_age: int = 4
    draws: int = 4
    weights: LossWeights = field(default_factory=LossWeights)
    # shares of the prompts, reference §5.3 (they need not sum to 1)
    prompts: tuple[tuple[str, float], ...] = (("action", 0.8), ("motion", 0.2))
    still_prompts: tuple[tuple[str, float], ...] = ()  # of the stills; empty: as ``prompts``
    multimodal_ratio: float = 0.0  # plain question-answer samples per action sample (paper: 1:7)
    vision_frozen: bool = True
    data: DataRecipe = field(default_factory=DataRecipe)
    start: str = ""
    """Checkpoint to start from, below the root; "" is the one of the stage before."""
    corrections_at: int | None = None
    """After so many steps the policy itself drives and the demonstrator corrects it; the rest trains on both."""


def nano_base() -> StageRecipe:
    """Pre-training of the nano backbones on rendered stills: captions, questions, pointing, patch classes.

    Stands where Eagle2 and DINOv2 come pre-trained for the full-size preset.
    """
    return StageRecipe(
        stage="base",
        preset="nano",
        optimisation=Optimisation(steps=1_800, learning_rate=1.5e-3, warmup_steps=100),
        groups=48,
        expert_frames=1,
        prompts=(("point", 0.45), ("qa", 0.25), ("caption", 0.1), ("knowledge", 0.2)),
        vision_frozen=False,
    )


def nano_expert() -> StageRecipe:
    """Stage 1: actions and language motion from atomic instructions. Action LoRA, queries and expert train."""
    return StageRecipe(
        stage="expert",
        preset="nano",
        optimisation=Optimisation(steps=4_000, learning_rate=1.0e-3, warmup_steps=150),
        prompts=(("action", 0.8), ("motion", 0.2)),
        still_groups=8,
        corrections_at=2_000,
    )


def nano_franka() -> StageRecipe:
    """Stage 1 again, few-shot on another arm: 50 demonstrations of the Franka, from the WidowX checkpoint.

    Actions and states keep their normalisation, but for the place of the base. All demonstrations are disturbed: few as
    they are, each shows how to come back.
    """
    return StageRecipe(
        stage="expert",
        preset="nano",
        optimisation=Optimisation(steps=800, learning_rate=4.0e-4, warmup_steps=50, save_every=200),
        prompts=(("action", 0.8), ("motion", 0.2)),
        still_groups=8,
        data=DataRecipe(
            robot="fr3", episodes=50, stills=2_000, shard_episodes=10,
            families=("pick", "place"), family_weights=(0.45, 0.55), disturbed_fraction=1.0,
        ),
        start="checkpoints/nano-expert",
    )


def nano_generalist() -> StageRecipe:
    """Stage 2: instruction tuning. Both LoRAs and the gate train, the expert is frozen.

    Text is what this stage has to learn and a still costs no flow loss, so most images are stills whose
    instructions must be thought about.
    """
    return StageRecipe(
        stage="generalist",
        preset="nano",
        optimisation=Optimisation(steps=4_000, learning_rate=2.5e-3, warmup_steps=100),
        prompts=(
            ("action", 0.2),
            ("motion", 0.05),
            ("qa_action", 0.05),
            ("think", 0.1),
            ("situated", 0.3),
            ("rewrite", 0.3),
        ),
        still_prompts=(("think", 0.08), ("situated", 0.37), ("rewrite", 0.55)),
        groups=16,
        still_groups=64,
        expert_frames=1,
        multimodal_ratio=1 / 7,
    )


STAGE_1_PROMPTS = (("action", 0.8), ("motion", 0.2))
"""Reference §5.3: the language motion is asked for in a fifth of the prompts."""
STAGE_2_PROMPTS = (("action", 0.32), ("motion", 0.08), ("qa_action", 0.2), ("situated", 0.2), ("rewrite", 0.2))
"""Reference §5.3: two fifths as in stage 1, the rest in equal parts question, situation, rewritten command."""
MULTIMODAL_RATIO = 1 / 7
"""Plain question-answer samples per action sample (paper)."""


def finetune(preset: str, stage: str, steps: int = 2_000, multimodal_ratio: float = 0.0) -> StageRecipe:
    """On recorded datasets, from a checkpoint of ``stage``: a constant small rate after a short warm-up (paper)."""
    return StageRecipe(
        stage=stage,
        preset=preset,
        optimisation=Optimisation(steps=steps, learning_rate=2.0e-4, warmup_steps=50, final_fraction=1.0),
        groups=16,
        prompts=STAGE_1_PROMPTS if stage == "expert" else STAGE_2_PROMPTS,
        multimodal_ratio=multimodal_ratio,
    )


def debug(stage: str = "expert") -> StageRecipe:
    """The same stages in seconds, for tests and for a first look at the machinery."""
    full = RECIPES[f"nano-{stage}"]()
    optimisation = replace(full.optimisation, steps=4, warmup_steps=1, log_every=1, save_every=2)
    stills = min(full.still_groups, 2)
    return replace(
        full, preset="tiny", optimisation=optimisation, groups=2, still_groups=stills, expert_frames=1, draws=2,
        corrections_at=None,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], StageRecipe]] = {
    "nano-base": nano_base,
    "nano-expert": nano_expert,
    "nano-franka": nano_franka,
    "nano-generalist": nano_generalist,
}
