"""What training sees of recorded datasets: their views, words, conversations, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from robot_data import FRANKA, bag, bridge, episode, fractal, lerobot_v3, libero, picture, png
from tiny_checkpoint import tiny_checkpoint

from instructvla_model.manifest import read_manifest
from instructvla_model.runtime import PolicyRuntime
from instructvla_training import cli
from instructvla_training.data.augment import NONE
from instructvla_training.data.formats.episode import DataError, StateLayout
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.data.report import describe
from instructvla_training.data.survey import read_published, survey
from instructvla_training.evaluation.replay import held_out_episodes, replay
from instructvla_training.finetune import Request, _robot, finetune, prepare
from instructvla_training.language import vla_it
from instructvla_training.language.vla_it import EpisodeAnnotation, QuestionAnswer
from instructvla_training.parallel import Processes
from instructvla_training.recipes import RECIPES
from instructvla_training.refusals import RunError
from instructvla_training.run import place
from instructvla_training.samples import _episodes, write_samples
from instructvla_training.stages.episodes import EpisodeStage
from instructvla_training.stages.run import prepare as stage_of
from instructvla_training.stages.run import run_stage
from instructvla_training.watch import Watch
from instructvla_training.workspace import Workspace

BOTH = {"views": ("primary", "wrist"), "vlm_input": "side_by_side"}

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Datasets, conversations, and an Expert of one camera and one of two that its VLM sees side by side."""
    root = tmp_path_factory.mktemp("made")
    lerobot_v3(root / "kitchen", episodes=4)
    libero(root, episodes=3)
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(png(picture(2)))
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a picture"}]
    (root / "talk.json").write_text(json.dumps([{"conversations": talk, "image": "a.png"}]))
    tiny_checkpoint(root / "expert")
    tiny_checkpoint(root / "both", notes={"robot": "fr3", "state_layouts": ["AXIS_ANGLE"]}, **BOTH)
    return root


def _request(made: Path, data: Path, base: str = "expert", **options) -> Request:
    run_dir = options.pop("run_dir", made / "run")
    reading = options.pop("reading", Reading())
    return Request(base=made / base, datasets=[(data, 1.0)], reading=reading, run_dir=run_dir, **options)


def _stage(made: Path, data: Path, base: str = "expert", **options) -> EpisodeStage:
    return prepare(_request(made, data, base, **options), Processes())[0].stage


# ---- conversations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 16])
def test_a_step_has_as_many_conversations_in_however_many_parts_it_is_computed(made, parts):
    stage = _stage(made, made / "kitchen", multimodal=made / "talk.json", parts=parts)
    counts = [stage.make_part(np.random.default_rng(part), part).drawn.counts for part in range(parts)]
    assert sum(c["row/action"] for c in counts) == 16 and sum(c["row/multimodal"] for c in counts) == 2


def test_the_paper_s_second_stage_gets_one_question_for_every_seven_actions_on_64_gpus():
    part = RECIPES["2b-generalist"]().part(64)
    dealt = [part.talks(number) for number in range(64)]
    assert sum(dealt) == round(768 / 7) and set(dealt) == {1, 2}
    assert RECIPES["nano-generalist"]().part(1).talks(0) >= 1


def test_questions_without_words_and_missing_pictures_are_refused_before_training(made, tmp_path):
    (made / "images" / "torn.jpg").write_bytes(b"not a picture")
    wrong = (
        ("q", "<image>", "a.png", "question without"),
        ("i", "what?", "none.png", "none"),
        ("t", "what?", "torn.jpg", r"unreadable-image.*torn\.jpg.*copy the files again"),
    )
    for name, question, image, told in wrong:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "a cat"}]
        path = made / f"{name}.json"
        path.write_text(json.dumps([{"conversations": turns, "image": image}]))
        with pytest.raises(DataError, match=told):
            _stage(made, made / "kitchen", multimodal=path)


def test_an_image_that_cannot_be_decoded_when_it_is_drawn_is_named(made, monkeypatch):
    stage = _stage(made, made / "kitchen")

    def torn(episode: int):
        raise DataError(f"episode {episode}: torn")

    monkeypatch.setattr(stage.data, "episode", torn)
    with pytest.raises(DataError, match=r"episode \d+: torn; mend the file and go on \(finetune: --mended\)"):
        stage.make_batch(np.random.default_rng(0))


# ---- views --------------------------------------------------------------------------------------------


