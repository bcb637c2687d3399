"""Every stage on synthetic frames at the tiny size: losses, trainable sets, checkpoints that run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import episode

from instructvla_model import checkpoint
from instructvla_model.presets import preset
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation
from instructvla_training.data.shards import write_shard
from instructvla_training.recipes import debug
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    """A workspace in which base, expert and generalist were trained for a few steps."""
    space = Workspace(tmp_path_factory.mktemp("work"), "tiny")
    config = preset("tiny")
    write_shard(space.stills / "shard-0000", [episode(seed, 1, config, "still") for seed in range(4)])
    write_shard(space.demonstrations / "shard-0000", [episode(seed, 6, config) for seed in range(3)])
    for stage in ("base", "expert", "generalist"):
        run_stage(debug(stage), space, "cpu", threads=1)
    return space


def _weights(space: Workspace, stage: str) -> dict[str, torch.Tensor]:
    policy, _, _ = checkpoint.load_policy(space.checkpoint(stage))
    return dict(policy.named_parameters())


def test_the_expert_stage_moves_only_adapter_queries_and_expert(trained):
    before, after = _weights(trained, "base"), _weights(trained, "expert")
    moved = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
    assert any(name.startswith("expert.") for name in moved)
    assert any("lora_B.action" in name for name in moved)
    allowed = ("expert.", "vlm.query_embed", "vlm.query_head")
    assert all(name.startswith(allowed) or ".action." in name for name in moved), sorted(moved)


def test_the_generalist_stage_freezes_the_expert_and_moves_both_adapters_and_the_gate(trained):
    before, after = _weights(trained, "expert"), _weights(trained, "generalist")
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("expert."))
    assert any("lora_B.language" in n and bool(v.abs().sum() > 0) for n, v in after.items())
    assert any(n.startswith("vlm.gate.") for n in after)
    assert any("lora_B.action" in n and not torch.equal(v, before[n]) for n, v in after.items() if n in before)


def test_a_trained_checkpoint_thinks_and_acts(trained):
    runtime = PolicyRuntime.load(trained.checkpoint("generalist"), device="cpu")
    image = np.zeros((48, 64, 3), np.uint8)
    *_, thought = runtime.think(image, "put the lemon in the bowl", max_new_tokens=3)
    plan = runtime.latents(image, "put the lemon in the bowl", thought)
    chunk = runtime.act(Observation({"primary": image}, np.zeros(8, np.float32), 1.0), plan, seed=0)
    assert chunk.delta_xyz_m.shape == (runtime.manifest.horizon, 3)
    assert len(plan.gate_mean) == 2 and abs(sum(plan.gate_mean) - 1.0) < 1e-5


def test_the_statistics_travel_with_the_checkpoint(trained):
    expert = PolicyRuntime.load(trained.checkpoint("expert"), device="cpu").manifest
    generalist = PolicyRuntime.load(trained.checkpoint("generalist"), device="cpu").manifest
    assert expert.statistics is not None and expert.statistics == generalist.statistics
    assert generalist.training["recipe"] == "tiny-generalist"
    assert (trained.run("expert") / "losses.png").stat().st_size > 1000


def test_a_finished_stage_run_again_changes_nothing(trained):
    before = (trained.checkpoint("expert") / "manifest.json").read_text()
    run_stage(debug("expert"), trained, "cpu", threads=1)
    assert (trained.checkpoint("expert") / "manifest.json").read_text() == before


def test_a_missing_stage_before_is_named(tmp_path):
    space = Workspace(tmp_path, "tiny")
    with pytest.raises(checkpoint.CheckpointError, match="base"):
        run_stage(debug("expert"), space, "cpu", threads=1)
