"""What a run folder keeps of its run: the last checkpoint, what the run is of, and that it is one run's alone."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from robot_data import lerobot_v3
from synthetic import episode, workspace
from tiny_checkpoint import tiny_checkpoint

from instructvla_model.manifest import read_manifest
from instructvla_model.presets import preset
from instructvla_training import parallel, state
from instructvla_training import run as training_run
from instructvla_training.data.formats.opening import Reading
from instructvla_training.data.shards import write_shard
from instructvla_training.finetune import Request, finetune
from instructvla_training.lock import only_run
from instructvla_training.parallel import Processes, use_threads
from instructvla_training.pipeline import record_data
from instructvla_training.recipes import DataRecipe, debug
from instructvla_training.refusals import RunError
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    lerobot_v3(root / "a", episodes=3)
    lerobot_v3(root / "b", episodes=3, length=14)
    tiny_checkpoint(root / "expert")
    return root


def _request(made: Path, run_dir: Path, name: str = "a", weight: float = 1.0, **options) -> Request:
    data = [(made / name, weight)]
    return Request(datasets=data, reading=Reading(), run_dir=run_dir, **{"base": made / "expert"} | options)


def _step(run_dir: Path) -> int:
    return read_manifest(run_dir / "checkpoint").training["step"]


# ---- the last checkpoint ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "until"), [(2, None), (2, 3)])
def test_a_checkpoint_that_could_not_be_written_after_its_state_is_written_by_the_same_command(
    tmp_path, monkeypatch, first, until
):
    space, recipe = workspace(tmp_path), debug("base")
    run_stage(recipe, space, "cpu", threads=1, until=first)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(training_run, "_write_checkpoint", _full_disk)
        run_stage(recipe, space, "cpu", threads=1, until=until)
    last = until or recipe.optimisation.steps
    assert state.newest(space.run("base") / "state").name == f"step-{last:07d}" and _step(space.run("base")) == first
    run_stage(recipe, space, "cpu", threads=1, until=until)
    assert _step(space.run("base")) == last


def _full_disk(*_) -> None:
    raise OSError(28, "No space left on device")


def test_a_save_is_on_the_disk_before_it_has_its_name_and_the_one_before_is_kept_until_then(tmp_path, monkeypatch):
    done: list[str] = []
    real_replace, real_sync, real_remove = os.replace, os.fsync, state.shutil.rmtree
    monkeypatch.setattr(state.os, "fsync", lambda handle: (done.append("sync"), real_sync(handle)))
    monkeypatch.setattr(state.os, "replace", lambda *names: (done.append("name"), real_replace(*names)))
    removed = lambda path, **o: (done.append(Path(path).name), real_remove(path, **o))  # noqa: E731
    monkeypatch.setattr(state.shutil, "rmtree", removed)
    tensors = {"parameters/x": torch.ones(3)}
    for step in (1, 2):
        done.clear()
        state.save(tmp_path, tensors, state.Facts(step, 0.0, 1, {"x": [3]}, {}), Processes())
    name = done.index("name")
    assert done[:name].count("sync") >= 3 and "step-0000001" in done[name:] and "step-0000001" not in done[:name]


# ---- what the run is of -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "b"}, "datasets"),
        ({"learning_rate": 1e-2}, "learning_rate"),
        ({"weight": 2.0}, "weights"),
        ({"keep_statistics": True}, "statistics"),
        ({"cache_images": True}, "cache_images"),
        ({"base": "other"}, "base"),
    ],
)
def test_a_folder_with_a_run_of_something_else_is_refused_with_the_way_out(made, tmp_path, change, what):
    finetune(_request(made, tmp_path / "run", steps=1), "cpu", threads=1)
    base = change.pop("base", None)
    request = _request(made, tmp_path / "run", steps=1, **change)
    if base:
        request = replace(request, base=tiny_checkpoint(tmp_path / base, dt_s=0.3))
    before = (tmp_path / "run" / "checkpoint" / "manifest.json").read_text()
    with pytest.raises(RunError, match=rf"a run of other .*{what}.*--output"):
        finetune(request, "cpu", threads=1)
    assert (tmp_path / "run" / "checkpoint" / "manifest.json").read_text() == before


def test_a_run_goes_on_with_mended_files_where_it_is_said(made, tmp_path):
    shutil.copytree(made / "a", tmp_path / "a")
    finetune(_request(tmp_path, tmp_path / "run", base=made / "expert", steps=1), "cpu", threads=1)
    info = tmp_path / "a" / "meta" / "info.json"
    info.write_text(info.read_text() + " ")
    with pytest.raises(RunError, match=r"a run of other datasets.*--mended"):
        finetune(_request(tmp_path, tmp_path / "run", base=made / "expert", steps=2), "cpu", threads=1)
    finetune(_request(tmp_path, tmp_path / "run", base=made / "expert", steps=2, mended=True), "cpu", threads=1)
    finetune(_request(tmp_path, tmp_path / "run", base=made / "expert", steps=3), "cpu", threads=1)
    assert _step(tmp_path / "run") == 3


def test_more_steps_and_other_parts_go_on_and_so_does_a_state_that_does_not_say_what_it_is_of(made, tmp_path):
    run = tmp_path / "run"
    finetune(_request(made, run, steps=1), "cpu", threads=1)
    finetune(_request(made, run, steps=2, parts=2), "cpu", threads=1)
    assert _step(run) == 2
    path = next((run / "state").glob("step-*")) / "state.json"
    content = json.loads(path.read_text())
    assert content.pop("of")["datasets"].keys() == {"a"}
    path.write_text(json.dumps(content))
    finetune(_request(made, run, steps=3), "cpu", threads=1)
    assert _step(run) == 3


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("learning_rate", {"optimisation": {"learning_rate": 0.5}}),
        ("steps", {"optimisation": {"steps": 9}}),
        ("groups", {"groups": 4}),
        ("prompts", {"prompts": (("caption", 1.0),)}),
        ("recordings", {}),
    ],
)
def test_a_run_on_the_simulation_is_not_gone_on_with_by_another_recipe_or_on_other_recordings(tmp_path, what, change):
    space, recipe = workspace(tmp_path), debug("base")
    run_stage(recipe, space, "cpu", threads=1, until=1)
    if what == "recordings":
        shutil.rmtree(next(space.stills.glob("shard-*")))
        write_shard(space.stills / "shard-0000", [episode(seed, 1, preset("tiny"), "still") for seed in range(9)])
    changed = change | {"optimisation": replace(recipe.optimisation, **change.get("optimisation", {}))}
    with pytest.raises(RunError, match=rf"a run of other {what}.*delete this one"):
        run_stage(replace(recipe, **changed), space, "cpu", threads=1)


def test_corrections_may_come_in_while_a_run_goes_on(tmp_path):
    space, recipe = workspace(tmp_path), debug("expert")
    run_stage(debug("base"), space, "cpu", threads=1)
    run_stage(recipe, space, "cpu", threads=1, until=1)
    shutil.copytree(space.demonstrations, space.corrections)
    run_stage(recipe, space, "cpu", threads=1, until=2)
    assert state.read_facts(state.newest(space.run("expert") / "state")).step == 2


# ---- one run alone ------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_is_refused_and_may_begin_when_the_first_has_ended(made, tmp_path):
    run = tmp_path / "run"
    with only_run(run), pytest.raises(RunError, match=rf"another run at work .*process {os.getpid()}.*--output"):
        finetune(_request(made, run, steps=1), "cpu", threads=1)
    assert not (run / "checkpoint").exists()
    finetune(_request(made, run, steps=1), "cpu", threads=1)
    assert _step(run) == 1


def test_a_second_run_is_refused_before_it_prepares_anything_and_a_second_recording_too(tmp_path):
    space = Workspace(tmp_path, "tiny")
    with only_run(space.run("expert")), pytest.raises(RunError, match="another run at work"):
        run_stage(debug("expert"), space, "cpu", threads=1)  # of which nothing else is there
    with only_run(space.stills), pytest.raises(RunError, match=r"stills: found another run at work"):
        record_data("stills", space, DataRecipe(stills=1), workers=1)
    assert not list(space.stills.glob("shard-*"))


def test_what_is_kept_on_the_disk_is_made_by_one_process_of_each_node_before_the_others_look(monkeypatch):
    for rank, expected in (("0", ["work", "wait"]), ("1", ["wait", "work"])):
        done: list[str] = []
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setattr(Processes, "wait", lambda self, done=done: done.append("wait"))
        assert Processes(count=2).first_on_node(lambda done=done: done.append("work") or "found") == "found"
        assert done == expected


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", [1]), ("cuda", []), ("cpu:0", [])])
def test_a_gpu_that_is_asked_for_by_number_is_the_current_one(monkeypatch, device, expected):
    chosen: list[int | None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    with parallel.processes(device) as group:
        assert group.device == torch.device(device) and chosen == expected


def test_the_processes_of_torchrun_share_the_threads(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(parallel.torch, "set_num_threads", asked.append)
    for count in ("1", "4", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
        use_threads(16)
    assert asked == [16, 4, 1]
