"""Released files become checkpoints with the reference's numbers, and go back bit for bit."""

import dataclasses
import json

import golden_tensors as golden
import pytest
import released_files as files
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, SiglipVisionConfig

from instructvla_model import checkpoint, weights
from instructvla_model.manifest import CheckpointError
from instructvla_model.presets import preset
from instructvla_model.released.exporting import export_checkpoint
from instructvla_model.released.importing import ImportOptions, describe, import_checkpoint
from instructvla_model.released.statistics import read_statistics
from instructvla_model.released.variant import with_variant

STAGES = {1: "expert", 2: "generalist"}


def latents(folder, run, sample="s0"):
    """Latents of the fixture's first sample by an imported checkpoint."""
    policy = checkpoint.load_policy(folder)[0].eval()
    ids = run.new_id[run.tensors[f"{sample}.in.ids"]]
    with torch.no_grad():
        embeds = policy.vlm.embed(ids, policy.vlm.encode_images(run.tensors[f"{sample}.in.pixels"]))
        return policy.vlm.latents_of(policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds)), ids)


def same(a, b):
    assert a.keys() == b.keys()
    for part in a:
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])


@pytest.mark.parametrize("stage", STAGES)
def test_a_released_run_gives_the_references_numbers_and_goes_back_bit_for_bit(tmp_path, stage):
    run = files.make_run(tmp_path, stage)
    imported = import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone)
    manifest = imported.manifest
    config = manifest.config
    assert (manifest.stage, manifest.horizon, manifest.n_queries, manifest.state_dim) == (STAGES[stage], 6, 8, 0)
    assert (config.adapters.rank, config.adapters.scale) == (128 if stage == 1 else 4, 2.0)
    assert config.adapters.names == (("action", "language") if stage == 1 else ("0", "1"))
    assert (config.expert.attention, config.text_cache, config.film.depth) == ("additive_bias", "shared", 4)
    assert list(imported.skipped.values()) == [("vision_model.vision_model.head.probe",)]
    assert imported.fresh == ()
    torch.testing.assert_close(
        latents(tmp_path / "ours", run), run.tensors["s0.out.latent"], atol=golden.FUSED_ATOL, rtol=0
    )
    (file,) = export_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    back = torch.load(file, weights_only=True)["model"]
    del run.model["vision_model"]["vision_model.head.probe"]
    same(back, run.model)
    again = import_checkpoint(file, tmp_path / "again", run.preset, run.backbone)
    assert again.manifest.weights_sha256 == manifest.weights_sha256


def test_flat_names_are_the_same_file(tmp_path):
    run = files.make_run(tmp_path, 1)
    flat = {f"{part}.{key}": t for part, held in run.model.items() for key, t in held.items()}
    flat = {name if name.startswith("action_model.") else f"vlm.{name}": t for name, t in flat.items()}
    torch.save(flat, tmp_path / "flat.pt")
    a = import_checkpoint(run.file, tmp_path / "a", run.preset, run.backbone)
    b = import_checkpoint(tmp_path / "flat.pt", tmp_path / "b", run.preset, run.backbone)
    assert a.manifest.weights_sha256 == b.manifest.weights_sha256


def test_an_unloaded_stage_1_with_its_adapter_beside_it_is_stage_1_again(tmp_path):
    run = files.make_run(tmp_path, 1)
    torch.save({"model": files.unloaded(run.model)}, tmp_path / "unloaded.pt")
    adapter = files.write_adapter(tmp_path / "adapter", run.model["language_model"], 128)
    bare = import_checkpoint(tmp_path / "unloaded.pt", tmp_path / "bare", run.preset, run.backbone)
    assert bare.manifest.stage == "base"
    (file,) = export_checkpoint(tmp_path / "bare", tmp_path / "back.pt")
    model = files.unloaded(run.model)
    del model["vision_model"]["vision_model.head.probe"]
    same(torch.load(file, weights_only=True)["model"], model)
    options = ImportOptions(adapters={"action": adapter})
    import_checkpoint(tmp_path / "unloaded.pt", tmp_path / "ours", run.preset, run.backbone, options=options)
    torch.testing.assert_close(
        latents(tmp_path / "ours", run), run.tensors["s0.out.latent"], atol=golden.FUSED_ATOL, rtol=0
    )
    out = export_checkpoint(tmp_path / "ours", tmp_path / "peft", "peft")
    assert {path.parent.name for path in out} == {"action"}
    back, given = (load_file(p / "adapter_model.safetensors") for p in (tmp_path / "peft" / "action", adapter))
    same({"": back}, {"": given})


