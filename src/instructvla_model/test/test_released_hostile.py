"""Released files that mislead: tensors of other kinds and sizes, names that lie, settings that change the numbers."""

import dataclasses
import json
import time

import pytest
import released_files as files
import torch
from safetensors.torch import load_file, save_file

from instructvla_model.config import AdapterConfig
from instructvla_model.manifest import CheckpointError
from instructvla_model.normalization import FieldStatistics, Statistics
from instructvla_model.released.importing import ImportOptions, import_checkpoint
from instructvla_model.released.layout import released_name

LANGUAGE = "base_model.model.model."
LORA = LANGUAGE + "layers.0.self_attn.q_proj.lora_A.default.weight"
GATE = "base_model.internal_xlora_classifier.layers.9.bias"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return files.make_run(tmp_path_factory.mktemp("mixed"), 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return files.make_run(tmp_path_factory.mktemp("made"), 1)


@pytest.fixture
def refused(made, tmp_path):
    """Import the run's model after `edit` changed it, expecting words soon; nothing is left behind."""

    def check(words, edit=lambda model: None, run=made, statistics=None, **options):
        model = {part: dict(held) for part, held in run.model.items()}
        edit(model)
        file = tmp_path / "released.pt"
        torch.save({"model": model}, file)
        begin = time.monotonic()
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(
                file, tmp_path / "ours", run.preset, run.backbone, statistics, ImportOptions(**options)
            )  # fmt: skip
        assert time.monotonic() - begin < 10.0
        assert not (tmp_path / "ours").exists()

    return check


@pytest.fixture
def adapter(made, tmp_path):
    """The adapter of stage 1 in a folder, and a way to import it over the unloaded file expecting words."""
    torch.save({"model": files.unloaded(made.model)}, tmp_path / "unloaded.pt")
    folder = files.write_adapter(tmp_path / "adapter", made.model["language_model"], 128)

    def check(words, **names):
        with pytest.raises(CheckpointError, match=words):
            options = ImportOptions(adapters=names or {"action": folder})
            import_checkpoint(
                tmp_path / "unloaded.pt", tmp_path / "ours", made.preset, made.backbone, options=options
            )  # fmt: skip
        assert not (tmp_path / "ours").exists()

    return folder, check


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("language_model", LANGUAGE + "embed_tokens.weight"),
        ("language_model", LORA),
        ("action_model", "action_head.0.bias"),
        ("action_model", "action_head.6.bias"),
        ("action_model", "state_embed.0.weight"),
        ("mlp1", "1.weight"),
    ],
)
def test_a_tensor_of_too_few_dimensions_is_named(refused, part, name):
    wanted = 1 if name.endswith("bias") else 2
    for shape in [(), (7,)][:wanted]:
        refused(rf"'{part}.{name}' has shape .*; expected {wanted} dimensions", lambda m, s=shape: m[part].update(
            {name: torch.ones(s)}))  # fmt: skip


def test_a_gate_of_too_few_dimensions_too_wide_or_gone_is_named(mixed, refused):
    for value, words in ((torch.tensor(1.0), "expected 1 dimensions"), (torch.ones(100_000), "weighs 100000 adapters")):
        refused(rf"internal_xlora_classifier.layers.9.bias'.* {words}", lambda m, v=value: m["language_model"].update(
            {GATE: v}), run=mixed)  # fmt: skip

    def without_gate(model):
        model["language_model"] = {k: t for k, t in model["language_model"].items() if "internal_xlora" not in k}

    refused("lacks tensor 'language_model.base_model.internal_xlora_classifier", without_gate, run=mixed)


DENSE = torch.ones(24, 96)
STRANGE = {
    "layout torch.sparse_coo": DENSE.to_sparse(),
    "torch.float8_e4m3fn": DENSE.to(torch.float8_e4m3fn),
    "torch.int8": DENSE.to(torch.int8),
    "torch.bool": DENSE.to(torch.bool),
    "device 'meta'": DENSE.to("meta"),
    "a view of shape": torch.ones(1).expand(24, 96),
}


