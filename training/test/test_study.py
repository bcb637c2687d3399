"""The study: what it trains, that it goes on where it was stopped, its intervals and its table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import workspace

from instructvla_model import checkpoint
from instructvla_model.manifest import read_manifest
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation
from instructvla_training import cli
from instructvla_training.evaluation import MAX_STEPS, bootstrap
from instructvla_training.recipes import DataRecipe, debug
from instructvla_training.refusals import RunError
from instructvla_training.stages.ablation import switched
from instructvla_training.stages.run import run_stage
from instructvla_training.study import plan, run, table
from instructvla_training.workspace import Workspace

BUDGET = plan.Budget(expert_steps=2, generalist_steps=2, episodes=3, questions=4)


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> run.Setting:
    space = workspace(tmp_path_factory.mktemp("study"))
    run_stage(debug("base"), space, "cpu", threads=1)
    return run.Setting(
        space=space, shipped=space.root / "checkpoints", budget=BUDGET, device="cpu", recipes=debug,
        data=DataRecipe(stills=1, episodes=1),
    )  # fmt: skip


@pytest.fixture
def played(monkeypatch) -> list[str]:
    """Names of the cells that were measured; instead of playing, every second trial goes well, every third begins at
    the named object."""
    names = []

    def write(folder, count, key, output):
        names.append(output.stem)
        about = {"checkpoint": read_manifest(folder).checkpoint_id, "episodes": count, "date": "-", "machine": "-"}
        trial, approached = {"task": {"target": "can"}}, ["can", "lemon", None]
        rows = [{key: n % 2 == 0, "first_approached": approached[n % 3], "trial": trial} for n in range(count)]
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"about": about, "outcomes": rows}))

    monkeypatch.setattr(run, "evaluate", lambda folder, *rest: write(folder, rest[2], "success", rest[-1]))
    monkeypatch.setattr(run, "evaluate_questions", lambda folder, count, out: write(folder, count, "right", out))
    return names


@pytest.fixture
def baseline(setting, played) -> list[plan.Cell]:
    """The baseline's cells, trained and measured."""
    return list(run.run(setting, (plan.BASELINE,)))


def test_a_model_is_trained_and_measured_once(setting, baseline, played):
    assert [cell.model for cell in baseline] == [plan.BASELINE] * 4
    before = {path: path.stat().st_mtime_ns for path in setting.space.root.glob("runs/*/checkpoint/manifest.json")}
    played.clear()
    assert list(run.run(setting, (plan.BASELINE,))) == baseline
    assert played == [] and all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_a_cell_is_measured_again_for_another_checkpoint_or_number_of_trials(setting, baseline, played):
    cell = baseline[0]
    assert run.measured(setting, cell, 0)
    assert not run.measured(replace(setting, budget=replace(BUDGET, episodes=5)), cell, 0)
    outcome = setting.outcome(cell, 0)
    content = json.loads(outcome.read_text())
    content["about"]["checkpoint"] = "another"
    outcome.write_text(json.dumps(content))
    assert not run.measured(setting, cell, 0)
    played.clear()
    list(run.run(setting, (plan.BASELINE,)))
    assert played == [cell.name]


@pytest.mark.parametrize("steps", [1, 3])
def test_runs_of_another_budget_are_neither_gone_on_with_nor_counted(setting, baseline, played, steps):
    other = replace(setting, budget=replace(BUDGET, expert_steps=steps))
    assert run.measured(setting, baseline[0], 0) and not run.measured(other, baseline[0], 0)
    with pytest.raises(RunError, match=f"of other steps .*steps: 2, now {steps}"):
        list(run.run(other, (plan.BASELINE,)))


def test_runs_on_other_data_are_not_gone_on_with_and_half_recorded_data_are_completed(
    setting, baseline, played, monkeypatch
):
    asked = []
    monkeypatch.setattr(run, "record_data", lambda what, _, data, __: asked.append((what, data)))
    list(run.run(setting, (plan.BASELINE,)))
    assert asked[:2] == [("stills", setting.data), ("demonstrations", setting.data)]
    shard = setting.space.dataset("corrections") / "shard-0000"
    shutil.copytree(setting.space.demonstrations / "shard-0000", shard)
    try:
        with pytest.raises(RunError, match="of other shards"):
            list(run.run(setting, (plan.BASELINE,)))
    finally:
        shutil.rmtree(shard.parent)