def test_two_adapters_over_an_unloaded_stage_1_get_a_fresh_gate_and_say_so(tmp_path):
    run = files.make_run(tmp_path, 1)
    torch.save({"model": files.unloaded(run.model)}, tmp_path / "unloaded.pt")
    folders = {
        name: files.write_adapter(tmp_path / name, run.model["language_model"], 128) for name in ("action", "language")
    }
    options = ImportOptions(adapters=folders)
    imported = import_checkpoint(tmp_path / "unloaded.pt", tmp_path / "ours", run.preset, run.backbone, options=options)
    assert imported.manifest.stage == "generalist"
    assert imported.fresh and all(name.startswith("vlm.gate.") for name in imported.fresh)
    # both adapters are the same here: whatever the gate says, they sum to the one of stage 1
    torch.testing.assert_close(
        latents(tmp_path / "ours", run), run.tensors["s0.out.latent"], atol=golden.FUSED_ATOL, rtol=0
    )


@pytest.mark.parametrize("padding", [0, 3])
def test_a_backbone_in_shards_becomes_a_base_checkpoint_and_a_backbone_again(tmp_path, padding):
    folder, tensors = files.write_backbone(tmp_path / "eagle", padding)
    sizes = golden.tiny_reference_config(latent_dim=32)
    imported = import_checkpoint(folder, tmp_path / "ours", sizes)
    config = imported.manifest.config
    assert (imported.manifest.stage, config.language.vocab_size, config.n_queries) == ("base", 130, 8)
    assert (config.expert.attention, config.text_cache) == ("block_causal", "clean")
    assert imported.fresh == ("vlm.query_embed", "vlm.query_head")
    vlm = checkpoint.load_parts(tmp_path / "ours", parts=("vlm",)).vlm.eval()
    with torch.no_grad():
        hidden = vlm.hidden(vlm.embed(tensors["in.ids"], vlm.encode_images(tensors["in.pixels"])))
        logits = vlm.logits(hidden)[..., :130]
    torch.testing.assert_close(logits, tensors["out.logits"], atol=1e-5, rtol=0)
    export_checkpoint(tmp_path / "ours", tmp_path / "back", "eagle")
    again = import_checkpoint(tmp_path / "back", tmp_path / "again", sizes)
    assert again.manifest.weights_sha256 == imported.manifest.weights_sha256
    assert again.manifest.config == config
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == set(golden.weights(tensors, ""))
    with pytest.raises(CheckpointError, match="holds no action expert"):
        checkpoint.load_parts(tmp_path / "ours")


def test_one_table_for_both_ends_is_stored_once(tmp_path):
    folder, _ = files.write_backbone(tmp_path / "eagle")
    for shard in folder.glob("*.safetensors"):
        tensors = load_file(shard)
        tensors.pop("language_model.lm_head.weight", None)
        weights.write(shard, tensors)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    del index["weight_map"]["language_model.lm_head.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    imported = import_checkpoint(folder, tmp_path / "ours", golden.tiny_reference_config(latent_dim=32))
    assert imported.manifest.config.language.tie_embeddings
    assert imported.fresh == ("vlm.query_embed",)


def test_unread_blocks_go_on_request_and_the_numbers_stay(tmp_path):
    run = files.make_run(tmp_path, 2)
    whole = import_checkpoint(run.file, tmp_path / "whole", run.preset, run.backbone)
    options = ImportOptions(drop_unread=True, adapter_names=("action", "language"))
    small = import_checkpoint(run.file, tmp_path / "small", run.preset, run.backbone, options=options)
    assert small.manifest.config.film.depth == 3
    assert small.manifest.config.adapters.names == ("action", "language")
    left = {name for names in small.skipped.values() for name in names}
    tower = "action_model.film_vision_model.vision_model."
    assert {name for name in left if name.startswith(tower)} == {
        f"action_model.{key}" for key in run.model["action_model"]
        if key.startswith(("film_vision_model.vision_model.blocks.3.", "film_vision_model.vision_model.norm."))
    }  # fmt: skip
    pixels, plan = torch.randn(1, 1, 3, 56, 56), torch.randn(1, 8, 32)
    with torch.no_grad():
        a, b = (
            checkpoint.load_policy(tmp_path / name)[0].eval().expert.encode_prefix(pixels, plan).tokens_BPD
            for name in ("whole", "small")
        )
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert len(describe(small)) > len(describe(whole))
    again = import_checkpoint(
        export_checkpoint(tmp_path / "small", tmp_path / "small.pt")[0], tmp_path / "again", run.preset, run.backbone,
        options=ImportOptions(adapter_names=("action", "language")),
    )  # fmt: skip
    assert again.manifest.weights_sha256 == small.manifest.weights_sha256


def test_the_regime_is_the_importers_word(tmp_path):
    run = files.make_run(tmp_path, 1)
    options = ImportOptions(regime="paper", dtype="bfloat16")
    manifest = import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone, options=options).manifest
    assert (manifest.config.expert.attention, manifest.config.film.n_blocks_used) == ("block_causal", None)
    assert (manifest.storage_dtype, manifest.training["regime"]) == ("bfloat16", "paper")


