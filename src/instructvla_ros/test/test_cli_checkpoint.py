"""`instructvla checkpoint` from the command line: out, in again, and what it says about wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instructvla_model import checkpoint
from instructvla_model.manifest import new_manifest, read_manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.released.dinov2 import TOWER
from instructvla_model.tokenizer import train_tokenizer
from instructvla_ros.cli.main import main

ACTION = {"q01": [-1.0] * 7, "q99": [1.0] * 7, "mask": [True] * 6 + [False]}
STATE = {"q01": [0.0] * 8, "q99": [2.0] * 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint `ours`, and what the command exported of it: a run and its backbone."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = train_tokenizer(["pick up the cube"] * 5, 300, 4)
    config = preset("tiny").with_vocab_size(tokenizer.vocab_size)
    torch.manual_seed(0)
    policy = InstructVLA(config, tokenizer.image_token_id, "generalist")
    checkpoint.save(folder / "ours", policy, tokenizer, new_manifest(config, "generalist", None))
    assert main(["checkpoint", "export", str(folder / "ours"), str(folder / "checkpoints" / "step.pt")]) == 0
    assert main(["checkpoint", "export", str(folder / "ours"), str(folder / "eagle"), "--form", "eagle"]) == 0
    values = {"bridge_dataset": {"action": ACTION, "proprio": STATE}}
    (folder / "dataset_statistics.json").write_text(json.dumps(values))
    return folder


def bring_in(run: Path, out: Path, *more: str) -> int:
    source = str(run / "checkpoints" / "step.pt")
    return main(["checkpoint", "import", source, str(out), "--preset", "tiny", "--backbone", str(run / "eagle"), *more])


def test_a_run_is_imported_with_its_statistics_and_inspected(run, tmp_path, capsys):
    names = ("--adapter-names", "action,language", "--views", "primary", "--drop-unread")
    assert bring_in(run, tmp_path / "new", *names) == 0
    said = capsys.readouterr().out
    assert "expert attention     additive_bias" in said and "dataset_statistics.json" in said
    manifest = read_manifest(tmp_path / "new")
    assert manifest.statistics is not None and manifest.statistics.state is not None
    assert (manifest.config.film.blocks_used, manifest.config.film.has_norm) == (2, False)
    assert main(["checkpoint", "inspect", str(tmp_path / "new"), "--tensors"]) == 0
    said = capsys.readouterr().out
    assert "vlm.query_embed" in said and "action, language of rank 4, mixed by a gate" in said and "generalist" in said
    tower = "action_model.film_vision_model.vision_model"
    assert "tensors: blocks and norm" in said and f"{tower}.norm.weight" in said and "left out" in said


def test_only_what_a_checkpoint_holds_is_told(run, tmp_path, capsys):
    words = ("checkpoint", "import", str(run / "eagle"), str(tmp_path / "bare"), "--preset", "tiny")
    assert main(words) == 0
    capsys.readouterr()
    assert main(["checkpoint", "inspect", str(tmp_path / "bare")]) == 0
    told = {line[:20].strip(): line[21:] for line in capsys.readouterr().out.splitlines()}
    assert (told["adapters"], told["action expert"]) == ("none", "none: a vision-language model alone")
    assert not {"horizon", "state", "views", "expert attention"} & told.keys()


def test_a_backbone_with_a_dinov2_is_a_base_that_has_an_expert(run, tmp_path, capsys):
    shapes = checkpoint.tensor_shapes(preset("tiny"), "base", ("expert",))
    names = {n: n.removeprefix(TOWER).replace(".block.", ".") for n in shapes if n.startswith(TOWER)}
    vit = {theirs: torch.ones(shapes[n]) for n, theirs in names.items() if ".scale." not in n and ".shift." not in n}
    torch.save(vit, tmp_path / "vit.pth")
    words = ("checkpoint", "import", str(run / "eagle"), str(tmp_path / "base"), "--preset", "tiny")
    assert main([*words, "--dinov2", str(tmp_path / "vit.pth"), "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "action expert        yes" in said and "freshly initialised  expert.action_head: 8 tensors" in said
    assert checkpoint.load_policy(tmp_path / "base")[2].training["seed"] == 3


def test_a_stage_1_checkpoint_names_its_one_adapter(run, tmp_path, capsys):
    policy, tokenizer, manifest = checkpoint.load_policy(run / "ours")
    one = InstructVLA(manifest.config, tokenizer.image_token_id, "expert")
    checkpoint.save(tmp_path / "expert", one, tokenizer, new_manifest(manifest.config, "expert", None))
    assert policy.stage == "generalist" and manifest.config.adapters.names == ("action", "language")
    assert main(["checkpoint", "inspect", str(tmp_path / "expert")]) == 0
    assert "adapters             action of rank 4\n" in capsys.readouterr().out


def test_the_length_of_a_step_and_the_data_set_are_said_and_go_back_out(run, tmp_path, capsys):
    values = json.loads((run / "dataset_statistics.json").read_text())
    file = tmp_path / "statistics.json"
    file.write_text(json.dumps(values | {"fractal20220817_data": values["bridge_dataset"]}))
    assert bring_in(run, tmp_path / "new", "--statistics", str(file)) == 1
    assert "(--dataset NAME)" in capsys.readouterr().err
    words = ("--statistics", str(file), "--dataset", "fractal20220817_data", "--dt", "0.333")
    assert bring_in(run, tmp_path / "new", *words) == 0
    assert read_manifest(tmp_path / "new").dt_s == 0.333
    assert main(["checkpoint", "export", str(tmp_path / "new"), str(tmp_path / "out" / "checkpoints" / "x.pt")]) == 0
    assert list(json.loads((tmp_path / "out" / "dataset_statistics.json").read_text())) == ["fractal20220817_data"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["stage"] == "stage2"


def test_dropping_nothing_is_said(run, tmp_path, capsys):
    assert bring_in(run, tmp_path / "new", "--regime", "paper", "--drop-unread") == 0
    assert "--drop-unread left nothing out" in capsys.readouterr().out


def test_the_paper_s_regime_keeps_every_weight(run, tmp_path):
    assert bring_in(run, tmp_path / "new", "--regime", "paper", "--adapter-names", "action,language") == 0
    assert read_manifest(tmp_path / "new").weights_sha256 == read_manifest(run / "ours").weights_sha256


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--adapter", "action"), "expected NAME=DIR"),
        (("--adapter", "action=nowhere"), "holds adapters already"),
        (("--adapter", "lang=nowhere"), "expected action=DIR"),
        (("--views", ","), "--views"),
        (("--views", "a,a"), "--views"),
        (("--dt", "-1"), "--dt"),
        (("--adapter-names", ","), "--adapter-names"),
        (("--adapter-names", "1,0"), "--adapter-names"),
        (("--adapter-names", "a.b,c"), "--adapter-names"),
        (("--statistics", "nowhere.json"), "cannot be read"),
        (("--dataset", "other"), "has statistics of"),
        (("--adapter-names", "one"), "mixes 2 adapters"),
    ],
)
def test_wrong_use_is_told_in_one_line(run, tmp_path, capsys, more, words):
    assert bring_in(run, tmp_path / "new", *more) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_changed_weight_file_is_noticed(run, tmp_path, capsys):
    assert bring_in(run, tmp_path / "new") == 0
    with (tmp_path / "new" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read()
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert main(["checkpoint", "inspect", str(tmp_path / "new")]) == 1
    assert "sha256" in capsys.readouterr().err