@pytest.mark.parametrize(("words", "tensor"), STRANGE.items(), ids=list(STRANGE))
def test_a_tensor_that_is_not_plain_floats_in_memory_is_named(refused, words, tensor):
    refused(rf"'mlp1.1.weight' is .*{words}", lambda m: m["mlp1"].update({"1.weight": tensor}))


def test_a_table_of_a_billion_rows_that_are_one_is_refused_at_once(refused):
    refused("is a view of shape", lambda m: m["language_model"].update(
        {LANGUAGE + "embed_tokens.weight": torch.ones(1, 32).expand(1_000_000_000, 32)}))  # fmt: skip


def test_more_query_rows_than_any_policy_has_are_refused(refused):
    refused(r"has 5000 rows for a tokenizer of 105 .* 1 to 1024 more", lambda m: m["language_model"].update(
        {LANGUAGE + "embed_tokens.weight": torch.ones(5000, 32)}))  # fmt: skip


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("language_model", LANGUAGE + "layers.20000.x"),
        ("language_model", LANGUAGE + "layers.3.x"),
        ("action_model", "film_vision_model.vision_model.blocks.999999999.x"),
        ("action_model", "VideoGPT.model.layers.02.x"),
        ("vision_model", "vision_model.encoder.layers.1000000000000000000000.x"),
    ],
)
def test_layers_are_counted_from_names_only_where_none_is_left_out(refused, part, name):
    refused(rf"holds tensor '{part}.{name}' among .* without a gap", lambda m: m[part].update({name: torch.ones(1)}))


def test_more_layers_than_any_policy_has_are_refused(refused):
    many = {f"{LANGUAGE}layers.{i}.x": torch.ones(1) for i in range(300)}
    refused("among 300 layers; .* at most 128", lambda m: m["language_model"].update(many))


# ---- numbers ------------------------------------------------------------------------------------------------


def test_numbers_beyond_half_precision_are_refused_not_made_infinite(refused):
    def large(model):
        model["mlp1"] = model["mlp1"] | {"1.bias": torch.full((32,), 70_000.0)}

    refused(r"'vlm.mlp1.1.bias' holds numbers beyond the largest of float16, 65504", large, dtype="float16")


def test_statistics_of_other_dimensions_are_refused(refused):
    def of(n):
        return FieldStatistics(*([(0.0,) * n, (1.0,) * n] * 3), mask=(True,) * n)

    refused("actions of 6 numbers; expected 7", statistics=Statistics(of(6)))


# ---- adapters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("a.b", "c"), ("", ""), ("1", "0"), ("a", "a"), ("keys", "x"), ("training", "x")])
def test_adapter_names_that_no_module_can_have_are_refused(names):
    with pytest.raises(CheckpointError, match=r"adapters named .*\(--adapter-names\); expected different names"):
        ImportOptions(adapter_names=names)


def test_the_numbers_that_adapters_have_already_are_names_too():
    assert ImportOptions(adapter_names=("0", "1")).adapter_names == ("0", "1")


def test_each_name_of_an_adapter_is_replaced_once():
    config = dataclasses.replace(files.golden.tiny_reference_config(), adapters=AdapterConfig(names=("1", "0")))
    for adapter, place in (("1", 0), ("0", 1)):
        ours = f"vlm.language_model.model.layers.0.self_attn.q_proj.lora_A.{adapter}.weight"
        assert released_name(ours, config, "generalist").endswith(f".lora_A.{place}.weight")