class Names:
    """A file of which only names and shapes are known."""

    path, padded = "released.pt", False

    def __init__(self, shapes):
        self.shapes = shapes
        self.names = frozenset(shapes)

    def shape(self, name):
        return self.shapes[name]


def full_size(horizon, state):
    """The names that tell a released policy of full size from the others."""
    shapes = {
        "language_model.base_model.model.model.embed_tokens.weight": (151738, 1536),
        "language_model.base_model.model.lm_head.weight": (151738, 1536),
        "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": (128, 1536),
        "action_model.film_vision_model.vision_model.blocks.0.scale.weight": (1024, 1536),
        **{f"action_model.action_head.{i}.bias": (w,) for i, w in ((0, 3072), (2, 1536), (4, 384), (6, 7 * horizon))},
    }
    return Names(shapes | ({"action_model.state_embed.0.weight": (768, 8)} if state else {}))


@pytest.mark.parametrize(
    ("horizon", "state", "right"), [(16, False, "2b"), (16, True, "2b-state"), (8, False, "2b-libero")]
)
def test_cameras_and_times_are_the_preset_s_and_another_file_s_preset_is_refused_by_name(horizon, state, right):
    for name in ("2b", "2b-state", "2b-libero"):
        if name != right:
            with pytest.raises(CheckpointError, match=rf"is a policy of {horizon} steps .* give the preset '{right}'$"):
                with_variant(full_size(horizon, state), preset(name), 151674)
    config, wanted = with_variant(full_size(horizon, state), preset(right), 151674), preset(right)
    assert (config.views, config.vlm_input, config.dt_s) == (wanted.views, wanted.vlm_input, wanted.dt_s)
    assert config.lowercase_instructions is wanted.lowercase_instructions


def test_a_policy_that_no_preset_has_is_refused_with_what_it_is():
    with pytest.raises(CheckpointError, match=r"is a policy of 12 steps and no state; .* no preset has both"):
        with_variant(full_size(12, False), preset("2b"), 151674)


def test_cameras_and_the_length_of_a_step_can_be_said(tmp_path):
    run = files.make_run(tmp_path, 1)
    options = ImportOptions(views=("primary", "wrist"), dt_s=1 / 3)
    config = import_checkpoint(run.file, tmp_path / "two", run.preset, run.backbone, options=options).manifest.config
    assert (config.views, config.vlm_input, config.dt_s) == (("primary", "wrist"), "side_by_side", 1 / 3)
    assert config.vlm_recipe == "siglip_libero"
    config = import_checkpoint(run.file, tmp_path / "one", run.preset, run.backbone).manifest.config
    assert (config.views, config.vlm_input, config.dt_s) == (run.preset.views, "first_view", 0.2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_numbers_keep_the_source_s_type_there_and_back(tmp_path, kind):
    run = files.make_run(tmp_path, 1)
    model = {part: {name: t.to(kind) for name, t in held.items()} for part, held in run.model.items()}
    torch.save({"model": model}, run.file)
    manifest = import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone).manifest
    assert manifest.storage_dtype == str(kind).removeprefix("torch.")
    (file,) = export_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    del model["vision_model"]["vision_model.head.probe"]
    same(torch.load(file, weights_only=True)["model"], model)


def test_files_of_several_number_types_are_kept_in_float32(tmp_path):
    run = files.make_run(tmp_path, 1)
    model = run.model | {"mlp1": {name: t.bfloat16() for name, t in run.model["mlp1"].items()}}
    torch.save({"model": model}, run.file)
    assert import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone).manifest.storage_dtype == "float32"


@pytest.mark.parametrize("stage", STAGES)
def test_a_vision_language_model_alone_keeps_its_query_rows_and_adapters(tmp_path, stage):
    run = files.make_run(tmp_path, stage)
    del run.model["action_model"], run.model["vision_model"]["vision_model.head.probe"]
    torch.save({"model": run.model}, run.file)
    imported = import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone)
    assert (imported.fresh, imported.manifest.n_queries, imported.manifest.stage) == ((), 8, STAGES[stage])
    (file,) = export_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    same(torch.load(file, weights_only=True)["model"], run.model)


def test_a_backbone_exported_as_one_file_keeps_its_query_rows(tmp_path):
    folder, _ = files.write_backbone(tmp_path / "eagle")
    sizes = golden.tiny_reference_config(latent_dim=32)
    first = import_checkpoint(folder, tmp_path / "ours", sizes)
    (file,) = export_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    again = import_checkpoint(file, tmp_path / "again", sizes, folder)
    assert (again.fresh, again.manifest.weights_sha256) == ((), first.manifest.weights_sha256)


