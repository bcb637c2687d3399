"""What the study trains and measures. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from instructvla_training.recipes import RECIPES, Shares, StageRecipe, Switches

SHIPPED = "shipped"
"""The model whose checkpoints are trained in full."""
BASELINE = "baseline"
"""Nothing left out, at the ablations' budget."""
NOT_AT_HAND = "-"
"""In place of a figure of the paper."""

Recipes = Callable[[str], StageRecipe]
"""Stage -> its full recipe."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Steps of each ablation's stages, the same for all, and how much is tried. ``training_seeds``: of each model."""

    expert_steps: int = 1_200
    generalist_steps: int = 800
    episodes: int = 200
    questions: int = 600
    training_seeds: int = 1

    def steps(self, stage: str) -> int:
        """Of an ablation's stage."""
        return self.expert_steps if stage == "expert" else self.generalist_steps


@dataclass(frozen=True)
class Variant:
    """What an ablation leaves out. ``own_expert``: False where stage 1 does not differ from the baseline's."""

    name: str
    title: str
    switches: Switches = field(default_factory=Switches)
    motion: bool = True
    own_expert: bool = True


VARIANTS = (
    Variant(BASELINE, "nothing left out"),
    Variant("no-image-stream", "without the DINO stream", Switches(image_stream=False)),
    Variant("no-film", "without FiLM", Switches(film=False)),
    Variant("no-motion", "without language motion", motion=False),
    Variant("one-lora", "without MoE: one shared LoRA", Switches(mixture=False), own_expert=False),
)


@dataclass(frozen=True)
class Cell:
    """One figure to measure. ``model``: SHIPPED or a variant's name; ``kind``: a set of trials, or "questions".
    ``paper``: what the paper reports of its own model and benchmark."""

    model: str
    title: str
    stage: str
    kind: str
    think: bool = False
    paper: str = NOT_AT_HAND

    @property
    def name(self) -> str:
        return "_".join([self.model, self.stage, self.kind, *(["think"] if self.think else [])])


ATOMIC_PAPER = "SimplerEnv, average: {} %; {} % with state"
INSTRUCT_PAPER = "SimplerEnv-Instruct, average: {} %; {} % with state"
SHIPPED_CELLS = (
    Cell(SHIPPED, "Expert, atomic", "expert", "atomic", paper=ATOMIC_PAPER.format("50.9", "61.2")),
    Cell(SHIPPED, "Generalist, atomic", "generalist", "atomic", paper=ATOMIC_PAPER.format("49.7", "54.9")),
    Cell(SHIPPED, "Expert, instruct", "expert", "heldout", paper=INSTRUCT_PAPER.format("17.3", "20.7")),
    Cell(SHIPPED, "Generalist, instruct, without reasoning", "generalist", "heldout"),
    Cell(SHIPPED, "Generalist, instruct, with reasoning", "generalist", "heldout", think=True,
         paper=INSTRUCT_PAPER.format("46.2", "46.9")),
    Cell(SHIPPED, "Question answering before action training (language-only nano)", "base", "questions"),
    Cell(SHIPPED, "Question answering after stage 1 (Expert)", "expert", "questions"),
    Cell(SHIPPED, "Question answering after stage 2 (Generalist)", "generalist", "questions"),
)  # fmt: skip


def _variant_cells(variant: Variant) -> tuple[Cell, ...]:
    cells = (
        Cell(variant.name, "Generalist, atomic", "generalist", "atomic"),
        Cell(variant.name, "Generalist, instruct, with reasoning", "generalist", "heldout", think=True),
        Cell(variant.name, "Generalist, question answering", "generalist", "questions"),
    )
    expert = Cell(variant.name, "Expert, atomic", "expert", "atomic")
    return (expert, *cells) if variant.own_expert else cells


ABLATION_CELLS = {variant.name: _variant_cells(variant) for variant in VARIANTS}
CELLS = (*SHIPPED_CELLS, *(cell for cells in ABLATION_CELLS.values() for cell in cells))


@dataclass(frozen=True)
class Comparison:
    """Two cells on the same scenes. ``by``: "ratio" of the first to the second, or "difference" in points."""

    title: str
    one: str
    other: str
    by: str
    paper: str = NOT_AT_HAND


COMPARISONS = (
    Comparison("instruct: Generalist with reasoning, times the Expert", "shipped_generalist_heldout_think",
               "shipped_expert_heldout", "ratio", "46.2 / 17.3 = 2.67; with state 46.9 / 20.7 = 2.27"),
    Comparison("instruct: Generalist with reasoning, times without", "shipped_generalist_heldout_think",
               "shipped_generalist_heldout", "ratio", "+36.1 %, that is 1.36"),
    Comparison("question answering: after stage 2 minus before action training", "shipped_generalist_questions",
               "shipped_base_questions", "difference"),
    *(Comparison(f"{variant.title}, {cell.title}: minus the baseline", cell.name,
                 cell.name.replace(variant.name, BASELINE, 1), "difference")
      for variant in VARIANTS[1:] for cell in ABLATION_CELLS[variant.name]),
)  # fmt: skip


def nano(stage: str) -> StageRecipe:
    """The recipes whose checkpoints ship."""
    return RECIPES[f"nano-{stage}"]()


def _owner(variant: Variant, stage: str) -> Variant:
    """Whose run trains a stage of a variant."""
    return variant if variant.own_expert or stage != "expert" else VARIANTS[0]


def run_name(variant: Variant, stage: str, seed: int) -> str:
    """Of the run that trains a stage of a variant."""
    return f"study-{_owner(variant, stage).name}-{stage}" + (f"-seed{seed}" if seed else "")


def training(variant: Variant, stage: str, seed: int, budget: Budget, recipes: Recipes = nano) -> StageRecipe:
    """The recipe of a variant's stage: the full one with a smaller budget and something left out.

    Corrections, where there are recordings of them, are trained on from the first step, so that all variants see the
    same data. Without the image stream the expert has no image tokens to point at, so those losses fall away with it.
    """
    full, variant = recipes(stage), _owner(variant, stage)
    steps = budget.steps(stage)
    weights = full.weights
    if not variant.switches.image_stream:
        weights = replace(weights, expert_pointing=0.0, location=0.0)
    optimisation = replace(full.optimisation, steps=steps, seed=full.optimisation.seed + seed)
    return replace(
        full, name=run_name(variant, stage, seed), optimisation=optimisation, corrections_at=(), weights=weights,
        after="base" if stage == "expert" else run_name(variant, "expert", seed), switches=variant.switches,
        prompts=full.prompts if variant.motion else _without(full.prompts, "motion"),
    )  # fmt: skip


def _without(shares: Shares, name: str) -> Shares:
    return tuple(row for row in shares if row[0] != name)