def test_one_shared_lora_starts_from_the_baseline_s_expert_and_has_no_gate(setting, baseline, played):
    list(run.run(setting, ("one-lora",)))
    assert not setting.space.run("study-one-lora-expert").exists()
    policy = checkpoint.load_policy(setting.space.checkpoint("study-one-lora-generalist"))[0]
    names = [name for name, _ in policy.named_parameters()]
    assert any(".lora_A.action" in name for name in names)
    assert not any(".lora_A.language" in name or "vlm.gate" in name for name in names)


def test_without_the_image_stream_the_expert_acts_blindly(setting, played):
    recipe = plan.training(plan.VARIANTS[1], "expert", 0, BUDGET, debug)
    run_stage(recipe, setting.space, "cpu", threads=1)
    blind = PolicyRuntime.load(setting.space.checkpoint("study-no-image-stream-expert"), device="cpu")
    light, dark = np.full((48, 64, 3), 255, np.uint8), np.zeros((48, 64, 3), np.uint8)
    latents = blind.latents(dark, "pick up the can")
    state = np.zeros(8, np.float32)
    chunks = [blind.act(Observation({"primary": image}, state, 0.0), latents, seed=1) for image in (light, dark)]
    assert np.array_equal(chunks[0].delta_xyz_m, chunks[1].delta_xyz_m)


def test_without_film_every_condition_sees_the_same(setting):
    recipe = plan.training(plan.VARIANTS[2], "expert", 0, BUDGET, debug)
    policy = checkpoint.load_policy(setting.space.checkpoint("base"))[0]
    size = policy.config.film.image_size
    pixels = torch.rand(1, 1, 3, size, size, generator=torch.manual_seed(0))
    latents = torch.randn(2, 1, policy.config.n_queries, policy.config.language.hidden_size)
    one, other = (switched(policy, recipe.switches).expert.see(pixels, own) for own in latents)
    assert torch.equal(one, other)


def test_variants_differ_from_the_baseline_in_one_thing_only():
    full = plan.training(plan.VARIANTS[0], "generalist", 0, plan.Budget())
    for variant in plan.VARIANTS[1:]:
        own = plan.training(variant, "generalist", 0, plan.Budget())
        assert own.optimisation == full.optimisation and own.groups == full.groups and own.datasets == full.datasets
        differing = {name for name in ("switches", "prompts", "weights") if getattr(own, name) != getattr(full, name)}
        expected = {"no-motion": {"prompts"}, "no-image-stream": {"switches", "weights"}}
        assert differing == expected.get(variant.name, {"switches"}), variant.name
    assert "motion" not in dict(plan.training(plan.VARIANTS[3], "expert", 0, plan.Budget()).prompts)
    assert plan.training(plan.VARIANTS[4], "generalist", 0, plan.Budget()).after == "study-baseline-expert"
    experts = [plan.training(plan.VARIANTS[number], "expert", 0, plan.Budget()) for number in (0, 4)]
    assert experts[0] == experts[1], "one shared LoRA differs from stage 2 on only"


