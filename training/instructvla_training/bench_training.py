"""How fast a preset is trained on this machine: the trainer's own steps, on random weights and a made-up batch.

Needs no data and no checkpoint. What it leaves out is what `bench loader` measures: making the batches.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from instructvla_model.benchmark.timing import device_name, peak_bytes
from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.trainable import count

from .bench_loader import WARM_STEPS
from .bench_stage import IMAGE_TOKEN, MadeUpStage
from .number_type import autocast, number_type
from .parallel import Processes, moved, processes, use_threads
from .recipes import StageRecipe, two_b_expert, two_b_generalist
from .run import Prepared, place
from .trainer import Trainer
from .watch import Watch

COUNTED = "torch.utils.flop_counter, forward and backward of one sample, times the samples of a step"
"""Matrix products and convolutions, causal attention as if it were full; nothing that is computed a second time to save
memory, no optimiser."""
DENSE_BFLOAT16_TFLOPS = (
    ("A100", 312.0), ("A800", 312.0), ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.0), ("H800 PCIe", 756.0),
    ("H800", 989.0), ("H200 NVL", 835.0), ("H200", 989.0), ("L40S", 362.0),
)  # fmt: skip
"""Words of a GPU's name -> its maker's figure for dense products; the first that fits."""


@dataclass(frozen=True)
class TrainingSpeed:
    """Of all processes together. A sample is one frame with its picture, text and actions; ``conversations``: rows
    beside them, of a step. ``mfu``: share of the peak that the counted operations take; None where no peak is known.
    ``peak_memory_bytes``: of one process, on a GPU PyTorch's alone."""

    preset: str
    stage: str
    samples: int
    conversations: int
    steps: int
    samples_per_s: float
    flops_per_step: int
    flops_counted: str
    tflops_per_s: float
    peak_tflops: float | None
    mfu: float | None
    peak_memory_bytes: int
    parameters: int
    trained_parameters: int
    autocast: str
    checkpoint_activations: bool
    processes: int
    threads: int
    device: str
    date: str

    def lines(self) -> list[str]:
        """For people."""
        one = "conversation" if self.conversations == 1 else "conversations"
        others = f" and {self.conversations} {one}" if self.conversations else ""
        again = ", layers computed again in the backward pass" if self.checkpoint_activations else ""
        share = "no peak is known here: give it (--peak-tflops)"
        if self.mfu is not None:
            share = f"{100 * self.mfu:.1f} % of {self.peak_tflops:g} TFLOP/s each"
        return [
            f"{self.preset}, stage {self.stage}: {self.samples} samples{others} a step, {self.steps} steps, "
            f"{self.autocast}{again}",
            f"{self.processes} x {self.device}, {self.threads} threads, {self.date}",
            f"speed        {self.samples_per_s:.2f} samples/s",
            f"operations   {self.tflops_per_s:.4g} TFLOP/s, {self.flops_per_step / 1e12:.4g} TFLOP a step ({COUNTED})",
            f"MFU          {share}",
            f"peak memory  {self.peak_memory_bytes / 1e9:.2f} GB of one process",
            f"parameters   {self.parameters:,}, of which {self.trained_parameters:,} are trained",
        ]


class _NothingKept(Trainer):
    """Without the state on disk, which takes longer than the steps and says nothing of them."""

    def save(self) -> None:
        pass


def recipe_for(name: str, stage: str, samples: int, steps: int, autocast: str, checkpoint: bool) -> StageRecipe:
    """The paper's recipe of the stage for another preset and number of samples: one frame and one noise draw each."""
    paper = {"expert": two_b_expert, "generalist": two_b_generalist}[stage]()
    never = WARM_STEPS + steps
    optimisation = replace(
        paper.optimisation, steps=WARM_STEPS + steps, autocast=autocast, checkpoint_activations=checkpoint,
        log_every=never, save_every=never,
    )  # fmt: skip
    return replace(paper, preset=name, name=f"bench-{stage}", groups=samples, parts=1, optimisation=optimisation)


