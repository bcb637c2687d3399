"""The VLM, the gate and both ways of writing text reproduce the reference's golden tensors."""

import dataclasses

import golden_tensors as golden
import torch
from torch import Tensor

from instructvla_model import generate
from instructvla_model.adapters import AdapterMix
from instructvla_model.stem import pixel_shuffle
from instructvla_model.vlm import VisionLanguageModel


@torch.no_grad()
def test_pixel_shuffle_vision_tokens_hidden_states_and_logits_agree():
    tensors, meta = golden.load("vlm_tiny")
    config = golden.tiny_reference_config(latent_dim=32)
    vlm = VisionLanguageModel(config, int(meta["img_context_id"])).eval()
    golden.fill(vlm, golden.weights(tensors, ""), config, "base", prefix="vlm.")
    tokens = vlm.encode_images(tensors["in.pixels"])
    hidden = vlm.hidden(vlm.embed(tensors["in.ids"], tokens))
    computed = {
        "out.ps": pixel_shuffle(tensors["in.ps"]),
        "out.vit_tokens": tokens,
        "out.last_hidden": hidden,
        "out.logits": vlm.logits(hidden),
    }
    golden.compare(computed, tensors, atol=1e-5)


class _NeverStops:
    stop_ids = frozenset()


def written(vlm: VisionLanguageModel, prompt_1SH: Tensor, n_tokens: int, monkeypatch) -> dict[str, Tensor]:
    """Ids [1, T], logits [1, T, V] and cache lengths after each pass, of greedy text."""
    logits: list[Tensor] = []
    lengths: list[int] = []
    choose, run = generate._greedy, VisionLanguageModel.hidden
    gate = VisionLanguageModel.gate_inputs

    def greedy(vlm, hidden):
        logits.append(vlm.logits(hidden[:, -1]))
        return choose(vlm, hidden)

    def counted(function, index):
        def call(self, embeds, *rest):
            out = function(self, embeds, *rest)
            lengths.append(rest[index].get_seq_length())
            return out

        return call

    with monkeypatch.context() as patch:
        patch.setattr(generate, "_greedy", greedy)
        patch.setattr(VisionLanguageModel, "gate_inputs", counted(gate, 0))
        patch.setattr(VisionLanguageModel, "hidden", counted(run, 1))
        state = generate.prefill(vlm, prompt_1SH)
        ids = [state.next_id]
        while len(ids) < n_tokens:
            state = generate.step(vlm, _NeverStops(), state, n_tokens)
            ids.append(state.next_id)
    return {"ids": torch.tensor([ids]), "logits": torch.stack(logits, dim=1), "lengths": torch.tensor(lengths)}


@torch.no_grad()
def test_gates_hidden_states_and_text_with_clean_and_shared_caches_agree(monkeypatch):
    tensors, _ = golden.load("xlora_tiny")
    config = golden.with_language(golden.tiny_reference_config(latent_dim=32, n_queries=1), vocab_size=119)
    vlm = VisionLanguageModel(config, 0).eval()
    vlm.add_adapters("action", "language")
    vlm.add_gate()
    vlm.vision_model, vlm.mlp1 = None, None  # not part of this fixture
    released = {f"language_model.{name}": tensor for name, tensor in golden.weights(tensors, "").items()}
    golden.fill(vlm, released, config, "generalist", prefix="vlm.")
    vlm.set_mode("gated")
    embeds = tensors["in.embeds"]
    mix = vlm.mix_for(embeds)
    assert isinstance(mix, AdapterMix)
    hidden = vlm.hidden(embeds, mix)
    # no id of this vocabulary is to end the text, nor to be a query
    vlm.config = dataclasses.replace(config, language=dataclasses.replace(config.language, vocab_size=999))
    monkeypatch.setattr(vlm, "embed", lambda ids: torch.nn.functional.embedding(
        ids, torch.cat([vlm.language_model.model.embed_tokens.weight, vlm.query_embed])))  # fmt: skip
    n = tensors["out.gen_clean_ids"].shape[1]
    clean = written(vlm, embeds[:1], n, monkeypatch)
    assert clean["lengths"].tolist() == [embeds.shape[1] + i // 2 for i in range(2 * n)]
    vlm.config = dataclasses.replace(vlm.config, text_cache="shared")
    shared = written(vlm, embeds[:1], n, monkeypatch)
    computed = {
        "out.gates": mix.weights_BSA,
        "out.last_hidden": hidden,
        "out.logits": vlm.logits(hidden),
        "out.gen_clean_ids": clean["ids"],
        "out.gen_clean_logits": clean["logits"],
        "out.gen_ref_ids": shared["ids"],
        "out.gen_ref_logits": shared["logits"],
        "out.gen_ref_cache_len_after_each_pass": shared["lengths"],
    }
    golden.compare(computed, tensors, atol=1e-5)
