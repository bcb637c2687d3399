"""The command line's own mistakes and messages."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from robot_data import lerobot_v3
from tiny_checkpoint import tiny_checkpoint

from instructvla_training import cli
from instructvla_training.refusals import NonFiniteLoss


def test_data_without_a_name_records_stills_and_demonstrations(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("instructvla_training.pipeline.record_data", lambda what, *_: asked.append(what))
    assert cli.main(["--root", str(tmp_path), "data", "record"]) == 0
    assert asked == ["stills", "demonstrations"]


def test_an_unknown_kind_of_data_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="unknown films; expected stills, demonstrations, corrections"):
        cli.main(["--root", str(tmp_path), "data", "record", "films"])


def test_scoring_text_without_reasoning_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="expected --think beside it"):
        cli.main(["evaluate", str(tmp_path), "--text-only"])


def test_results_before_any_measurement_name_the_command(tmp_path):
    with pytest.raises(SystemExit, match="instructvla-train measure"):
        cli.main(["--root", str(tmp_path), "results"])


def test_measuring_without_checkpoints_names_them_and_how_they_are_made(tmp_path):
    told = "nano-expert, nano-generalist, nano-franka in .*instructvla-train make NAME.*instructvla-train ship"
    with pytest.raises(SystemExit, match=told):
        cli.main(["--root", str(tmp_path), "measure"])


def test_shipping_a_name_that_is_no_recipe_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="found bogus, expected recipes of nano-base, nano-cloning, nano-expert"):
        cli.main(["--root", str(tmp_path), "ship", "nano-base", "bogus"])


@pytest.mark.parametrize("names", [[], ["nano-expert"]])
def test_shipping_nothing_is_an_error_that_says_how_to_make_it(tmp_path, names):
    with pytest.raises(SystemExit, match=f"found no finished .*make {(names or cli.SHIPPED)[0]}"):
        cli.main(["--root", str(tmp_path), "ship", *names])


def test_what_ships_without_names_is_what_the_repository_holds(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("instructvla_training.pipeline.ship", lambda space, folder, names: asked.extend(names) or [])
    assert cli.main(["--root", str(tmp_path), "ship"]) == 0
    checkpoints = Path(__file__).parents[2] / "checkpoints"
    assert sorted(asked) == sorted(folder.name for folder in checkpoints.glob("nano-*"))


# ---- one line for each mistake ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    lerobot_v3(root / "a", episodes=2)
    tiny_checkpoint(root / "expert")
    (root / "cut").mkdir()
    (root / "cut" / "log.jsonl").write_text('{"step": 1, "seco')
    (root / "bad.json").write_text('{"x": 1}')
    return root


FINETUNE = ("finetune", "--from", "expert", "--data", "a", "--output", "out", "--steps", "1", "--threads", "1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("finetune", "--from", "nowhere", "--data", "a"), "checkpoint nowhere does not exist"),
        ((*FINETUNE, "--device", "cuda"), "PyTorch sees no CUDA device"),
        ((*FINETUNE, "--device", "gpu"), "expected auto, cpu or cuda"),
        ((*FINETUNE, "--multimodal", "none.json"), "none.json.*correct the path"),
        ((*FINETUNE, "--annotations", "none.json"), "none.json"),
        ((*FINETUNE, "--annotations", "bad.json"), "bad.json.*expected"),
        ((*FINETUNE, "--parts", "3"), "16 groups .* for 3 parts.*--parts"),
        ((*FINETUNE, "--wandb", "p"), "pip install wandb"),
        (("report", "nowhere"), "found no nowhere/log.jsonl"),
        (("report", "cut"), "found no whole row"),
        (("replay", "nowhere", "a"), "checkpoint nowhere does not exist"),
        (("evaluate", "nowhere"), "checkpoint nowhere does not exist"),
        (("evaluate", "expert", "--episodes", "1", "--device", "cuda:1"), "PyTorch sees no CUDA device"),
        (("make", "nano-base", "--wandb", "p"), "pip install wandb"),
        (("make", "2b-expert"), "expected pre-trained weights"),
        (("make", "2b-libero-expert"), "expected pre-trained weights"),
        (("bench", "loader", "nano-expert"), "does not exist"),
        (("data", "inspect", "a", "--annotations", "none.json"), "none.json"),
    ],
)
def test_a_mistake_ends_in_one_line_that_says_what_to_do(made, monkeypatch, words, told):
    monkeypatch.chdir(made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "cache"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=rf"(?s)^instructvla-train: .*({told})"):
        cli.main(list(words))


def test_the_images_of_conversations_may_lie_in_a_folder_that_is_named(tmp_path, capsys):
    talk = tmp_path / "talk.json"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A can."}]
    talk.write_text(json.dumps([{"conversations": turns, "image": "1.png"}]))
    (tmp_path / "elsewhere").mkdir()
    assert cv2.imwrite(str(tmp_path / "elsewhere" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    assert cli.main(["data", "lint", str(talk)]) == 1 and "missing-image" in capsys.readouterr().out
    assert cli.main(["data", "lint", str(talk), "--images-folder", str(tmp_path / "elsewhere")]) == 0


def test_finetune_looks_for_the_images_of_conversations_in_the_folder_that_is_named(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made)
    talk = tmp_path / "talk.json"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A can."}]
    talk.write_text(json.dumps([{"conversations": turns, "image": "1.png"}]))
    with pytest.raises(SystemExit, match=r"(?s)elsewhere/1\.png.*no such file.*--images-folder"):
        cli.main([*FINETUNE, "--multimodal", str(talk), "--images-folder", str(tmp_path / "elsewhere")])


def test_a_step_of_no_length_is_a_wrong_command_line(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "lint", "a", "--dt", "0"])
    assert ended.value.code == 2 and "number of seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NonFiniteLoss("step 3: losses NaN"), "instructvla-train: step 3: losses NaN"),
        (OSError(errno.ENOSPC, "No space left", "runs/x"), "instructvla-train: runs/x: No space left"),
    ],
)
def test_what_stops_a_run_is_told_in_one_line(tmp_path, monkeypatch, error, told):
    monkeypatch.setattr("instructvla_training.pipeline.make", _raising(error))
    with pytest.raises(SystemExit) as ended:
        cli.main(["--root", str(tmp_path), "make", "nano-base"])
    assert ended.value.code == told


def test_ctrl_c_ends_with_its_status_and_a_mistake_in_the_program_with_its_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("instructvla_training.pipeline.make", _raising(KeyboardInterrupt()))
    assert cli.main(["--root", str(tmp_path), "make", "nano-base"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr("instructvla_training.pipeline.make", _raising(KeyError("x")))
    with pytest.raises(KeyError):
        cli.main(["--root", str(tmp_path), "make", "nano-base"])


def _raising(error: BaseException):
    def make(*_, **__):
        raise error

    return make


def test_a_page_without_what_the_run_is_of_says_how_to_get_it(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, "loss": 2.0}) + "\n")
    with pytest.raises(SystemExit, match=r"about\.json.*training command again"):
        cli.main(["report", str(tmp_path)])