def training_speed(recipe: StageRecipe, device: str, threads: int, peak_tflops: float | None = None) -> TrainingSpeed:
    """Measures the steps of ``recipe`` after a few to warm up. Nothing is kept.

    ``peak_tflops``: of one device, instead of the known one. Under torchrun the processes share a step's samples;
    raises RunError where these cannot be divided.
    """
    use_threads(threads)
    with processes(device) as group, tempfile.TemporaryDirectory() as folder:
        parts = recipe.parts_for(group.count)
        part = recipe.part(parts)
        stage = MadeUpStage(_random_policy(recipe, group), part)
        stage.trainable()
        parameters, trained = count(stage.policy), count(stage.policy, trainable_only=True)
        talks = sum(part.talks(number) for number in range(parts))
        numbers = number_type(group.device, recipe.optimisation.autocast)
        flops = _flops(stage, group, recipe.groups, talks)
        place(Prepared(stage, None, None), recipe, group)  # type: ignore[arg-type]  # it looks at the stage alone
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(group.device)
        steps = recipe.optimisation.steps - WARM_STEPS
        watch = Watch(Path(folder), recipe.optimisation.steps, shown=group.is_first, tensorboard=False)
        trainer = _NothingKept(stage, recipe.optimisation, Path(folder), group, parts, watch)
        trainer.run(until=WARM_STEPS)
        warm_s = trainer.seconds
        trainer.run()
        per_s = steps / (trainer.seconds - warm_s)
        name = device_name(group.device)
        peak = peak_tflops or known_peak(name, numbers)
        return TrainingSpeed(
            preset=recipe.preset, stage=recipe.stage, samples=recipe.groups, conversations=talks, steps=steps,
            samples_per_s=recipe.groups * per_s, flops_per_step=flops, flops_counted=COUNTED,
            tflops_per_s=flops * per_s / 1e12, peak_tflops=peak,
            mfu=None if peak is None else flops * per_s / (1e12 * peak * group.count),
            peak_memory_bytes=peak_bytes(group.device), parameters=parameters, trained_parameters=trained,
            autocast=numbers, checkpoint_activations=recipe.optimisation.checkpoint_activations,
            processes=group.count, threads=threads, device=name, date=date.today().isoformat(),
        )  # fmt: skip


def known_peak(device: str, autocast: str) -> float | None:
    """TFLOP/s of dense matrix products that the maker of a GPU names for it; None where none is known."""
    if autocast != "bfloat16":
        return None
    return next((peak for name, peak in DENSE_BFLOAT16_TFLOPS if re.search(rf"\b{name}\b", device)), None)


def _random_policy(recipe: StageRecipe, group: Processes) -> InstructVLA:
    """As its modules initialise it, made on the device that trains it, without a way through the CPU's memory."""
    torch.manual_seed(recipe.optimisation.seed)
    with torch.device(group.device):
        return InstructVLA(preset(recipe.preset), IMAGE_TOKEN, recipe.stage)


def _flops(stage: MadeUpStage, group: Processes, samples: int, talks: int) -> int:
    """Of a whole step, from one row of each kind: rows of a kind are all as long as another.

    To be counted before activation checkpointing and sharding. Attention is plain matrix products meanwhile, since the
    counter does not know every fused kernel.
    """

    def counted(rows: int, conversations: int) -> int:
        batch = moved(stage.batch(rows, conversations), group.device)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            with autocast(group.device):
                loss = stage(batch)["loss"]
            loss.backward()
        stage.zero_grad(set_to_none=True)
        return counter.get_total_flops()

    stage.train()
    one = counted(1, 0)
    return samples * one + (talks * (counted(1, 1) - one) if talks else 0)


def write(found: TrainingSpeed, output: Path) -> None:
    """As JSON."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