def test_a_policy_whose_vlm_sees_both_cameras_is_trained_on_what_its_runtime_shows_it(made):
    stage = _stage(made, made / "libero_goal_no_noops", "both", multimodal=made / "talk.json")
    seen = stage.data.parts[0].dataset[1]
    views = [seen.images[view][2] for view in ("primary", "wrist")]
    recipe = read_manifest(made / "both").vlm_recipe
    found = stage.data.vlm_view[np.array([6 + 2, len(stage.frames) - 1])]
    assert np.array_equal(found[0], recipe.joined_pixels(views))
    assert not np.array_equal(found[0], recipe.pixels(views[0]))
    assert np.array_equal(found[1], recipe.pixels(picture(2)))  # a conversation has one picture
    runtime = PolicyRuntime.load(made / "both", device="cpu")
    shown = stage.observation(6 + 2)
    assert np.array_equal(runtime.manifest.vlm_recipe.joined_pixels(runtime._seen(shown.images)), found[0])


@pytest.mark.parametrize("base", ["expert", "both"])
def test_a_frame_that_vlm_and_expert_both_see_is_changed_in_the_same_way_for_both(made, base):
    data = {"expert": made / "kitchen", "both": made / "libero_goal_no_noops"}[base]
    stage = _stage(made, data, base)
    stage.recipe = replace(stage.recipe, max_latent_age=0, expert_frames=1)
    batch = stage.make_batch(np.random.default_rng(0))
    vlm, expert = batch.language.pixels_ICHW, batch.action.pixels_BVCHW
    if base == "expert":
        assert torch.equal(vlm, expert[:, 0])
    halves = vlm.chunk(expert.shape[1], dim=3)
    for view, half in enumerate(halves):
        small = torch.nn.functional.interpolate(expert[:, view], half.shape[2:], mode="area")
        assert (small - half).abs().mean() < 0.1
    stage.augmentation = NONE
    assert not torch.equal(stage.make_batch(np.random.default_rng(0)).language.pixels_ICHW, vlm)


def test_the_vlm_of_a_placed_stage_sees_augmented_pictures_unless_its_image_tokens_are_asked_to_be_kept(made):
    def placed(**options) -> EpisodeStage:
        prepared, recipe = prepare(_request(made, made / "kitchen", **options), Processes())
        place(prepared, recipe, Processes())
        prepared.stage.recipe = replace(prepared.stage.recipe, max_latent_age=0, expert_frames=1)
        return prepared.stage

    stage, clean = placed(), placed()
    clean.augmentation = NONE
    batch, plain = (each.make_batch(np.random.default_rng(0)) for each in (stage, clean))
    assert torch.equal(batch.language.pixels_ICHW, batch.action.pixels_BVCHW[:, 0])
    assert not torch.equal(batch.language.pixels_ICHW, plain.language.pixels_ICHW)
    kept = placed(cache_images=True).make_batch(np.random.default_rng(0)).language
    assert kept.pixels_ICHW is None and kept.image_tokens_ITH is not None


def test_a_dataset_without_a_view_of_the_policy_is_refused_and_the_option_named(made, tmp_path):
    made_of_wrist = tmp_path / "wrist"
    write_lerobot(made_of_wrist, [episode(n, 10, views=("wrist",)) for n in range(3)], fps=5.0, codec="h264")
    with pytest.raises(DataError, match=r"found views \['wrist'\].*--camera primary="):
        _stage(made, made_of_wrist)
    runtime = PolicyRuntime.load(made / "expert", device="cpu")
    with pytest.raises(DataError, match="--camera primary="):
        replay(runtime, open_dataset(made_of_wrist), [0])


@pytest.mark.parametrize(
    ("name", "changes", "writer"),
    [
        ("2b-libero-expert", BOTH, libero),
        ("2b-libero-expert-10", BOTH, lambda root: libero(root, "10")),
        ("2b-state-expert", {}, lambda root: (bridge(root), fractal(root))),
        ("2b-state-generalist", {}, lambda root: (bridge(root), fractal(root))),
    ],
)
def test_the_recipes_for_libero_and_with_a_state_train_at_tiny_size(made, tmp_path, name, changes, writer):
    full = RECIPES[name]()
    optimisation = replace(full.optimisation, steps=1, log_every=1)
    recipe = replace(full, preset="tiny", groups=2, parts=1, optimisation=optimisation)
    space = Workspace(tmp_path, "tiny")
    space.data.mkdir(parents=True)
    writer(space.data)
    if recipe.multimodal_ratio:
        shutil.copy(made / "talk.json", space.conversations)
        shutil.copytree(made / "images", space.data / "images")
    tiny_checkpoint(space.checkpoint(full.after), "base" if full.after == "base" else "expert", **changes)
    folder = run_stage(recipe, space, "cpu", threads=1)
    manifest = read_manifest(folder)
    assert read_published(folder / "dataset_statistics.json").keys() == dict(recipe.datasets).keys()
    assert manifest.stage == full.stage and manifest.training["step"] == 1
    assert (manifest.config.vlm_input == "side_by_side") == ("libero" in name) and manifest.state_dim == 8
    assert json.loads((space.run(full.run_name) / "samples" / "step-0000001.json").read_text())["error_m"] >= 0.0