def test_an_exported_run_has_what_the_released_code_reads_beside_it(tmp_path):
    run = files.make_run(tmp_path, 2)
    given = tmp_path / "run2" / "dataset_statistics.json"
    options = ImportOptions(dataset="bridge_dataset")
    import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone, read_statistics(given), options)
    out = tmp_path / "back" / "checkpoints" / "step-000001-epoch-00-loss=0.1.pt"
    written = export_checkpoint(tmp_path / "ours", out)
    assert {path.relative_to(tmp_path / "back").as_posix() for path in written} == {
        "config.json", "dataset_statistics.json", f"checkpoints/{out.name}"
    }  # fmt: skip
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == {"stage": "stage2", "num_of_meta_query": 8}
    assert read_statistics(tmp_path / "back" / "dataset_statistics.json") == read_statistics(given)
    assert list(json.loads((tmp_path / "back" / "dataset_statistics.json").read_text())) == ["bridge_dataset"]
    with pytest.raises(CheckpointError, match=r"config\.json exists"):
        export_checkpoint(tmp_path / "ours", out.with_name("other.pt"))
    assert not out.with_name("other.pt").exists()


def test_an_exported_backbone_says_everything_about_itself(tmp_path):
    folder, _ = files.write_backbone(tmp_path / "eagle", padding=3)
    import_checkpoint(folder, tmp_path / "ours", golden.tiny_reference_config(latent_dim=32))
    export_checkpoint(tmp_path / "ours", tmp_path / "back", "eagle")
    values = json.loads((tmp_path / "back" / "config.json").read_text())
    words, vision = values["llm_config"], values["vision_config"]
    assert (values["model_type"], words["model_type"], vision["model_type"]) == (
        "eagle_chat", "qwen2", "siglip_vision_model"
    )  # fmt: skip
    assert (words["num_hidden_layers"], vision["num_hidden_layers"], words["vocab_size"]) == (2, 2, 130)
    assert Qwen2Config(**words).num_key_value_heads == SiglipVisionConfig(**vision).num_attention_heads == 2


def test_what_was_left_out_is_written_down_by_name(tmp_path):
    run = files.make_run(tmp_path, 1)
    imported = import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone)
    skipped = checkpoint.read_manifest(tmp_path / "ours").training["skipped"]
    assert skipped == {reason: list(names) for reason, names in imported.skipped.items()}
    assert list(skipped.values()) == [["vision_model.vision_model.head.probe"]]


def test_asking_to_drop_blocks_that_are_all_read_is_answered(tmp_path):
    run = files.make_run(tmp_path, 1)
    for name, regime, notes in (("paper", "paper", 1), ("reference", None, 0)):
        options = ImportOptions(regime=regime, drop_unread=True)
        imported = import_checkpoint(run.file, tmp_path / name, run.preset, run.backbone, options=options)
        assert len(imported.notes) == notes
        assert ("note" in dict(describe(imported))) == bool(notes)


def test_the_same_file_in_another_regime_is_another_checkpoint(tmp_path):
    run = files.make_run(tmp_path, 1)
    made = [
        import_checkpoint(run.file, tmp_path / name, run.preset, run.backbone, options=ImportOptions(regime=name))
        for name in ("paper", "reference")
    ]
    assert len({one.manifest.weights_sha256 for one in made}) == 1
    assert len({one.manifest.checkpoint_id for one in made}) == 2


class Peak(TorchDispatchMode):
    """Largest single allocation that PyTorch makes, in bytes; views of existing storage do not count."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
                continue
            if tensor.untyped_storage().data_ptr() not in inputs:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_importing_copies_no_tensor(tmp_path, monkeypatch):
    """Tensors are mapped from the file and written in pieces: nothing as large as a tensor is ever allocated."""
    monkeypatch.setattr(weights, "_CHUNK", 1 << 10)
    run = files.make_run(tmp_path, 1)
    big = "base_model.model.model.layers.0.mlp.gate_proj.weight"
    largest = max(t.nbytes for held in run.model.values() for t in held.values())
    assert run.model["language_model"][big].nbytes > 4096
    with Peak() as peak:
        import_checkpoint(run.file, tmp_path / "ours", run.preset, run.backbone)
    assert largest > 50_000
    assert 0 < peak.bytes <= 4 << 10


def test_presets_of_other_sizes_are_refused_by_the_tensors_name(tmp_path):
    run = files.make_run(tmp_path, 1)
    wider = dataclasses.replace(run.preset, vision=dataclasses.replace(run.preset.vision, mlp_size=52))
    with pytest.raises(CheckpointError, match=r"'vision_model.*fc1.bias' has shape \(48,\); expected \(52,\)"):
        import_checkpoint(run.file, tmp_path / "ours", wider, run.backbone)
    assert not (tmp_path / "ours").exists()