def test_adapters_keep_their_places_whatever_they_are_called(tmp_path):
    """A name that is a part of another, or another's number, is no longer taken for it."""
    run = files.make_run(tmp_path, 2)
    a = import_checkpoint(run.file, tmp_path / "a", run.preset, run.backbone)
    options = ImportOptions(adapter_names=("x1", "x10"))
    b = import_checkpoint(run.file, tmp_path / "b", run.preset, run.backbone, options=options)
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert a.manifest.config.adapters.names == ("0", "1") and b.fresh == ()
    for name, tensor in new.items():
        assert torch.equal(tensor, old[name.replace(".x10.", ".1.").replace(".x1.", ".0.")])


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 1}},
        {"rank_pattern": {"q_proj": 1}},
        {"fan_in_fan_out": True},
        {"use_dora": True},
        {"layers_to_transform": [0]},
        {"init_lora_weights": "pissa"},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear"},
        {"lora_alpha": -256},
        {"lora_alpha": True},
        {"lora_alpha": float("inf")},
        {"lora_alpha": 10**400},
        {"lora_alpha": None},
        {"r": True},
        {"r": 0},
    ],
)
def test_peft_settings_that_change_the_numbers_are_refused_by_name(adapter, changes):
    folder, check = adapter
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (name,) = changes
    check(rf"adapter_config.json: (.* and )?{name} (is )?")


def test_settings_that_change_nothing_are_accepted(adapter, made, tmp_path):
    folder, _ = adapter
    path = folder / "adapter_config.json"
    plain = {"use_rslora": False, "alpha_pattern": {}, "init_lora_weights": True, "target_modules": None, "r": 128}
    path.write_text(json.dumps(json.loads(path.read_text()) | plain))
    options = ImportOptions(adapters={"action": folder})
    import_checkpoint(tmp_path / "unloaded.pt", tmp_path / "ours", made.preset, made.backbone, options=options)


def test_adapter_files_of_integers_or_of_nan_are_refused_by_their_own_name(adapter):
    folder, check = adapter
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name].to(torch.int8)}, file)
    check(rf"adapter_model.safetensors: tensor '{name}' is of type I8")
    save_file(tensors | {name: tensors[name] * float("nan")}, file)
    check(rf"adapter_model.safetensors: tensor '{name}' holds NaN")


def test_a_missing_adapter_folder_and_a_lone_other_adapter_are_named(adapter, tmp_path):
    folder, check = adapter
    check("adapter folder .*nowhere does not exist", action=tmp_path / "nowhere")
    check(r"one adapter, named 'lang' \(--adapter\); expected action=DIR", lang=folder)


# ---- backbones ----------------------------------------------------------------------------------------------


def test_integers_in_a_backbone_are_refused_by_name(tmp_path):
    folder, _ = files.write_backbone(tmp_path / "eagle")
    shard = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    for kind, code in ((torch.int32, "I32"), (torch.bool, "BOOL"), (torch.float8_e5m2, "F8_E5M2")):
        save_file(tensors | {name: tensors[name].to(kind)}, shard)
        with pytest.raises(CheckpointError, match=rf"tensor '{name}' is of type {code}"):
            import_checkpoint(folder, tmp_path / "ours", files.golden.tiny_reference_config(latent_dim=32))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"use_sliding_window": True},
        {"hidden_act": "gelu"},
        {"num_attention_heads": 0},
    ],
)
def test_backbone_settings_that_change_the_numbers_are_refused_by_name(tmp_path, changes):
    folder, _ = files.write_backbone(tmp_path / "eagle")
    values = json.loads((folder / "config.json").read_text())
    values["llm_config"] |= changes
    (folder / "config.json").write_text(json.dumps(values))
    (name,) = changes
    with pytest.raises(CheckpointError, match=name):
        import_checkpoint(folder, tmp_path / "ours", files.golden.tiny_reference_config(latent_dim=32))


# ---- what is said -------------------------------------------------------------------------------------------


def test_a_file_without_its_backbone_is_refused_with_the_option(made, tmp_path):
    with pytest.raises(CheckpointError, match=r"give it \(--backbone DIR\)"):
        import_checkpoint(made.file, tmp_path / "ours", made.preset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views": ("", "")}, "--views"),
        ({"views": ("a", "a")}, "--views"),
        ({"dt_s": 0.0}, "--dt"),
        ({"dt_s": float("nan")}, "--dt"),
        ({"dtype": "int3"}, "dtype 'int3'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(CheckpointError, match=words):
        ImportOptions(**options)