LONG = "put it there and then " * 400


@pytest.mark.parametrize(
    ("question", "told"),
    [(LONG, r"long\.json, entry 1.*tokens; expected at most"), ("<image1>", r"long\.json, entry 1: ")],
)
def test_a_question_that_becomes_no_prompt_is_named_before_training(made, question, told):
    path = made / "long.json"
    talks = [[{"from": "human", "value": text}, {"from": "gpt", "value": "a cat"}] for text in ("what?", question)]
    path.write_text(json.dumps([{"conversations": turns} for turns in talks]))
    with pytest.raises(DataError, match=told):
        _stage(made, made / "kitchen", multimodal=path)


@pytest.mark.parametrize("where", ["instruction", "annotation"])
def test_an_instruction_that_becomes_no_prompt_is_named_before_training(made, tmp_path, where):
    words = (LONG, "") if where == "instruction" else ("pick it up", LONG)
    write_lerobot(tmp_path / "set", [episode(0), episode(1, instruction=words[0])], fps=5.0, codec="h264")
    pair = (QuestionAnswer("where is it?", words[1] or "there"),)
    vla_it.write(tmp_path / "words.json", [EpisodeAnnotation("set", "1", (), None, (), pair, ())])
    with pytest.raises(DataError, match=r"set 1: prompt has .* tokens; expected at most .*mend its instruction"):
        _stage(made, tmp_path / "set", reading=Reading(annotations=tmp_path / "words.json"))


def test_a_conversation_that_was_mended_is_gone_on_with_when_that_is_said(made, tmp_path):
    path = tmp_path / "talk.json"
    for answer, options in (("a cat", {}), ("a dog", {"mended": True})):
        turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": answer}]
        path.write_text(json.dumps([{"conversations": turns}]))
        request = _request(made, made / "kitchen", run_dir=tmp_path / "run", multimodal=path, steps=1)
        if options:
            with pytest.raises(RunError, match=r"other conversations.*--mended"):
                finetune(request, "cpu", threads=1)
        finetune(replace(request, **options), "cpu", threads=1)


@pytest.mark.parametrize("wrong", ["data", "conversations"])
def test_a_recipe_on_recorded_data_looks_through_it_before_its_first_step(made, tmp_path, wrong):
    full = RECIPES["2b-generalist"]()
    recipe = replace(full, preset="tiny", groups=2, parts=1, datasets=(("kitchen", 1.0),))
    space = Workspace(tmp_path, "tiny")
    episodes = [episode(number) for number in range(4)]
    for one in episodes if wrong == "data" else ():
        one.action_TA[:, 6] = 1.0 - one.action_TA[:, 6]
    write_lerobot(space.data / "kitchen", episodes, fps=5.0, codec="h264")
    turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}]
    space.conversations.write_text(json.dumps([{"conversations": turns, "image": "none.png"}]))
    tiny_checkpoint(space.checkpoint(full.after))
    with pytest.raises(DataError, match={"data": "gripper-polarity", "conversations": "missing-image"}[wrong]):
        run_stage(recipe, space, "cpu", threads=1)
    assert not space.run(full.run_name).exists()


def test_stage_2_keeps_the_scale_that_an_imported_expert_has_learnt_for_that_dataset(made, tmp_path):
    full = RECIPES["2b-generalist"]()
    recipe = replace(
        full, preset="tiny", groups=2, parts=1, multimodal_ratio=0.0, datasets=(("kitchen", 1.0), ("yard", 1.0))
    )
    space = Workspace(tmp_path, "tiny")
    for name, length in (("kitchen", 10), ("yard", 14)):
        write_lerobot(space.data / name, [episode(n, length) for n in range(4)], fps=5.0, codec="h264")
    folder = tiny_checkpoint(space.checkpoint(full.after), notes={"dataset": "kitchen"})
    learnt = read_manifest(folder).statistics
    stage = stage_of(recipe, space, Processes()).stage
    kitchen, yard = (part.survey.statistics for part in stage.data.parts)
    assert kitchen == learnt and yard != learnt


