"""The few-shot recipe for another arm: where it works, what it records, what it starts from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructvla_model.manifest import read_manifest
from instructvla_model.presets import preset
from instructvla_model.runtime import PolicyRuntime
from instructvla_sim import RenderSpec, World, WorldConfig
from instructvla_training import pipeline
from instructvla_training.data import demonstrations
from instructvla_training.data.record import record
from instructvla_training.evaluation.graph_policy import joint_sample
from instructvla_training.recipes import RECIPES, DataRecipe
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import robot_of

REPOSITORY = Path(__file__).parents[2]
START = REPOSITORY / "checkpoints" / "nano-expert"


def test_the_recipe_is_few_shot_and_starts_from_the_widowx_checkpoint() -> None:
    recipe = RECIPES["nano-franka"]()
    assert recipe.data.robot == "fr3"
    assert recipe.data.episodes <= 50
    assert (REPOSITORY / recipe.start / "manifest.json").is_file()
    assert recipe.corrections_at is None, "corrections are demonstrations too"


def test_its_data_and_its_run_lie_apart_from_the_widowxs(tmp_path: Path) -> None:
    space = pipeline.workspace_of("nano-franka", tmp_path)
    assert space.demonstrations == tmp_path / "data" / "nano-franka" / "demonstrations"
    assert space.run(RECIPES["nano-franka"]().run_name) == tmp_path / "runs" / "nano-franka"
    assert pipeline.workspace_of("nano-expert", tmp_path).run("expert") == tmp_path / "runs" / "nano-expert"


def test_a_joint_sample_is_that_of_the_robot_on_the_bench() -> None:
    world = World(RenderSpec(width=64, height=48, samples=0), WorldConfig(robot="fr3"))
    sample = joint_sample(world, 1.0)
    assert sample.arm_rad.shape == (7,)
    assert sample.finger_m == pytest.approx(0.04, abs=2e-3)
    world.close()


def test_a_checkpoint_of_before_robots_were_noted_is_a_widowxs() -> None:
    assert robot_of(read_manifest(START)) == "wx250s"


def test_the_shipped_checkpoint_is_that_of_the_recipe() -> None:
    notes = read_manifest(REPOSITORY / "checkpoints" / "nano-franka").training
    assert (notes["recipe"], notes["robot"]) == ("nano-franka", "fr3")
    assert notes["step"] == RECIPES["nano-franka"]().optimisation.steps


@pytest.mark.slow
def test_a_few_steps_make_a_checkpoint_for_the_franka(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    full = RECIPES["nano-franka"]()
    recipe = replace(
        full,
        optimisation=replace(full.optimisation, steps=2, warmup_steps=1, log_every=1, save_every=2),
        data=replace(full.data, episodes=2, stills=4, shard_episodes=2),
        groups=2,
        still_groups=1,
    )
    space = pipeline.workspace_of("nano-franka", tmp_path)
    rehearsed = replace(space, variant="").dataset("corrections")
    record(demonstrations.record_shard, rehearsed, 2, 2, 7, preset("nano"), DataRecipe(), 1)
    for what in ("stills", "demonstrations"):
        pipeline.record_data(what, space, recipe.data, 1)
    folder = run_stage(recipe, space, "cpu", 1)
    manifest, start = read_manifest(folder), read_manifest(START)
    assert manifest.training["robot"] == "fr3"
    assert manifest.training["recipe"] == "nano-franka"
    np.testing.assert_array_equal(manifest.statistics.action.q01, start.statistics.action.q01)
    shift = np.asarray(manifest.statistics.state.q01)[0] - np.asarray(start.statistics.state.q01)[0]
    assert shift == pytest.approx(0.22), "the base stands 0.22 m behind a WidowX's"
    np.testing.assert_array_equal(manifest.statistics.state.q99[1:], start.statistics.state.q99[1:])
    assert PolicyRuntime.load(folder, device="cpu").manifest.stage == "expert"
