"""The full-size recipes at tiny size, from weights that a lab has: pre-trained backbones, or the authors' files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from robot_data import bridge, fractal, lerobot_v3, picture, png
from safetensors.torch import save_file
from tiny_checkpoint import tiny_checkpoint

from instructvla_model import checkpoint
from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import new_manifest, read_manifest, write_manifest
from instructvla_model.presets import preset
from instructvla_model.released.dinov2 import TOWER
from instructvla_model.released.exporting import export_checkpoint
from instructvla_model.released.importing import ImportOptions, import_checkpoint
from instructvla_training import pipeline
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.opening import Reading
from instructvla_training.finetune import Request, prepare
from instructvla_training.parallel import Processes
from instructvla_training.recipes import RECIPES
from instructvla_training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """What a lab has: the backbone's folder, a DINOv2, the authors' stage 1, and the datasets in the recipes' place."""
    root = tmp_path_factory.mktemp("lab")
    made = tiny_checkpoint(root / "authors")
    export_checkpoint(made, root / "eagle", "eagle")
    export_checkpoint(made, root / "run" / "checkpoints" / "step.pt")
    save_file(_dinov2(preset("tiny")), root / "dinov2.safetensors")
    data = Workspace(root, "tiny").data
    data.mkdir(parents=True)
    bridge(data)
    fractal(data)
    (data / "images").mkdir()
    (data / "images" / "a.png").write_bytes(png(picture(2)))
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a picture"}]
    (data / "conversations.json").write_text(json.dumps([{"conversations": talk, "image": "a.png"}]))
    return root


def _dinov2(config: PolicyConfig) -> dict[str, torch.Tensor]:
    """timm's names and shapes of the preset's tower, with positions of a larger picture."""
    shapes = checkpoint.tensor_shapes(config, "base", ("expert",))
    tower = {name.removeprefix(TOWER): shape for name, shape in shapes.items() if name.startswith(TOWER)}
    plain = {name.replace(".block.", "."): s for name, s in tower.items() if ".scale." not in name}
    plain = {name: shape for name, shape in plain.items() if ".shift." not in name}
    return {name: torch.randn(shape) for name, shape in (plain | {"pos_embed": (1, 49, config.film.dim)}).items()}


def _space(lab: Path, root: Path) -> Workspace:
    root.mkdir(exist_ok=True)
    (root / "data").symlink_to(lab / "data")
    return Workspace(root, "tiny")


@pytest.fixture
def recipes(monkeypatch) -> None:
    """`2b-expert` and `2b-generalist` of one step, under tiny names."""
    small = {}
    for stage in ("expert", "generalist"):
        full = RECIPES[f"2b-{stage}"]()
        one = replace(full.optimisation, steps=1, log_every=1)
        small[f"tiny-{stage}"] = replace(full, preset="tiny", groups=2, parts=1, optimisation=one)
    monkeypatch.setattr(pipeline, "RECIPES", {name: (lambda recipe=recipe: recipe) for name, recipe in small.items()})


def test_stage_1_starts_from_a_backbone_and_a_dinov2(lab, tmp_path, recipes):
    space = _space(lab, tmp_path / "work")
    options = ImportOptions(dinov2=lab / "dinov2.safetensors")
    import_checkpoint(lab / "eagle", space.checkpoint("base"), preset("tiny"), options=options)
    folder = pipeline.make("tiny-expert", space, "cpu", threads=1)
    manifest = read_manifest(folder)
    assert (manifest.stage, manifest.training["step"], folder) == ("expert", 1, space.checkpoint("expert"))
    before, after = (checkpoint.load_policy(space.checkpoint(name))[0].state_dict() for name in ("base", "expert"))
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("vlm.vision_model."))
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("expert."))


def test_stage_2_starts_from_the_authors_stage_1_which_no_recipe_made(lab, tmp_path, recipes):
    space = _space(lab, tmp_path / "work")
    stage_1 = space.checkpoint("expert")
    import_checkpoint(lab / "run" / "checkpoints" / "step.pt", stage_1, preset("tiny"), lab / "eagle")
    imported = (stage_1 / "manifest.json").read_text()
    manifest = read_manifest(pipeline.make("tiny-generalist", space, "cpu", threads=1))
    assert (manifest.stage, manifest.training["step"]) == ("generalist", 1)
    assert (stage_1 / "manifest.json").read_text() == imported
    assert pipeline.make("tiny-expert", space, "cpu", threads=1) == stage_1  # made already, not trained over


@pytest.mark.parametrize(
    ("notes", "done"),
    [
        ({"imported": "step.pt"}, True),
        ({}, True),
        ({"recipe": "tiny-expert", "step": 1}, True),
        ({"recipe": "tiny-expert", "step": 0}, False),
        (None, False),
    ],
)
def test_what_was_trained_here_is_finished_at_its_last_step_and_what_was_brought_is_at_once(
    tmp_path, recipes, notes, done
):
    space = Workspace(tmp_path, "tiny")
    if notes is not None:
        space.checkpoint("expert").mkdir(parents=True)
        write_manifest(space.checkpoint("expert"), new_manifest(preset("tiny"), "expert", None, notes))
    assert pipeline.finished(space, "expert") is done
    assert pipeline.finished(space, "expert", steps=2) is (done and "recipe" not in (notes or {}))


def test_weights_that_are_missing_are_asked_for_with_the_page_that_tells_how(tmp_path, recipes):
    with pytest.raises(FileNotFoundError, match=r"checkpoint import.*docs/how-to/released-checkpoints\.md"):
        pipeline.make("tiny-expert", Workspace(tmp_path, "tiny"), "cpu", threads=1)


def test_a_released_generalist_without_an_action_adapter_s_name_is_not_fine_tuned(tmp_path):
    """It would train the expert alone and say nothing. Refused before the data are looked through."""
    numbered = replace(preset("tiny").adapters, names=("0", "1"))
    request = Request(
        base=tiny_checkpoint(tmp_path / "numbered", "generalist", adapters=numbered),
        datasets=[(tmp_path / "nowhere", 1.0)], reading=Reading(), run_dir=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"numbered: .*adapters are 0, 1; expected one called action.*--adapter-names"):
        prepare(request, Processes())
    lerobot_v3(tmp_path / "kitchen", episodes=2)
    named = tiny_checkpoint(tmp_path / "named", "generalist")
    stage = prepare(replace(request, base=named, datasets=[(tmp_path / "kitchen", 1.0)]), Processes())[0].stage
    stage.trainable()
    moved = {name for name, parameter in stage.policy.named_parameters() if parameter.requires_grad}
    assert any(".lora_A.action." in name for name in moved) and not any(".language." in name for name in moved)