# ---- annotations and words ----------------------------------------------------------------------------


def _annotated(made: Path, path: Path, of: str) -> Reading:
    pair = (QuestionAnswer("where is it?", "there"),)
    vla_it.write(path, [EpisodeAnnotation(of, str(n), (), "a bowl", pair, pair, pair) for n in range(4)])
    return Reading(annotations=path)


def test_annotations_follow_the_name_that_a_copied_folder_has_whatever_the_cache_says(made, tmp_path):
    survey(open_dataset(made / "kitchen"))
    moved = shutil.copytree(made / "kitchen", tmp_path / "galley")
    dataset = open_dataset(moved, _annotated(made, tmp_path / "words.json", "galley"))
    found = survey(dataset)
    assert found.name == "galley" and found.keys[3] == ("galley", "3")
    stage = _stage(made, moved, reading=Reading(annotations=tmp_path / "words.json"))
    assert all(stage.data.words(number).annotation is not None for number in range(4))
    assert any("4 episodes, of 4 in the file" in line for line in describe(dataset))


def test_annotations_of_which_none_meets_an_episode_are_an_error(made, tmp_path):
    reading = _annotated(made, tmp_path / "words.json", "attic")
    with pytest.raises(DataError, match=r"any of 4 annotations .*attic.*kitchen.*give the folder the name"):
        _stage(made, made / "kitchen", reading=reading)
    with pytest.raises(DataError, match="any of 4 annotations"):
        describe(open_dataset(made / "kitchen", reading))


@pytest.fixture(scope="module")
def silent(made) -> Path:
    texts = ["", "pick up the can", "pick up the can", ""]
    write_lerobot(made / "silent", [episode(n, 12, instruction=t) for n, t in enumerate(texts)], fps=5.0, codec="h264")
    return made / "silent"


def test_samples_are_of_episodes_that_have_words_and_never_of_conversations(made, silent, tmp_path):
    stage = _stage(made, silent, multimodal=made / "talk.json")
    assert _episodes(stage) == [1, 2]
    write_samples(made / "expert", stage, Watch(tmp_path, 1), 1, torch.device("cpu"))
    texts = json.loads((tmp_path / "samples" / "step-0000001.json").read_text())["texts"]
    assert {text["question"] for text in texts} == {"pick up the can"}


