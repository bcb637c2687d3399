"""Recipes: functions that return typed configurations. One per checkpoint that the project can make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from .optimisation import Optimisation
from .refusals import RunError


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What the simulation is asked for. Seeds of training scenes start at ``first_seed``; evaluation uses
    seeds below it, so no scene is shared."""

    robot: str = "wx250s"
    stills: int = 16_000
    episodes: int = 1_800
    corrections: int = 960
    families: tuple[str, ...] = ("pick", "place", "near", "stack")
    family_weights: tuple[float, ...] = (0.35, 0.45, 0.1, 0.1)
    noise_probability: float = 0.35  # of a step, in the episodes that are disturbed
    disturbed_fraction: float = 0.7  # of the episodes
    noise_xyz_m: float = 0.012
    noise_yaw_rad: float = 0.12
    slip_probability: float = 0.03  # of a step of such an episode: the hand then does the opposite for a while
    shard_episodes: int = 40
    first_seed: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the summed loss; language and flow are 1:1 as in the paper.

    ``padding``: in the flow loss, of steps past an episode's end, where the arm stands still and the gripper keeps its
    last value. At 1 they count as all others (so the reference trains), at 0 they are masked.
    """

    language: float = 1.0
    flow: float = 1.0
    padding: float = 1.0
    expert_pointing: float = 0.3
    vlm_pointing: float = 0.3
    location: float = 0.5
    patches: float = 0.3


PAPER_LOSSES = LossWeights(expert_pointing=0.0, vlm_pointing=0.0, location=0.0, patches=0.0)
"""L_LM + L_FM and nothing else. The other losses need the simulator's ground truth, and backbones from scratch need
them (docs/explanation/nano-recipe.md)."""


Shares = tuple[tuple[str, float], ...]
"""Names with numbers that need not sum to 1."""

STAGE_1_PROMPTS: Shares = (("action", 0.8), ("motion", 0.2))
"""Reference §5.3: the language motion is asked for in a fifth of the prompts."""
STAGE_2_PROMPTS: Shares = (
    ("action", 0.4 * 0.8), ("motion", 0.4 * 0.2), ("qa_action", 0.2), ("situated", 0.2), ("rewrite", 0.2)
)  # fmt: skip
"""Reference §5.3: two fifths as in stage 1, the rest in equal parts question, context creation, command rewriting."""
MULTIMODAL_RATIO = 1 / 7
"""Plain question-answer samples per action sample (paper)."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What an ablation leaves out of the policy; all on is the paper's policy."""

    image_stream: bool = True  # the expert's own DINO tokens; off: it acts from latents and state alone
    film: bool = True  # conditioning of that stream on the latents
    mixture: bool = True  # two adapters with a gate in stage 2; off: one shared LoRA


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One training stage. ``groups`` images (VLM passes) a step, each with ``expert_frames`` later frames that
    use its latents (0..``max_latent_age`` steps later, as the running graph does), each frame with ``draws``
    noise draws of the flow loss. ``still_groups`` more images are stills: text and pointing, no action.
    ``parts``: a step is the mean over so many equal parts of it, shared out among the processes and otherwise computed
    one after the other (gradient accumulation)."""

    stage: str  # "base" | "expert" | "generalist"
    preset: str
    optimisation: Optimisation
    after: str | None = None  # recipe of the same preset whose checkpoint this one starts from
    name: str = ""  # of its run; by default the stage's
    groups: int = 32
    still_groups: int = 0
    parts: int = 1
    expert_frames: int = 2
    max_latent_age: int = 4
    draws: int = 4
    weights: LossWeights = field(default_factory=LossWeights)
    prompts: Shares = STAGE_1_PROMPTS
    still_prompts: Shares = ()  # of the stills; empty: as ``prompts``
    data: DataRecipe = field(default_factory=DataRecipe)
    datasets: Shares = (("demonstrations", 1.0), ("corrections", 1.0))
    """Folders of episodes, with how much more often one frame of it is drawn than one of weight 1."""
    multimodal_ratio: float = 0.0
    cache_images: bool = True  # encode every frame once, before the first step; needs memory for all of them
    start: str = ""
    """Finished checkpoint to start from, below the root, in place of the run ``after``."""
    rehearsal: int = 0
    """With a ``start`` of another robot: so many corrected episodes of its own driving that robot make half of the
    actions, lest the policy forget what few demonstrations do not show."""
    corrections_at: tuple[int, ...] = ()
    """After each of these steps the policy itself drives and the demonstrator corrects it, for an equal share of the
    data's ``corrections``; the rest trains on both (DAgger)."""
    switches: Switches = field(default_factory=Switches)

    @property
    def run_name(self) -> str:
        return self.name or self.stage

    def parts_for(self, processes: int) -> int:
        """Into how many parts a step is divided: the recipe's number, or one for each process."""
        return max(self.parts, processes)

    def part(self, parts: int) -> StageRecipe:
        """What one of ``parts`` equal parts of a step draws. Raises RunError where the groups cannot be divided."""
        if parts < 1 or self.groups % parts or self.still_groups % parts:
            raise RunError(
                f"{self.preset}-{self.run_name}: found {self.groups} groups and {self.still_groups} still groups a "
                f"step for {parts} parts, expected multiples; choose --parts, or as many processes, that divide them"
            )
        return replace(self, groups=self.groups // parts, still_groups=self.still_groups // parts, parts=parts)

    def talks(self, part: int) -> int:
        """Conversations in part number ``part``: the share of the whole step is rounded, at least 1, and dealt out."""
        if not self.multimodal_ratio:
            return 0
        whole = max(1, round(self.groups * self.parts * self.multimodal_ratio))
        return whole * (part + 1) // self.parts - whole * part // self.parts


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
    )


