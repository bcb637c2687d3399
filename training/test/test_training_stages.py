"""Every stage on synthetic frames at the tiny size: losses, trainable sets, checkpoints that run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import workspace

from instructvla_model import checkpoint
from instructvla_model.batch import ActionBatch
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation
from instructvla_training import compiled, pipeline
from instructvla_training.parallel import processes
from instructvla_training.recipes import LossWeights, debug
from instructvla_training.refusals import RunError
from instructvla_training.run import place
from instructvla_training.stages.action_loss import flow_loss
from instructvla_training.stages.run import prepare, run_stage
from instructvla_training.trainer import Trainer
from instructvla_training.workspace import Workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    """A workspace in which base, expert and generalist were trained for a few steps."""
    space = workspace(tmp_path_factory.mktemp("work"))
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


def test_the_checkpoint_holds_the_averaged_weights(trained):
    space, recipe = trained, debug("expert")
    with processes("cpu") as group:
        prepared = prepare(recipe, space, group)
        place(prepared, recipe, group)
        trainer = Trainer(prepared.stage, recipe.optimisation, space.run("expert"), group)
        assert trainer.resume()
    stored = _weights(space, "expert")
    own = {n.removeprefix("policy."): a for n, a in zip(trainer.named, trainer.average, strict=True)}
    assert all(torch.equal(stored[n], a) for n, a in own.items() if n in stored)
    moved = {n.removeprefix("policy."): p for n, p in trainer.named.items()}
    assert any(not torch.equal(stored[n], p) for n, p in moved.items() if n in stored)


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


def test_a_recipe_that_is_made_is_not_made_again_whatever_became_of_its_state(trained, monkeypatch):
    monkeypatch.setattr(pipeline, "RECIPES", {"tiny-expert": lambda: debug("expert")})
    monkeypatch.setattr(pipeline, "run_stage", lambda *_, **__: pytest.fail("trained again"))
    assert pipeline.make("tiny-expert", trained, "cpu", threads=1) == trained.checkpoint("expert")


def test_a_checkpoint_without_its_state_is_not_overwritten(trained, tmp_path):
    space = Workspace(tmp_path, "tiny")
    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(space.run("expert") / "state")
    with pytest.raises(RunError, match="without the state to go on from"):
        run_stage(debug("expert"), space, "cpu", threads=1)
    assert (space.run("expert") / "log.jsonl").read_text() == (trained.run("expert") / "log.jsonl").read_text()


def _one_step(space: Workspace, compiled_layers: bool) -> tuple[float, set[str]]:
    """Loss of the generalist stage's first batch, and the names in its state, where it is placed as the recipe says."""
    whole = debug("generalist")
    recipe = replace(
        whole, optimisation=replace(whole.optimisation, compile_layers=compiled_layers, autocast="float32")
    )
    with processes("cpu") as group:
        prepared = prepare(recipe, space, group)
        place(prepared, recipe, group)
    stage = prepared.stage.eval()
    torch.manual_seed(0)
    return float(stage(stage.make_batch(np.random.default_rng(0)))["loss"].detach()), set(stage.state_dict())


def test_compiled_layers_compute_the_same_under_the_same_names(trained, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    plain, (loss, names) = _one_step(trained, False), _one_step(trained, True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert loss == pytest.approx(plain[0], rel=1e-4) and names == plain[1]


def test_the_layers_of_both_networks_are_compiled(trained, monkeypatch):
    handed_over = []
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: handed_over.append(module))
    policy = checkpoint.load_policy(trained.checkpoint("expert"))[0]
    assert compiled.compile_layers(policy, torch.device("cpu")) == len(handed_over)
    layers, blocks = policy.vlm.language_model.model.layers, policy.expert.film_vision_model.vision_model.blocks
    assert handed_over == [*layers, *blocks]


def test_without_a_compiler_training_goes_on_uncompiled_and_says_so(trained, monkeypatch, caplog):
    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled.torch, "compile", no_compiler)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: pytest.fail("compiled"))
    loss, _ = _one_step(trained, True)
    assert np.isfinite(loss) and "without it, more slowly" in caplog.text and "no C++ compiler" in caplog.text


@pytest.mark.parametrize("name", ["expert", "generalist"])
def test_rows_that_pass_in_groups_train_as_all_at_once(trained, name):
    recipe = replace(debug(name), groups=6)
    with processes("cpu") as group:
        prepared = prepare(recipe, trained, group)
        place(prepared, recipe, group)
    stage = prepared.stage.eval()
    batch = stage.make_batch(np.random.default_rng(0))
    assert len(batch.language.attention_mask_BS.sum(dim=1).unique()) > 1  # not all rows are as long

    def trained_with(at_once: int | None) -> dict[str, torch.Tensor]:
        stage.rows_at_once = at_once
        stage.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        losses = stage(batch)
        losses["loss"].backward()
        return losses | {name: p.grad for name, p in stage.named_parameters() if p.grad is not None}

    assert stage.rows_at_once is not None
    torch.testing.assert_close(trained_with(3), trained_with(None), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("padding", "expected"), [(0.0, 1.0), (1.0, 5.0), (0.5, 11 / 3)])
def test_padding_past_an_episode_s_end_counts_as_the_recipe_says(monkeypatch, padding, expected):
    inside_BF = torch.tensor([[True, True], [False, False]])
    squared = torch.where(inside_BF, 1.0, 9.0)[:, None, :, None].expand(2, 3, 2, 7)
    monkeypatch.setattr("instructvla_model.flow.errors", lambda *_, **__: squared)
    recipe = replace(debug("expert"), weights=LossWeights(padding=padding))
    batch = ActionBatch(torch.zeros(2), torch.zeros(2, 2, 7), inside_BF=inside_BF)
    assert float(flow_loss(SimpleNamespace(expert=None), None, batch, recipe)) == pytest.approx(expected)


def test_a_batch_says_which_steps_lie_past_the_end_of_their_episode(trained):
    with processes("cpu") as group:
        stage = prepare(debug("expert"), trained, group).stage
    index = np.array([0, 5])  # first and last frame of an episode of six
    action = stage._actions(index, np.arange(2), np.random.default_rng(0))
    assert action.inside_BF[0].sum() == min(6, stage.policy.config.expert.horizon) and action.inside_BF[1].sum() == 1


@pytest.mark.parametrize("stage", ["base", "expert", "generalist"])
def test_each_save_brings_texts_and_chunks_and_the_run_ends_with_a_page(trained, stage):
    run = trained.run(stage)
    samples = sorted((run / "samples").glob("*.json"))
    assert [path.stem for path in samples] == ["step-0000002", "step-0000004"]
    content = json.loads(samples[-1].read_text())
    assert len(content["texts"]) == 4 and all(text["expected"] for text in content["texts"])
    assert samples[-1].with_suffix(".png").exists() == (stage != "base") == ("error_m" in content)
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64") == (1 if stage == "base" else 2)
    for words in ("step 4 of 4", "What was drawn", "kept from training", "optimisation.steps"):
        assert words in page
    assert any((run / "tensorboard").iterdir())


def test_a_missing_stage_before_is_named(tmp_path):
    space = Workspace(tmp_path, "tiny")
    with pytest.raises(checkpoint.CheckpointError, match="base"):
        run_stage(debug("expert"), space, "cpu", threads=1)
