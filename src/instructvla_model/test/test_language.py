"""The language model against stock transformers, the queries, the image tokens and the loss."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2ForCausalLM

from instructvla_model.batch import IGNORE, LanguageBatch
from instructvla_model.language import qwen2_config


def stock_twin(vlm):
    """Stock Qwen2 with eager attention and the same weights."""
    config = qwen2_config(vlm.config.language)
    config._attn_implementation = "eager"
    twin = Qwen2ForCausalLM(config).eval()
    twin.load_state_dict({k.replace(".base_layer", ""): v for k, v in vlm.language_model.state_dict().items()})
    return twin


def test_with_adapters_off_it_is_stock_qwen2(make_policy):
    vlm = make_policy("base").vlm
    ids = torch.randint(0, 200, (2, 9))
    with torch.no_grad():
        expected = stock_twin(vlm).model(input_ids=ids).last_hidden_state
        got = vlm.hidden(vlm.embed(ids))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_stock_qwen2(make_policy):
    vlm = make_policy("base").vlm
    twin = stock_twin(vlm)
    ids = torch.randint(0, 200, (2, 9))
    probe = torch.randn(2, 9, 24)
    (twin.model(input_ids=ids).last_hidden_state * probe).sum().backward()
    (vlm.hidden(vlm.embed(ids)) * probe).sum().backward()
    ours = dict(vlm.language_model.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.grad is None:
            continue
        mine = ours.get(name, ours.get(name.replace("_proj.", "_proj.base_layer.")))
        torch.testing.assert_close(mine.grad, parameter.grad, atol=1e-4, rtol=1e-4)


def test_right_padding_does_not_change_real_tokens(make_policy):
    vlm = make_policy("generalist").vlm
    ids = torch.randint(0, 200, (1, 6))
    padded = torch.cat([ids, torch.full((1, 5), 3)], dim=1)
    with torch.no_grad():
        short = vlm.hidden_of(LanguageBatch(ids, torch.ones_like(ids)))
        long = vlm.hidden_of(LanguageBatch(padded, torch.ones_like(padded)))
    torch.testing.assert_close(long[:, :6], short, atol=1e-5, rtol=0)


def test_query_ids_use_their_own_rows_and_other_ids_the_table(make_policy):
    vlm = make_policy("base").vlm
    first = vlm.first_query_id
    ids = torch.tensor([[3, first, first + 2, 7]])
    got = vlm.embed_ids(ids)[0]
    table = vlm.language_model.model.embed_tokens.weight
    expected = torch.stack([table[3], vlm.query_embed[0], vlm.query_embed[2], table[7]])
    assert torch.equal(got, expected)


def test_logits_cover_the_vocabulary_and_then_the_queries(make_policy):
    vlm = make_policy("base").vlm
    hidden = torch.randn(3, 24)
    table = torch.cat([vlm.language_model.lm_head.weight, vlm.query_head])
    torch.testing.assert_close(vlm.logits(hidden), hidden @ table.T, atol=1e-5, rtol=1e-5)


def test_tied_embeddings_share_both_tables(make_policy, config):
    language = dataclasses.replace(config.language, tie_embeddings=True)
    vlm = make_policy("base", language=language).vlm
    assert vlm.language_model.lm_head.weight is vlm.language_model.model.embed_tokens.weight
    assert vlm.query_head is vlm.query_embed


def test_image_tokens_replace_the_placeholders_in_order(make_policy):
    vlm = make_policy("base").vlm
    image, T = vlm.image_token_id, vlm.config.vision.tokens_per_image
    ids = torch.full((2, T + 3), image)
    ids[:, 0], ids[:, -2:] = 5, 7
    tokens = torch.randn(2, T, 24)
    embeds = vlm.embed(ids, tokens)
    assert torch.equal(embeds[:, 1 : T + 1], tokens)
    assert torch.equal(embeds[0, 0], vlm.language_model.model.embed_tokens.weight[5])


def test_several_rows_may_share_an_image_and_some_have_none(make_policy):
    vlm = make_policy("base").vlm
    T = vlm.config.vision.tokens_per_image
    ids = torch.full((3, T), vlm.image_token_id)
    ids[1] = 5
    tokens = torch.randn(2, T, 24)
    embeds = vlm.embed(ids, tokens, torch.tensor([1, -1, 1]))
    assert torch.equal(embeds[0], tokens[1])
    assert torch.equal(embeds[2], tokens[1])
    assert torch.equal(embeds[1], vlm.embed_ids(ids[1:2])[0])


def test_a_wrong_number_of_placeholders_is_refused(make_policy):
    vlm = make_policy("base").vlm
    ids = torch.full((1, 3), vlm.image_token_id)
    with pytest.raises(ValueError, match="3 image placeholder tokens for 16"):
        vlm.embed(ids, torch.randn(1, 16, 24))


def test_the_loss_is_the_mean_cross_entropy_over_supervised_next_tokens(make_policy):
    vlm = make_policy("base").vlm
    hidden = torch.randn(2, 6, 24)
    labels = torch.tensor([[IGNORE, 4, 5, IGNORE, IGNORE, IGNORE], [9, IGNORE, IGNORE, IGNORE, 6, 2]])
    logits = vlm.logits(hidden)
    picks = [(0, 0, 4), (0, 1, 5), (1, 3, 6), (1, 4, 2)]
    expected = torch.stack([-F.log_softmax(logits[b, s], -1)[t] for b, s, t in picks]).mean()
    torch.testing.assert_close(vlm.language_loss(hidden, labels), expected)


def test_a_batch_without_labels_gives_zero_and_still_has_a_gradient_path(make_policy):
    vlm = make_policy("base").vlm
    hidden = torch.randn(1, 4, 24, requires_grad=True)
    loss = vlm.language_loss(hidden, torch.full((1, 4), IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(hidden.grad.abs().sum()) == 0.0


def test_latents_are_the_hidden_states_at_the_queries(make_policy):
    vlm = make_policy("base").vlm
    first = vlm.first_query_id
    ids = torch.tensor([[1, *range(first, first + 4), 2], [*range(first, first + 4), 2, 2]])
    hidden = torch.randn(2, 6, 24)
    latents = vlm.latents_of(hidden, ids)
    assert torch.equal(latents[0], hidden[0, 1:5])
    assert torch.equal(latents[1], hidden[1, :4])


def test_rows_with_another_number_of_queries_are_refused(make_policy):
    vlm = make_policy("base").vlm
    ids = torch.tensor([[1, vlm.first_query_id, 2]])
    with pytest.raises(ValueError, match=r"\[1\] query tokens; expected 4"):
        vlm.latents_of(torch.randn(1, 3, 24), ids)


def test_under_autocast_the_stream_is_bfloat16_and_close_to_fp32(make_policy):
    vlm = make_policy("expert").vlm
    ids = torch.randint(0, 200, (2, 7))
    with torch.no_grad():
        full = vlm.hidden_of(LanguageBatch(ids, torch.ones_like(ids)))
        with torch.autocast("cpu", torch.bfloat16):
            half = vlm.hidden_of(LanguageBatch(ids, torch.ones_like(ids)))
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()