def nano_cloning() -> StageRecipe:
    """Stage 1, first run: behaviour cloning. Action LoRA, queries and expert learn actions and language motion from
    demonstrations of atomic instructions."""
    return StageRecipe(
        stage="expert",
        preset="nano",
        after="base",
        optimisation=Optimisation(steps=2_000, learning_rate=1.0e-3, warmup_steps=150, compile_layers=True),
        name="cloning",
        still_groups=8,
        datasets=(("demonstrations", 1.0),),
    )


def nano_expert() -> StageRecipe:
    """Stage 1, second run: as the first, and from corrections of the policy's own driving (DAgger)."""
    cloning = nano_cloning()
    return replace(
        cloning,
        after="cloning",
        optimisation=replace(cloning.optimisation, steps=3_000),
        name="",
        datasets=(("demonstrations", 1.0), ("corrections", 1.0)),
        corrections_at=(500, 1_500),
    )


def nano_franka() -> StageRecipe:
    """Stage 1 again, few-shot on another arm: 50 demonstrations of the Franka, from the WidowX checkpoint.

    Actions and states keep their normalisation, but for the place of the base. All demonstrations are disturbed: few as
    they are, each shows how to come back. The rest is rehearsed: corrections of the start's driving on the WidowX.
    """
    return StageRecipe(
        stage="expert",
        preset="nano",
        optimisation=Optimisation(steps=500, learning_rate=5.0e-4, warmup_steps=50, save_every=250),
        name="franka",
        still_groups=8,
        data=DataRecipe(
            robot="fr3", episodes=50, stills=2_000, shard_episodes=10,
            families=("pick", "place"), family_weights=(0.45, 0.55), disturbed_fraction=1.0,
        ),
        start="checkpoints/nano-expert",
        rehearsal=200,
    )  # fmt: skip


def nano_generalist() -> StageRecipe:
    """Stage 2: instruction tuning. Both LoRAs and the gate train, the expert is frozen.

    Text is what this stage has to learn and a still costs no flow loss, so most images are stills whose
    instructions must be thought about.
    """
    return StageRecipe(
        stage="generalist",
        preset="nano",
        after="expert",
        optimisation=Optimisation(steps=4_000, learning_rate=2.5e-3, warmup_steps=100, compile_layers=True),
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
        datasets=(("demonstrations", 1.0),),  # the expert, which learnt from corrections, is frozen
        multimodal_ratio=MULTIMODAL_RATIO,
    )


