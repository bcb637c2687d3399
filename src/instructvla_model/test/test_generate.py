"""Generation: caches, stops, equality with encoding everything again."""

import pytest
import torch

from instructvla_model import generate
from instructvla_model.prompts import PromptBuilder


@pytest.fixture
def prompt(tokenizer, config):
    ids = torch.tensor([PromptBuilder(tokenizer, config).opening("think", "pick up the cube")])
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return lambda vlm: vlm.embed(ids, vlm.encode_images(image))


def run(vlm, tokenizer, embeds, cap=6, should_stop=None):
    with torch.inference_mode():
        return list(generate.stream(vlm, tokenizer, embeds, cap, should_stop))


class ScriptedModel:
    """Replaces the argmax by a script of ids, leaving caches and hidden states real."""

    def __init__(self, monkeypatch, ids):
        script = iter(ids)
        monkeypatch.setattr(generate, "_greedy", lambda vlm, hidden: next(script))


@pytest.mark.parametrize("stage", ["base", "expert", "generalist"])
@torch.no_grad()
def test_greedy_text_equals_recomputing_without_any_cache(make_policy, tokenizer, prompt, stage):
    vlm = make_policy(stage).vlm
    embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=5)[-1]
    ids: list[int] = []
    for wanted in [*final.token_ids, final.next_id]:
        whole = torch.cat([embeds, vlm.embed(torch.tensor([ids], dtype=torch.long))], 1) if ids else embeds
        hidden = vlm.hidden(whole, vlm.mix_for(whole))
        assert int(vlm.logits(hidden[:, -1]).argmax()) == wanted
        ids.append(wanted)


@pytest.mark.parametrize("stage", ["base", "expert", "generalist"])
@pytest.mark.parametrize("text", ["", "I take it.", "I take it. "])
def test_latents_from_the_texts_caches_equal_re_encoding(make_policy, tokenizer, prompt, monkeypatch, stage, text):
    vlm = make_policy(stage).vlm
    ids = tokenizer.encode(text)
    ScriptedModel(monkeypatch, [*ids, vlm.first_query_id])
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=50)[-1]
    assert (final.stop, list(final.token_ids)) == ("query", ids)
    reused = generate.latents_after(vlm, tokenizer, final)
    again = generate.latents_of_text(vlm, tokenizer, embeds, ids)
    torch.testing.assert_close(reused.latents_1NH, again.latents_1NH, atol=1e-4, rtol=0)
    assert reused.gate_mean == pytest.approx(again.gate_mean, abs=1e-5)


def test_latents_equal_those_of_the_training_sequence(make_policy, tokenizer, config, prompt):
    policy = make_policy("generalist")
    builder = PromptBuilder(tokenizer, config)
    encoded = builder.think("pick up the cube", "I take it.")
    ids = torch.tensor([encoded.ids])
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeds = policy.vlm.embed(ids, policy.vlm.encode_images(image))
        expected = policy.vlm.latents_of(policy.vlm.hidden(embeds, policy.vlm.mix_for(embeds)), ids)
        opening = prompt(policy.vlm)
    got = generate.latents_of_text(policy.vlm, tokenizer, opening, tokenizer.encode("I take it."))
    torch.testing.assert_close(got.latents_1NH, expected, atol=1e-5, rtol=0)


def test_taking_latents_leaves_the_caches_for_more(make_policy, tokenizer, prompt):
    vlm = make_policy("generalist").vlm
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=3)[-1]
    length = final.cache.get_seq_length()
    first = generate.latents_after(vlm, tokenizer, final)
    second = generate.latents_after(vlm, tokenizer, final)
    assert torch.equal(first.latents_1NH, second.latents_1NH)
    assert final.cache.get_seq_length() == final.base_cache.get_seq_length() == length == final.n_cached


@pytest.mark.parametrize("which", ["turn_end_id", "pad_id", "turn_start_id"])
def test_f21_text_ends_at_an_end_token_which_is_not_kept(make_policy, tokenizer, prompt, monkeypatch, which):
    vlm = make_policy("expert").vlm
    ScriptedModel(monkeypatch, [*tokenizer.encode("ok"), getattr(tokenizer, which)])
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds)[-1]
    assert final.stop == "end"
    assert tokenizer.decode(final.token_ids) == "ok"


def test_f21_text_ends_at_the_cap(make_policy, tokenizer, prompt, monkeypatch):
    vlm = make_policy("expert").vlm
    ScriptedModel(monkeypatch, [7] * 99)
    with torch.no_grad():
        embeds = prompt(vlm)
    states = run(vlm, tokenizer, embeds, cap=4)
    assert [len(s.token_ids) for s in states] == [0, 1, 2, 3, 4, 4]
    assert [s.stop for s in states] == ["", "", "", "", "", "length"]


def test_text_never_outgrows_the_context(make_policy, tokenizer, prompt, monkeypatch):
    vlm = make_policy("base").vlm
    ScriptedModel(monkeypatch, [7] * 999)
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=10_000)[-1]
    assert final.stop == "length"
    assert final.n_cached + vlm.config.n_queries + 1 == vlm.config.language.max_position


def test_text_stops_when_asked(make_policy, tokenizer, prompt, monkeypatch):
    vlm = make_policy("base").vlm
    ScriptedModel(monkeypatch, [7] * 99)
    answers = iter([False, False, True])
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=50, should_stop=lambda: next(answers))[-1]
    assert final.stop == "asked"
    assert len(final.token_ids) == 2


def test_f21_tokens_that_make_no_sense_as_text_do_no_harm(make_policy, tokenizer, prompt, monkeypatch):
    vlm = make_policy("generalist").vlm
    strange = [tokenizer.image_token_id, tokenizer.encode("é")[0], tokenizer.image_start_id, 0]
    ScriptedModel(monkeypatch, [*strange, vlm.first_query_id + 2])
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds, cap=50)[-1]
    assert list(final.token_ids) == strange
    a = generate.latents_after(vlm, tokenizer, final)
    b = generate.latents_of_text(vlm, tokenizer, embeds, strange)
    torch.testing.assert_close(a.latents_1NH, b.latents_1NH, atol=1e-4, rtol=0)


def test_a_stopped_state_does_not_go_on(make_policy, tokenizer, prompt, monkeypatch):
    vlm = make_policy("base").vlm
    ScriptedModel(monkeypatch, [vlm.first_query_id])
    with torch.no_grad():
        embeds = prompt(vlm)
    final = run(vlm, tokenizer, embeds)[-1]
    assert generate.step(vlm, tokenizer, final, 9) is final
    assert generate.fork(None) is None