def test_samples_run_on_the_very_device_of_the_run(made, silent, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(PolicyRuntime, "load", lambda path, device, threads: asked.append(device))
    with pytest.raises(AttributeError):  # what stands in is no runtime
        write_samples(made / "expert", _stage(made, silent), Watch(tmp_path, 1), 1, torch.device("cuda:1"))
    assert asked == ["cuda:1"]


def test_replay_leaves_episodes_without_words_out(silent):
    spoken = survey(open_dataset(silent)).spoken
    assert held_out_episodes(spoken) == [1, 2] and held_out_episodes(spoken, 1) == [2]
    with pytest.raises(DataError, match="no episode with an instruction"):
        held_out_episodes(np.zeros(3, bool))


# ---- robots and states --------------------------------------------------------------------------------


def test_a_fine_tuned_checkpoint_notes_the_robot_and_the_layout_of_its_states(made, tmp_path):
    lerobot_v3(tmp_path / "panda", robot_type="fr3")
    for data, told, robot in (
        (made / "kitchen", None, "wx250s"),
        (tmp_path / "panda", None, "fr3"),
        (tmp_path / "panda", "mine", "mine"),
    ):
        notes = prepare(_request(made, data, robot=told), Processes())[0].notes
        assert notes["robot"] == robot and notes["state_layouts"] == ["RPY"]
    folder = finetune(_request(made, made / "kitchen", run_dir=tmp_path / "run", steps=1, robot="mine"), "cpu", 1)
    assert read_manifest(folder).training["robot"] == "mine"


def test_where_nothing_names_the_robot_it_is_asked_for(made, tmp_path):
    tiny_checkpoint(made / "nobody", notes={})
    with pytest.raises(DataError, match="--robot NAME, for instance one of fr3, panda, ur5e, wx250s"):
        _stage(made, made / "kitchen", "nobody")
    assert prepare(_request(made, made / "kitchen", "nobody", robot="mine"), Processes())[0].notes["robot"] == "mine"


def test_a_robot_that_the_data_names_is_never_taken_for_the_checkpoint_s(made, tmp_path, caplog):
    lerobot_v3(tmp_path / "universal", robot_type="ur5e")  # an arm of the controllers that is not simulated
    assert prepare(_request(made, tmp_path / "universal"), Processes())[0].notes["robot"] == "ur5e"
    assert "names no robot" not in caplog.text
    lerobot_v3(tmp_path / "other", robot_type="so100")
    with pytest.raises(DataError, match=r"found robot_type 'so100', expected one of fr3.*--robot NAME"):
        _stage(made, tmp_path / "other")
    assert prepare(_request(made, made / "kitchen"), Processes())[0].notes["robot"] == "wx250s"
    assert "kitchen names no robot, taken for the checkpoint's, wx250s" in caplog.text


def test_the_arm_of_a_recording_is_that_of_the_checkpoint_fine_tuned_on_it(made, tmp_path):
    bag(tmp_path / "bags" / "a", ((1, "pick up the can", 12), (2, "pick up the can", 12)), **FRANKA)
    data, copy = tmp_path / "data", tmp_path / "copy"
    assert cli.main(["data", "from-bag", str(tmp_path / "bags"), str(data), "--codec", "h264"]) == 0
    assert cli.main(["data", "convert", str(data), str(copy), "--codec", "h264"]) == 0
    assert "robot         fr3" in "\n".join(describe(open_dataset(copy)))
    base = read_manifest(made / "expert")
    assert [_robot(_request(made, path), open_dataset(path), base) for path in (data, copy)] == ["fr3", "fr3"]
    assert cli.main(["data", "convert", str(data), str(tmp_path / "named"), "--robot", "panda"]) == 0
    assert open_dataset(tmp_path / "named").robot == "panda"


def test_states_of_another_layout_than_the_checkpoint_s_are_refused(made, tmp_path):
    fractal(tmp_path)
    with pytest.raises(DataError, match=r"rx ry rz rw gripper, expected the checkpoint's: x y z roll"):
        _stage(made, tmp_path / "fractal20220817_data")
    runtime = PolicyRuntime.load(made / "expert", device="cpu")
    with pytest.raises(DataError, match="expected the checkpoint's"):
        replay(runtime, open_dataset(tmp_path / "fractal20220817_data"), [0])


def test_replay_asks_for_steps_as_long_as_the_policy_s_and_tells_of_another_arm(made, tmp_path, caplog):
    runtime = PolicyRuntime.load(made / "both", device="cpu")
    for name, fps in (("slow", 5.0), ("fast", 30.0)):
        made_of = [episode(n, 10, views=("primary", "wrist")) for n in range(2)]
        write_lerobot(
            tmp_path / name, made_of, fps=fps, codec="h264", layout=StateLayout.AXIS_ANGLE, robot_type="wx250s"
        )
    replay(runtime, open_dataset(tmp_path / "slow"), [0])
    assert "found episodes of wx250s, the checkpoint is of fr3" in caplog.text
    with pytest.raises(DataError, match=r"found steps of 0\.033 s, expected the policy's, 0\.200 s"):
        replay(runtime, open_dataset(tmp_path / "fast"), [0])


def test_conversion_leaves_bad_episodes_out_when_asked_and_annotations_keep_to_theirs(made, tmp_path, monkeypatch):
    source = shutil.copytree(made / "kitchen", tmp_path / "source")
    reading = _annotated(made, tmp_path / "words.json", "source")
    from instructvla_training.data.formats.lerobot import LeRobotDataset

    real = LeRobotDataset._episode

    def broken(self, entry):
        if entry.index == 1:
            raise DataError("row 3 is damaged")
        return real(self, entry)

    monkeypatch.setattr(LeRobotDataset, "_episode", broken)
    words = ["data", "convert", str(source), str(tmp_path / "new"), "--codec", "h264"]
    words += ["--annotations", str(reading.annotations)]
    with pytest.raises(SystemExit, match="row 3 is damaged"):
        cli.main(words)
    assert cli.main([*words, "--skip-bad"]) == 0
    monkeypatch.undo()
    assert [len(e) for e in open_dataset(tmp_path / "new")] == [10, 12, 13]
    assert sorted(a.episode_id for a in vla_it.read(tmp_path / "new" / "meta" / "vla_it.json")) == ["0", "1", "2"]