def two_b_expert() -> StageRecipe:
    """Stage 1 of the paper: 1536 samples a step, on 64 GPUs 24 each; learning rate constant, no weight decay.

    On fewer GPUs the same 64 parts are computed one after the other, with the same result.
    """
    return StageRecipe(
        stage="expert",
        preset="2b",
        optimisation=Optimisation(
            steps=34_500, learning_rate=5e-5, warmup_steps=0, final_fraction=1.0, betas=(0.9, 0.999), weight_decay=0.0,
            ema_decay=0.9999, save_every=1_500, gather="bfloat16", checkpoint_activations=True,
        ),
        after="base",
        groups=1_536,
        parts=64,
        expert_frames=1,
        max_latent_age=0,
        draws=1,
        weights=PAPER_LOSSES,
        datasets=(("bridge_dataset", 1.0), ("fractal20220817_data", 1.0)),
        cache_images=False,
    )  # fmt: skip


def two_b_generalist() -> StageRecipe:
    """Stage 2 of the paper: 768 samples a step, on 64 GPUs 12 each, and one question for every seven of them."""
    stage_1 = two_b_expert()
    return replace(
        stage_1,
        stage="generalist",
        after="expert",
        optimisation=replace(stage_1.optimisation, steps=13_500, checkpoint_activations=False),
        groups=768,
        prompts=STAGE_2_PROMPTS,
        multimodal_ratio=MULTIMODAL_RATIO,
    )


def two_b_state_expert() -> StageRecipe:
    """`two_b_expert` with a token for the arm's state."""
    return replace(two_b_expert(), preset="2b-state")


def two_b_state_generalist() -> StageRecipe:
    """`two_b_generalist` with a token for the arm's state."""
    return replace(two_b_generalist(), preset="2b-state")


def two_b_libero_expert(suite: str = "goal") -> StageRecipe:
    """Stage 1 on one suite of LIBERO (goal, 10, object, spatial), both cameras: 256 samples a step, on 8 GPUs 32 each.

    Plain instructions alone. The paper gives no number of steps; its authors look at a checkpoint every 1,500.
    """
    stage_1 = two_b_expert()
    return replace(
        stage_1,
        preset="2b-libero",
        name="expert" if suite == "goal" else f"expert-{suite}",
        optimisation=replace(stage_1.optimisation, steps=30_000),
        groups=256,
        parts=8,
        prompts=(("action", 1.0),),
        datasets=((f"libero_{suite}_no_noops", 1.0),),
    )


def finetune(preset: str, stage: str, steps: int = 2_000, multimodal_ratio: float = 0.0) -> StageRecipe:
    """On recorded datasets, from a checkpoint of ``stage``: a constant small rate after a short warm-up (paper)."""
    return StageRecipe(
        stage=stage,
        preset=preset,
        name="finetune",
        optimisation=Optimisation(steps=steps, learning_rate=2.0e-4, warmup_steps=50, final_fraction=1.0),
        groups=16,
        prompts=STAGE_1_PROMPTS if stage == "expert" else STAGE_2_PROMPTS,
        weights=PAPER_LOSSES,
        multimodal_ratio=multimodal_ratio,
    )


def debug(stage: str = "expert") -> StageRecipe:
    """The same stages in seconds, for tests and for a first look at the machinery."""
    full = RECIPES[f"nano-{stage}"]()
    optimisation = replace(
        full.optimisation, steps=4, warmup_steps=1, log_every=1, save_every=2, compile_layers=False
    )  # fmt: skip
    stills, after = min(full.still_groups, 2), "base" if stage == "expert" else full.after
    return replace(
        full, preset="tiny", after=after, optimisation=optimisation, groups=2, still_groups=stills, expert_frames=1,
        draws=2, corrections_at=(),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], StageRecipe]] = {
    "nano-base": nano_base,
    "nano-cloning": nano_cloning,
    "nano-expert": nano_expert,
    "nano-franka": nano_franka,
    "nano-generalist": nano_generalist,
    "2b-expert": two_b_expert,
    "2b-generalist": two_b_generalist,
    "2b-state-expert": two_b_state_expert,
    "2b-state-generalist": two_b_state_generalist,
    "2b-libero-expert": two_b_libero_expert,
    "2b-libero-expert-10": partial(two_b_libero_expert, "10"),
    "2b-libero-expert-object": partial(two_b_libero_expert, "object"),
    "2b-libero-expert-spatial": partial(two_b_libero_expert, "spatial"),
}
