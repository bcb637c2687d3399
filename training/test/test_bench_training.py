"""The bench of training: the trainer's own steps without data, and what is told of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from instructvla_training import bench_training, cli
from instructvla_training.bench_stage import MadeUpStage
from instructvla_training.bench_training import known_peak, recipe_for, training_speed
from instructvla_training.parallel import Processes
from instructvla_training.refusals import RunError


def measured(stage: str = "expert", samples: int = 2, checkpoint: bool = False, **options):
    return training_speed(recipe_for("tiny", stage, samples, 2, "bfloat16", checkpoint), "cpu", 1, **options)


@pytest.mark.parametrize(("stage", "talks"), [("expert", 0), ("generalist", 1)])
def test_a_preset_is_measured_without_data_and_nothing_is_kept(tmp_path, monkeypatch, stage, talks):
    monkeypatch.chdir(tmp_path)
    found = measured(stage)
    assert (found.preset, found.stage, found.samples, found.conversations, found.steps) == ("tiny", stage, 2, talks, 2)
    assert found.samples_per_s > 0 and 0 < found.trained_parameters < found.parameters
    assert found.tflops_per_s == pytest.approx(found.flops_per_step * found.samples_per_s / 2 / 1e12)
    assert found.peak_memory_bytes > 10**8  # of the whole process
    assert found.mfu is None and any("--peak-tflops" in line for line in found.lines())
    assert list(tmp_path.iterdir()) == []


def test_the_share_of_a_peak_that_is_given_is_told():
    found = measured(peak_tflops=0.5)
    assert found.mfu == pytest.approx(found.tflops_per_s / 0.5)
    assert any(line.endswith("% of 0.5 TFLOP/s each") for line in found.lines())


@pytest.mark.parametrize(
    ("device", "autocast", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.0),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA H200", "bfloat16", 989.0),
        ("NVIDIA H800 PCIe", "bfloat16", 756.0),
        ("NVIDIA RTX A1000", "bfloat16", None),
        ("NVIDIA A100-SXM4-80GB", "float32", None),
        ("AMD EPYC, 2 cores", "bfloat16", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name_for_bfloat16_alone(device, autocast, peak):
    assert known_peak(device, autocast) == peak


@pytest.mark.parametrize("stage", ["expert", "generalist"])
def test_what_one_sample_takes_times_the_samples_is_what_a_step_takes(monkeypatch, stage):
    kept = []
    monkeypatch.setattr(bench_training, "_NothingKept", lambda stage, *_: kept.append(stage) or _Idle())
    found = measured(stage, samples=14)
    assert found.conversations == (2 if stage == "generalist" else 0)
    (made,) = kept
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        made(made.batch(14, found.conversations))["loss"].backward()
    assert found.flops_per_step == pytest.approx(counter.get_total_flops(), rel=1e-3)


class _Idle:
    seconds = 0.0

    def run(self, until: int | None = None) -> None:
        self.seconds += 1.0


def test_layers_computed_a_second_time_are_no_work_of_the_model():
    plain, again = measured(), measured(checkpoint=True)
    assert plain.flops_per_step == again.flops_per_step and again.checkpoint_activations


def test_a_made_up_batch_has_a_preset_s_shapes():
    recipe = recipe_for("2b", "generalist", 7, 1, "bfloat16", False)
    config = replace(bench_training.preset("2b"))
    policy = type("Policy", (torch.nn.Module,), {"config": config})()
    batch = MadeUpStage(policy, recipe).batch(2, 1)
    ids, labels = batch.language.input_ids_BS, batch.language.labels_BS
    assert ids.shape == labels.shape == (3, 48 + 256 + 40 + 64 + 1)
    assert ((ids == 0).sum(1) == 256).all() and ((ids >= config.language.vocab_size).sum(1).tolist() == [64, 64, 0])
    assert ((labels != -100).sum(1) == 40 + 64 + 1).all()
    assert batch.language.pixels_ICHW.shape == (3, 3, 448, 448)
    assert batch.action.pixels_BVCHW.shape == (2, 1, 3, 224, 224) and batch.action.actions_BFA.shape == (2, 16, 7)
    assert batch.action.state_BS is None and len(batch.drawn.ids) == 3


def test_the_command_prints_and_writes_what_was_measured(tmp_path, capsys):
    out = tmp_path / "results" / "training.json"
    words = ("bench", "training", "tiny", "--samples", "1", "--steps", "1", "--threads", "1", "--device", "cpu")
    assert cli.main([*words, "--autocast", "float32", "--peak-tflops", "1", "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert "samples/s" in told and "TFLOP/s" in told and "torch.utils.flop_counter" in told and "GB" in told
    content = json.loads(out.read_text())
    assert (content["autocast"], content["peak_tflops"], content["processes"]) == ("float32", 1.0, 1)


def test_samples_that_the_processes_cannot_share_are_refused(monkeypatch):
    monkeypatch.setattr(bench_training, "processes", lambda device: _Entered(Processes(count=2)))
    with pytest.raises(RunError, match="found 3 groups"):
        measured(samples=3)


class _Entered:
    def __init__(self, group: Processes) -> None:
        self.group = group

    def __enter__(self) -> Processes:
        return self.group

    def __exit__(self, *_: object) -> None:
        pass