def test_the_table_names_the_papers_figures_and_compares_trial_by_trial(setting, baseline, played, tmp_path):
    full = replace(setting, shipped=tmp_path)
    for stage in ("base", "expert", "generalist"):
        source = "base" if stage == "base" else f"study-baseline-{stage}"
        (tmp_path / f"tiny-{stage}").symlink_to(setting.space.checkpoint(source), target_is_directory=True)
    list(run.run(full, (plan.SHIPPED,)))
    lines = table.write(full, tmp_path / "out")
    text = "\n".join(lines)
    assert "| Expert, instruct | 66.7 % | 20.8..93.9 % | 33.3 % |" in text and "17.3 %; 20.7 % with state" in text
    unknown = "too few successes or failures to tell"
    assert f"times the Expert | 1.00 | {unknown} | 1.00 | {unknown} | 46.2 / 17.3 = 2.67" in text
    assert f"minus before action training | +0.0 points | {unknown} | - | - | - |" in text
    assert "**Nothing left out**" in text
    figures = json.loads((tmp_path / "out" / "study.json").read_text())
    assert figures["success"]["trials"]["shipped_expert_heldout"] == ["101"]
    assert figures["named_object_first"]["trials"]["shipped_expert_heldout"] == ["100"]
    assert "shipped_base_questions" not in figures["named_object_first"]["cells"]
    assert (tmp_path / "out" / "study.png").stat().st_size > 5000


def test_what_the_readme_s_table_holds_is_not_played_again(setting, baseline, played, tmp_path):
    folder = setting.space.checkpoint("study-baseline-expert")
    (tmp_path / "tiny-expert").symlink_to(folder, target_is_directory=True)
    cell, full = plan.SHIPPED_CELLS[0], replace(setting, shipped=tmp_path, space=Workspace(tmp_path, "tiny"))
    shown = tmp_path / "results" / "expert_atomic_act.json"
    shown.parent.mkdir()
    about = {"checkpoint": read_manifest(folder).checkpoint_id, "max_steps": MAX_STEPS, "episodes": BUDGET.episodes}
    for episodes, again in ((BUDGET.episodes + 1, [cell.name]), (BUDGET.episodes, [])):
        rows = [{"success": True}] * episodes
        shown.write_text(json.dumps({"about": about | {"episodes": episodes}, "outcomes": rows}))
        full.outcome(cell, 0).unlink(missing_ok=True)
        played.clear()
        run._measure(full, cell, 0)
        assert played == again
    assert run.rounds(full, cell)[0].tolist() == [True] * BUDGET.episodes


def test_a_share_s_interval_is_the_binomial_s_and_pairs_narrow_a_comparison():
    rng = np.random.default_rng(0)
    won = rng.random(400) < 0.6
    found = bootstrap.share([won])
    spread = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.value == won.mean()
    assert found.high - found.value == pytest.approx(spread, rel=0.1)
    assert found.value - found.low == pytest.approx(spread, rel=0.1)
    also = won & (rng.random(400) < 0.9)
    paired = bootstrap.difference([won], [also])
    apart = bootstrap.difference([won], [rng.permutation(also)])
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)
    assert bootstrap.ratio([won], [also]).value == pytest.approx(won.mean() / also.mean())


def test_what_hardly_ever_happens_has_an_interval_too_and_is_not_compared():
    never, seldom, half = (np.arange(200) < number for number in (0, 3, 100))
    assert bootstrap.share([never]).high == pytest.approx(0.0188, abs=1e-3)
    for figure in (bootstrap.ratio([half], [never]), bootstrap.difference([seldom], [half])):
        assert np.isnan(figure.low) and np.isnan(figure.high)
    assert bootstrap.difference([half], [np.roll(half, 7)]).low < 0 == bootstrap.ratio([half], [half]).low - 1


def test_seeds_that_agree_do_not_average_the_scenes_difficulty_away():
    won = np.random.default_rng(1).random(200) < 0.7
    one, three = bootstrap.interval([[won]], lambda s: s), bootstrap.share([won, won, won])
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.05)


def test_training_seeds_that_disagree_widen_the_interval():
    good, bad = np.ones(100, bool), np.zeros(100, bool)
    together = bootstrap.share([good, bad])
    assert (together.value, together.low, together.high) == (0.5, 0.0, 1.0)


def test_cells_with_other_trials_are_not_compared():
    with pytest.raises(ValueError, match="expected the same in all"):
        bootstrap.difference([np.ones(3, bool)], [np.ones(4, bool)])


def test_the_plan_lists_cells_without_running_any(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "study", "--plan", "--only", "shipped"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(plan.SHIPPED_CELLS) and all(line.startswith("missing") for line in lines)
