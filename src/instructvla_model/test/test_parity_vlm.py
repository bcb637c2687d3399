"""The VLM, the gate and the whole model reproduce the reference's golden tensors."""

import golden_tensors as golden
import pytest
import torch

from instructvla_model import flow, generate
from instructvla_model.adapters import AdapterMix
from instructvla_model.policy import InstructVLA
from instructvla_model.stem import pixel_shuffle
from instructvla_model.vlm import VisionLanguageModel


def language_state(
    vlm: VisionLanguageModel, tensors: dict, prefix: str, adapters: dict, order: list[int] | None = None
) -> None:
    """Load a reference language model; the last N rows of the (reordered) tables are the query rows."""
    state = golden.language_weights(tensors, prefix, adapters)
    first, rows = vlm.first_query_id, order or list(range(len(state["lm_head.weight"])))
    for name, parameter in (
        ("model.embed_tokens.weight", vlm.query_embed),
        ("lm_head.weight", vlm.query_head),
    ):
        table = state[name][rows]
        state[name] = table[:first]
        parameter.data.copy_(table[first:])
    vlm.language_model.load_state_dict(state, strict=True)


def test_pixel_shuffle_vision_tokens_hidden_states_and_logits_agree():
    tensors, meta = golden.load("vlm_tiny")
    torch.testing.assert_close(pixel_shuffle(tensors["in.ps"]), tensors["out.ps"], atol=0, rtol=0)
    config = golden.tiny_reference_config(latent_dim=32)
    vlm = VisionLanguageModel(config, int(meta["img_context_id"])).eval()
    vlm.vision_model.load_state_dict(golden.weights(tensors, "vision_model.vision_model."), strict=True)
    vlm.mlp1.load_state_dict(golden.weights(tensors, "mlp1."), strict=True)
    language_state(vlm, tensors, "language_model.", {})
    with torch.no_grad():
        tokens = vlm.encode_images(tensors["in.pixels"])
        torch.testing.assert_close(tokens, tensors["out.vit_tokens"], atol=1e-5, rtol=0)
        hidden = vlm.hidden(vlm.embed(tensors["in.ids"], tokens))
        torch.testing.assert_close(hidden, tensors["out.last_hidden"], atol=1e-5, rtol=0)
        torch.testing.assert_close(vlm.logits(hidden), tensors["out.logits"], atol=1e-5, rtol=0)


def gated_vlm() -> tuple[VisionLanguageModel, dict]:
    tensors, _ = golden.load("xlora_tiny")
    config = golden.with_language(golden.tiny_reference_config(latent_dim=32, n_queries=1), vocab_size=119)
    vlm = VisionLanguageModel(config, 0).eval()
    vlm.add_adapters("action", "language")
    vlm.add_gate()
    language_state(vlm, tensors, "base_model.lora_model.model.", {"0": "action", "1": "language"})
    vlm.gate.load_state_dict(golden.weights(tensors, "base_model.internal_xlora_classifier."), strict=True)
    vlm.set_mode("gated")
    return vlm, tensors


def test_gates_and_mixed_hidden_states_agree():
    vlm, tensors = gated_vlm()
    with torch.no_grad():
        mix = vlm.mix_for(tensors["in.embeds"])
        assert isinstance(mix, AdapterMix)
        torch.testing.assert_close(mix.weights_BSA, tensors["out.gates"], atol=1e-5, rtol=0)
        hidden = vlm.hidden(tensors["in.embeds"], mix)
        torch.testing.assert_close(hidden, tensors["out.last_hidden"], atol=1e-5, rtol=0)
        torch.testing.assert_close(vlm.logits(hidden), tensors["out.logits"], atol=1e-5, rtol=0)


def test_greedy_generation_with_two_clean_caches_agrees():
    vlm, tensors = gated_vlm()

    class NeverStops:
        stop_ids = frozenset()

    ids, logits = tensors["out.gen_clean_ids"][0].tolist(), tensors["out.gen_clean_logits"][0]
    with torch.inference_mode():
        state = generate.prefill(vlm, tensors["in.embeds"][:1])
        assert state.next_id == ids[0] == int(logits[0].argmax())
        for wanted in ids[1:]:
            state = generate.step(vlm, NeverStops(), state, 99)
            assert state.next_id == wanted


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("sample", ["s0", "s1"])
def test_whole_model_losses_latents_and_samples_agree(stage, sample):
    tensors, meta = golden.load(f"instructvla_tiny_stage{stage}")
    # one ordinary token stands behind the queries in this fixture: move it before them
    first, n_query, vocab = (int(meta[key]) for key in ("first_query_id", "n_query", "vocab"))
    queries = list(range(first, first + n_query))
    order = [i for i in range(vocab) if i not in queries] + queries
    new_id = torch.empty(vocab, dtype=torch.long)
    new_id[order] = torch.arange(vocab)
    config = golden.with_language(golden.tiny_reference_config(latent_dim=32), vocab_size=vocab - n_query)
    config = golden.whole_model_config(config, stage)
    policy = InstructVLA(
        config, int(new_id[int(meta["img_context_id"])]), "expert" if stage == 1 else "generalist"
    ).eval()
    policy.vlm.vision_model.load_state_dict(golden.weights(tensors, "vlm.vision_model.vision_model."), strict=True)
    policy.vlm.mlp1.load_state_dict(golden.weights(tensors, "vlm.mlp1."), strict=True)
    if stage == 1:
        language_state(policy.vlm, tensors, "vlm.language_model.base_model.model.", {"default": "action"}, order)
    else:
        prefix = "vlm.language_model.base_model."
        language_state(policy.vlm, tensors, prefix + "lora_model.model.", {"0": "action", "1": "language"}, order)
        policy.vlm.gate.load_state_dict(golden.weights(tensors, prefix + "internal_xlora_classifier."), strict=True)
    policy.expert.load_state_dict(golden.weights(tensors, "action_model."), strict=True)
    given = {
        name: tensors[f"{sample}.in.{name}"] for name in ("ids", "labels", "pixels", "dino", "actions", "noise", "t")
    }
    given["ids"] = new_id[given["ids"]]
    given["labels"] = torch.where(given["labels"] < 0, given["labels"], new_id[given["labels"].clamp(min=0)])
    with torch.no_grad():
        tokens = policy.vlm.encode_images(given["pixels"])
        embeds = policy.vlm.embed(given["ids"], tokens)
        hidden = policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds))
        lm = policy.vlm.language_loss(hidden, given["labels"])
        latents = policy.vlm.latents_of(hidden, given["ids"])
        prefix = policy.expert.encode_prefix(given["dino"][:, None], latents)
        fm = flow.loss(
            policy.expert, prefix, given["actions"], noise_BKFA=given["noise"][:, None], time_BK=given["t"][:, None]
        )
    torch.testing.assert_close(latents, tensors[f"{sample}.out.latent"], atol=1e-5, rtol=0)
    torch.testing.assert_close(lm, tensors[f"{sample}.out.lm_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fm, tensors[f"{sample}.out.fm_loss"], atol=1e-5, rtol=0)
    if f"{sample}.out.sample_fp32" in tensors:
        with torch.no_grad():
            got = flow.sample(policy.expert, prefix, noise_BKFA=given["noise"][:, None])[:, 0]
        torch.testing.assert_close(got, tensors[f"{sample}.out.sample_fp32"], atol=1e-5, rtol=0)
