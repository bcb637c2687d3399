"""The few-shot recipe for another arm: where it works, what it records, what it starts from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import tiny_checkpoint

from instructvla_model.manifest import read_manifest
from instructvla_model.runtime import PolicyRuntime
from instructvla_sim import RenderSpec, World, WorldConfig
from instructvla_training import cli, pipeline
from instructvla_training.data.shards import read_frames
from instructvla_training.evaluation import questions
from instructvla_training.evaluation.graph_policy import joint_sample
from instructvla_training.recipes import RECIPES
from instructvla_training.workspace import robot_of

REPOSITORY = Path(__file__).parents[2]
START = REPOSITORY / "checkpoints" / "nano-expert"


def test_the_recipe_is_few_shot_and_starts_from_the_widowx_checkpoint() -> None:
    recipe = RECIPES["nano-franka"]()
    assert recipe.data.robot == "fr3"
    assert recipe.data.episodes <= 50
    assert (REPOSITORY / recipe.start / "manifest.json").is_file()
    assert not recipe.corrections_at, "corrections are demonstrations too"


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


def test_questions_are_asked_about_the_bench_of_the_checkpoints_robot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def world(render: RenderSpec, config: WorldConfig | None = None) -> World:
        asked.append(config)
        raise StopIteration

    monkeypatch.setattr(questions, "World", world)
    with pytest.raises(StopIteration):
        questions.ask(tiny_checkpoint(tmp_path / "franka", notes={"robot": "fr3"}), 1)
    assert asked[0].robot == "fr3"


def test_a_policy_of_a_robot_that_is_not_simulated_is_refused_with_what_else_to_do(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "universal", notes={"robot": "ur5e"})
    for kind in ("atomic", "questions"):
        with pytest.raises(SystemExit, match=r"robot 'ur5e', expected one that is simulated.*instructvla-train replay"):
            cli.main(["evaluate", str(folder), "--set", kind, "--episodes", "1"])


def test_a_checkpoint_of_before_robots_were_noted_is_a_widowxs() -> None:
    assert robot_of(read_manifest(START)) == "wx250s"


def test_the_shipped_checkpoint_is_that_of_the_recipe() -> None:
    notes = read_manifest(REPOSITORY / "checkpoints" / "nano-franka").training
    assert (notes["recipe"], notes["robot"]) == ("nano-franka", "fr3")
    assert notes["step"] == RECIPES["nano-franka"]().optimisation.steps


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_for_the_franka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    full = RECIPES["nano-franka"]()
    recipe = replace(
        full,
        optimisation=replace(full.optimisation, steps=2, warmup_steps=1, log_every=1, save_every=2),
        data=replace(full.data, episodes=2, stills=4, shard_episodes=2),
        groups=2,
        still_groups=1,
        rehearsal=2,
    )
    space = pipeline.workspace_of("nano-franka", tmp_path)
    monkeypatch.setitem(pipeline.RECIPES, "nano-franka", lambda: recipe)
    folder = pipeline.make("nano-franka", space, "cpu", 1)
    rehearsed = read_frames([space.dataset("rehearsal")])
    assert {episode.source for episode in rehearsed.episodes} == {"correction"}
    assert not (tmp_path / "data" / "nano").exists(), "it needs no data of the WidowX's recipes"
    manifest, start = read_manifest(folder), read_manifest(START)
    assert manifest.training["robot"] == "fr3"
    assert manifest.training["recipe"] == "nano-franka"
    np.testing.assert_array_equal(manifest.statistics.action.q01, start.statistics.action.q01)
    shift = np.asarray(manifest.statistics.state.q01)[0] - np.asarray(start.statistics.state.q01)[0]
    assert shift == pytest.approx(0.22), "the base stands 0.22 m behind a WidowX's"
    np.testing.assert_array_equal(manifest.statistics.state.q99[1:], start.statistics.state.q99[1:])
    assert PolicyRuntime.load(folder, device="cpu").manifest.stage == "expert"
