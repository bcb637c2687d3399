"""Released files that are wrong, cut off or hostile are refused with the tensor's name and a reason."""

import json
import os
import pickle

import golden_tensors as golden
import pytest
import released_files as files
import torch
from safetensors.torch import load_file, save_file

from instructvla_model.manifest import CheckpointError
from instructvla_model.released.exporting import export_checkpoint
from instructvla_model.released.importing import ImportOptions, import_checkpoint
from instructvla_model.tokenizer import TokenizerError, load_released_tokenizer

EMBED = "base_model.model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return files.make_run(tmp_path_factory.mktemp("made"), 1)


@pytest.fixture
def refused(made, tmp_path):
    """Import the run's model after `edit` changed it, expecting words; nothing is left behind."""

    def check(words, edit=None, options=None, save=None):
        model = {part: dict(held) for part, held in made.model.items()}
        if edit is not None:
            edit(model)
        file = tmp_path / "released.pt"
        (save or (lambda path: torch.save({"model": model}, path)))(file)
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(file, tmp_path / "ours", made.preset, made.backbone, options=options)
        assert not (tmp_path / "ours").exists()

    return check


class Payload:
    def __reduce__(self):
        return (os.system, ("echo code ran",))


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(refused, capfd):
    refused("cannot be read as weights alone", save=lambda path: torch.save({"model": Payload()}, path))
    refused("cannot be read as weights alone", save=lambda path: path.write_bytes(pickle.dumps(Payload())))
    assert "code ran" not in capfd.readouterr().out


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_file_cut_off_is_refused(refused, made, kept):
    data = made.file.read_bytes()
    length = int(kept * len(data)) if kept < 1 else kept
    refused("truncated", save=lambda path: path.write_bytes(data[:length]))


def test_a_missing_file_is_refused(made, tmp_path):
    with pytest.raises(CheckpointError, match="is missing"):
        import_checkpoint(tmp_path / "no.pt", tmp_path / "ours", made.preset, made.backbone)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"model": 7}])
def test_other_content_is_refused(refused, content):
    refused("expected state dicts", save=lambda path: torch.save(content, path))


def test_entries_that_are_no_float_tensors_are_refused(refused):
    refused("'mlp1.note' is a str", lambda m: m["mlp1"].update(note="hello"))
    whole = torch.ones(96).long()
    refused(r"'mlp1.0.weight' is a tensor of torch.int64", lambda m: m["mlp1"].update({"0.weight": whole}))


def test_missing_unknown_and_misshapen_tensors_are_named(refused):
    refused("lacks tensor 'mlp1.1.bias'", lambda m: m["mlp1"].pop("1.bias"))
    refused("unknown tensor 'action_model.surprise'", lambda m: m["action_model"].update(surprise=torch.ones(1)))
    refused(r"'mlp1.1.bias' has shape \(5,\)", lambda m: m["mlp1"].update({"1.bias": torch.ones(5)}))
    refused("lacks tensor 'action_model.action_head.6.bias'", lambda m: m["action_model"].pop("action_head.6.bias"))


def test_a_tensor_that_is_not_finite_is_named(refused):
    bad = torch.full((32,), float("nan"))
    refused("'mlp1.1.bias' holds NaN", lambda m: m["mlp1"].update({"1.bias": bad}))


def test_a_tokenizer_of_another_size_is_refused(refused, made, tmp_path):
    def fewer_rows(model):
        table = model["language_model"][EMBED]
        model["language_model"][EMBED] = table[:105]

    refused("has 105 rows for a tokenizer of 105", fewer_rows)
    with pytest.raises(TokenizerError, match="no tokenizer"):
        (tmp_path / "empty").mkdir()
        import_checkpoint(made.file, tmp_path / "ours", made.preset, tmp_path / "empty")
    with pytest.raises(TokenizerError, match="is no folder"):
        load_released_tokenizer(tmp_path / "nowhere")


def test_language_models_of_no_layout_or_of_two_are_refused(refused):
    refused("of 0 layouts", lambda m: m.pop("language_model"))
    refused("of 2 layouts", lambda m: m["language_model"].update({"model.embed_tokens.weight": torch.ones(1, 32)}))


