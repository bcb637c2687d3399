"""A base for stage 1: Eagle2-2B's kind of folder and a DINOv2's state dict become a policy that can be trained."""

import re

import golden_tensors as golden
import numpy as np
import pytest
import released_files as files
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from instructvla_model import checkpoint
from instructvla_model.expert import ActionExpert
from instructvla_model.manifest import CheckpointError
from instructvla_model.released.dinov2 import resampled
from instructvla_model.released.importing import ImportOptions, describe, import_checkpoint

SIZES = golden.tiny_reference_config(latent_dim=32)
TOWER = "film_vision_model.vision_model."


def vit(depth=4, grid=6, registers=4, dim=64, mlp=256, patch=14):
    """Random numbers under timm's names of a ViT with registers and layer scale, without a classifier."""
    generator = torch.Generator().manual_seed(5)
    block = {
        "norm1.weight": (dim,), "norm1.bias": (dim,), "attn.qkv.weight": (3 * dim, dim), "attn.qkv.bias": (3 * dim,),
        "attn.proj.weight": (dim, dim), "attn.proj.bias": (dim,), "ls1.gamma": (dim,), "norm2.weight": (dim,),
        "norm2.bias": (dim,), "mlp.fc1.weight": (mlp, dim), "mlp.fc1.bias": (mlp,), "mlp.fc2.weight": (dim, mlp),
        "mlp.fc2.bias": (dim,), "ls2.gamma": (dim,),
    }  # fmt: skip
    shapes = {
        "cls_token": (1, 1, dim), "reg_token": (1, registers, dim), "pos_embed": (1, grid**2, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,),
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()},
        "norm.weight": (dim,), "norm.bias": (dim,),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def makers_names(timm):
    """The same network as its makers store it: the class token has a position of its own, the first."""
    first = torch.full_like(timm["cls_token"], 0.5)
    others = {name: t for name, t in timm.items() if name not in ("cls_token", "reg_token", "pos_embed")}
    return others | {
        "cls_token": timm["cls_token"] - first, "pos_embed": torch.cat([first, timm["pos_embed"]], dim=1),
        "register_tokens": timm["reg_token"], "mask_token": torch.zeros(1, timm["cls_token"].shape[-1]),
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A backbone's folder, and a ViT's state dict beside it."""
    files.write_backbone(tmp_path / "eagle")
    save_file(vit(), tmp_path / "vit.safetensors")
    return tmp_path


def bring_in(folder, name="vit.safetensors", out="base", **options):
    options = ImportOptions(dinov2=folder / name, **options)
    return import_checkpoint(folder / "eagle", folder / out, SIZES, options=options)


def test_a_backbone_and_a_dinov2_make_a_base_that_stage_1_can_train(folder):
    imported = bring_in(folder)
    manifest = imported.manifest
    assert (manifest.stage, manifest.config.expert.attention, manifest.statistics) == ("base", "block_causal", None)
    assert manifest.training["dinov2"] == "vit.safetensors" and "recipe" not in manifest.training
    policy, _, _ = checkpoint.load_policy(folder / "base")
    policy.set_stage("expert")
    given, held = vit(), policy.expert.state_dict()
    for name, tensor in given.items():
        ours = re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.block.", name)
        if name != "pos_embed":
            assert torch.equal(held[TOWER + ours], tensor), name
    alone = import_checkpoint(folder / "eagle", folder / "alone", SIZES)
    assert alone.manifest.stage == "base"
    vlm = load_file(folder / "alone" / "model.safetensors")
    whole = load_file(folder / "base" / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in vlm.items())


def test_all_else_of_the_expert_is_as_its_modules_begin_with_the_seed(folder):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    imported = bring_in(folder, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    held = checkpoint.load_policy(folder / "base")[0].expert.state_dict()
    torch.manual_seed(7)
    begun = ActionExpert(imported.manifest.config).state_dict()
    fresh = [name.removeprefix("expert.") for name in imported.fresh if name.startswith("expert.")]
    assert {name.split(".")[0] for name in fresh} == {name.split(".")[0] for name in begun}
    assert all(torch.equal(held[name], begun[name]) for name in fresh)
    film = [name for name in fresh if name.startswith(TOWER)]
    assert len(film) == 4 * 4 and all(".scale." in name or ".shift." in name for name in film)
    told = [text for label, text in describe(imported) if label == "freshly initialised"]
    assert told[:2] == ["vlm.query_embed", "vlm.query_head"]
    assert "expert.film_vision_model: 16 tensors" in told and len(told) < 12
    other = bring_in(folder, out="other", seed=8)
    assert other.manifest.weights_sha256 != imported.manifest.weights_sha256


def test_positions_are_resampled_as_a_picture_is_bicubic_with_antialiasing(folder):
    bring_in(folder)
    held = checkpoint.load_policy(folder / "base")[0].expert.state_dict()[TOWER + "pos_embed"]
    grid = vit()["pos_embed"].view(6, 6, 64).numpy()
    for channel in (0, 63):
        picture = Image.fromarray(np.ascontiguousarray(grid[..., channel])).resize((4, 4), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(held.view(4, 4, 64)[..., channel].numpy(), np.asarray(picture), atol=1e-5)


def test_positions_of_the_tower_s_own_grid_stay_as_they_are(folder):
    same = torch.randn(1, 16, 8)
    assert resampled(same, 4, folder) is same


@pytest.mark.parametrize("name", ["vit.pth", "vit.bin", "makers.pth", "makers.safetensors"])
def test_other_containers_and_the_makers_own_names_hold_the_same_network(folder, name):
    first = bring_in(folder)
    content = makers_names(vit()) if name.startswith("makers") else vit()
    if name.endswith(".safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in content.items()}, folder / name)
    else:
        torch.save(content, folder / name)
    again = bring_in(folder, name, out="again")
    if not name.startswith("makers"):
        assert again.manifest.weights_sha256 == first.manifest.weights_sha256
    a, b = (checkpoint.load_policy(folder / out)[0].expert.state_dict() for out in ("base", "again"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-6, rtol=0)


def test_the_released_code_s_values_and_dropped_blocks_go_with_a_dinov2_too(folder):
    imported = bring_in(folder, regime="reference", drop_unread=True)
    assert (imported.manifest.config.film.depth, imported.manifest.config.film.n_blocks_used) == (3, 3)
    (left,) = imported.skipped.values()
    assert {name for name in left if not name.startswith("blocks.3.")} == {"norm.bias", "norm.weight"}
    assert imported.notes == ()
    checkpoint.load_policy(folder / "base")


def test_numbers_are_stored_in_the_type_of_both_files_or_in_float32(folder):
    assert bring_in(folder).manifest.storage_dtype == "float32"
    half = {name: tensor.bfloat16() for name, tensor in vit().items()}
    save_file(half, folder / "half.safetensors")
    assert bring_in(folder, "half.safetensors", out="mixed").manifest.storage_dtype == "float32"
    for shard in (folder / "eagle").glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(shard).items()}, shard)
    assert bring_in(folder, "half.safetensors", out="both").manifest.storage_dtype == "bfloat16"


def changed(**tensors):
    return {name: tensor for name, tensor in (vit() | tensors).items() if tensor is not None}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (changed(reg_token=None), "lacks tensor 'reg_token'; expected shape \\(1, 4, 64\\)"),
        (vit(depth=3), "lacks tensor 'blocks.3"),
        (vit(depth=5), "unknown tensor 'blocks.4.*of 4 blocks"),
        (vit(mlp=128), "tensor 'blocks.0.mlp.fc1.bias' has shape \\(128,\\); expected \\(256,\\)"),
        (changed(pos_embed=torch.zeros(1, 37, 64)), "has 37 positions; expected those of a square grid"),
        (changed(pos_embed=torch.zeros(36, 64)), "'pos_embed' has shape \\(36, 64\\)"),
        (changed(**{"head.weight": torch.zeros(10, 64)}), "unknown tensor 'head.weight'"),
        (changed(cls_token=torch.full((1, 1, 64), float("nan"))), "holds NaN or infinity"),
        ({"register_tokens": torch.zeros(1, 4, 64), "pos_embed": torch.zeros(37)}, "do not go together"),
        (changed(cls_token=torch.zeros(1, 1, 64, dtype=torch.int64)), "int64"),
    ],
)
def test_another_vit_is_refused_by_the_tensor_s_name_and_nothing_is_left(folder, content, told):
    torch.save(content, folder / "other.pth")
    with pytest.raises(CheckpointError, match=told):
        bring_in(folder, "other.pth")
    assert not (folder / "base").exists()


def test_a_missing_file_and_one_with_code_in_it_are_refused(folder):
    with pytest.raises(CheckpointError, match=r"no\.pth is missing; expected the state dict of a DINOv2"):
        bring_in(folder, "no.pth")
    torch.save({"cls_token": print}, folder / "code.pth")
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        bring_in(folder, "code.pth")


def test_a_file_that_has_an_expert_or_adapters_takes_no_dinov2(folder):
    run = files.make_run(folder, 1)
    options = ImportOptions(dinov2=folder / "vit.safetensors")
    with pytest.raises(CheckpointError, match="holds an action expert already"):
        import_checkpoint(run.file, folder / "ours", run.preset, run.backbone, options=options)
    del run.model["action_model"]
    torch.save({"model": run.model}, run.file)
    with pytest.raises(CheckpointError, match="holds adapters already"):
        import_checkpoint(run.file, folder / "ours", run.preset, run.backbone, options=options)
    with pytest.raises(CheckpointError, match="expected one of them"):
        ImportOptions(dinov2=folder / "vit.safetensors", adapters={"action": folder})


def test_a_base_without_an_expert_says_how_to_get_one(folder):
    import_checkpoint(folder / "eagle", folder / "alone", SIZES)
    with pytest.raises(CheckpointError, match=r"holds no action expert.*--dinov2"):
        checkpoint.load_policy(folder / "alone")
