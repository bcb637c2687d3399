"""Shared by the tests of import and export: small released files made from the golden tensors' own names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import golden_tensors as golden
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor

from instructvla_model.config import PolicyConfig
from instructvla_model.tokenizer import IMAGE_CONTEXT, SPECIAL_TOKENS

PARTS = ("vision_model", "mlp1", "language_model", "action_model")
TABLES = ("embed_tokens.weight", "lm_head.weight")


@dataclasses.dataclass(frozen=True)
class Run:
    """A released run: its `.pt`, the backbone's folder, a preset of its sizes and the fixture it was made from."""

    file: Path
    backbone: Path
    preset: PolicyConfig
    model: dict[str, dict[str, Tensor]]
    tensors: dict[str, Tensor]
    new_id: Tensor


def write_tokenizer(folder: Path, n_tokens: int, image_token: int) -> None:
    """A tokenizer of `n_tokens`, the image placeholder at its place."""
    folder.mkdir(parents=True, exist_ok=True)
    others = iter([t for t in SPECIAL_TOKENS if t != IMAGE_CONTEXT])
    names = [f"t{i}" for i in range(n_tokens)]
    names[image_token] = IMAGE_CONTEXT
    for i in range(n_tokens - 1, -1, -1):
        if i != image_token and (name := next(others, None)):
            names[i] = name
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="t0"))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.save(str(folder / "tokenizer.json"))


def model_of(tensors: dict[str, Tensor], order: list[int]) -> dict[str, dict[str, Tensor]]:
    """The fixture's weights as a released file holds them; its query rows are moved to the end of the tables."""
    model: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in golden.weights(tensors, "").items():
        part, _, key = name.removeprefix("vlm.").partition(".")
        model[part][key] = tensor[order].clone() if name.endswith(TABLES) else tensor
    # the released files hold SigLIP's pooling head, which nothing reads
    model["vision_model"]["vision_model.head.probe"] = torch.randn(1, 1, 24)
    return model


def make_run(folder: Path, stage: int) -> Run:
    tensors, meta = golden.load(f"instructvla_tiny_stage{stage}")
    first, n_query, vocab = (int(meta[key]) for key in ("first_query_id", "n_query", "vocab"))
    order = [i for i in range(vocab) if not first <= i < first + n_query] + list(range(first, first + n_query))
    new_id = torch.empty(vocab, dtype=torch.long)
    new_id[order] = torch.arange(vocab)
    run = folder / f"run{stage}"
    write_tokenizer(run / "backbone", vocab - n_query, int(new_id[int(meta["img_context_id"])]))
    model = model_of(tensors, order)
    file = run / "checkpoints" / "step-000001-epoch-00-loss=0.1.pt"
    file.parent.mkdir(parents=True)
    torch.save({"model": model}, file)
    statistics = {"q01": [-1.0] * 7, "q99": [1.0] * 7, "min": [-2.0] * 7, "max": [2.0] * 7, "mask": [True] * 7}
    values = {"bridge_dataset": {"action": statistics, "num_transitions": 3}}
    (run / "dataset_statistics.json").write_text(json.dumps(values))
    preset = golden.tiny_reference_config(latent_dim=32, horizon=int(meta["horizon"]), n_queries=1)
    return Run(file, run / "backbone", preset, model, tensors, new_id)


def unloaded(model: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Stage 1 without its adapter, as the reference writes it for stage 2."""
    plain = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model["language_model"].items()
        if ".lora_" not in name
    }
    return {**model, "language_model": plain}


def write_adapter(folder: Path, language_model: dict[str, Tensor], rank: int, label: str = "default") -> Path:
    """A peft adapter folder of a stage 1 language model's adapter."""
    folder.mkdir(parents=True)
    tensors = {
        name.replace(f".{label}.weight", ".weight"): tensor.contiguous()
        for name, tensor in language_model.items()
        if ".lora_" in name and f".{label}." in name
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    values["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def write_backbone(folder: Path, padding: int = 0) -> tuple[Path, dict[str, Tensor]]:
    """Eagle2-2B's kind of folder from the VLM's fixture: two shards, an index, config.json and a tokenizer."""
    tensors, meta = golden.load("vlm_tiny")
    write_tokenizer(folder, 130, int(meta["img_context_id"]))
    weights = {name: t.contiguous() for name, t in golden.weights(tensors, "").items()}
    for name in list(weights):
        if name.endswith(TABLES):
            weights[name] = torch.cat([weights[name], torch.zeros(padding, weights[name].shape[1])])
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    values = {
        "llm_config": {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 1000000, "rms_norm_eps": 1e-6},
        "vision_config": {"num_attention_heads": 2, "hidden_act": "gelu_pytorch_tanh"},
        "select_layer": -1,
        "downsample_ratio": 0.5,
    }
    (folder / "config.json").write_text(json.dumps(values))
    return folder, tensors