def test_adapters_of_several_ranks_and_heads_of_broken_width_are_refused(refused):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    refused("adapters of ranks", lambda m: m["language_model"].update({name: torch.ones(3, 32)}))
    refused("a multiple of 7", lambda m: m["action_model"].update({"action_head.6.bias": torch.ones(40)}))


def test_a_name_given_twice_is_refused(refused, made):
    flat = {"vlm.mlp1.0.bias": torch.ones(1), "mlp1.0.bias": torch.ones(1)}
    refused("twice", save=lambda path: torch.save(flat, path))


def test_options_that_do_not_fit_are_refused(refused, made, tmp_path):
    adapter = files.write_adapter(tmp_path / "adapter", made.model["language_model"], 128)
    refused("holds adapters already", options=ImportOptions(adapters={"action": adapter}))
    with pytest.raises(CheckpointError, match="exists; expected a new folder"):
        import_checkpoint(made.file, tmp_path / "adapter", made.preset, made.backbone)
    with pytest.raises(ValueError, match="regime 'best'"):
        import_checkpoint(
            made.file, tmp_path / "ours", made.preset, made.backbone, options=ImportOptions(regime="best")
        )


def test_strange_adapter_folders_are_refused(made, tmp_path):
    torch.save({"model": files.unloaded(made.model)}, tmp_path / "unloaded.pt")
    adapter = files.write_adapter(tmp_path / "adapter", made.model["language_model"], 128)
    weights_file, config_file = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    tensors, values = load_file(weights_file), json.loads(config_file.read_text())

    def check(words, **changes):
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(
                tmp_path / "unloaded.pt", tmp_path / "ours", made.preset, made.backbone,
                options=ImportOptions(adapters={"action": adapter}),
            )  # fmt: skip

    name = sorted(tensors)[0]
    save_file({key: t for key, t in tensors.items() if key != name}, weights_file)
    check("lacks a tensor for 'vlm.language_model")
    save_file({**tensors, "other": torch.ones(1)}, weights_file)
    check("unknown tensor 'other'")
    save_file({**tensors, name: torch.ones(2, 2)}, weights_file)
    check(r"has shape \(2, 2\)")
    save_file(tensors, weights_file)
    config_file.write_text(json.dumps(values | {"peft_type": "LOHA"}))
    check("plain LoRA")
    config_file.write_text(json.dumps(values | {"r": "many"}))
    check("r is 'many'")
    config_file.write_text("{")
    check("cannot be read as JSON")


def test_strange_backbone_folders_are_refused(tmp_path):
    folder, _ = files.write_backbone(tmp_path / "eagle")
    preset = golden.tiny_reference_config(latent_dim=32)
    config = json.loads((folder / "config.json").read_text())

    def check(words):
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(folder, tmp_path / "ours", preset)

    for values, words in (
        (config | {"select_layer": -2}, "select_layer is -2"),
        ({}, "lacks llm_config"),
        (config | {"llm_config": {"num_attention_heads": "four"}}, "num_attention_heads is 'four'"),
        (config | {"llm_config": {"num_attention_heads": 5}}, "5 heads"),
    ):
        (folder / "config.json").write_text(json.dumps(values))
        check(words)
    (folder / "config.json").write_text(json.dumps(config))
    index = folder / "model.safetensors.index.json"
    shards = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**shards, "lost": next(iter(shards.values()))}}))
    check("disagree on tensor 'lost'")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(shards, "../x")}))
    check("no weight_map")
    index.unlink()
    first = sorted(folder.glob("*.safetensors"))[0]
    (folder / "twin.safetensors").write_bytes(first.read_bytes())
    check("is also in another file")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    check("holds no safetensors file")


def test_exports_that_cannot_be_are_refused(made, tmp_path):
    torch.save({"model": files.unloaded(made.model)}, tmp_path / "unloaded.pt")
    import_checkpoint(tmp_path / "unloaded.pt", tmp_path / "ours", made.preset, made.backbone)
    for out, form, words in (("ours", "pt", "exists"), ("new", "zip", "form 'zip'"), ("new", "peft", "no adapters")):
        with pytest.raises(CheckpointError, match=words):
            export_checkpoint(tmp_path / "ours", tmp_path / out, form)
