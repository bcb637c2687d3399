"""The whole policy: losses, gradient flow, stages and what each may move."""

import dataclasses

import pytest
import torch

from instructvla_model import flow
from instructvla_model.batch import ActionBatch, LanguageBatch, PolicyBatch
from instructvla_model.config import ConfigError
from instructvla_model.prompts import PromptBuilder, collate
from instructvla_model.trainable import count, set_trainable


@pytest.fixture
def batch(config, tokenizer):
    torch.manual_seed(3)
    prompts = PromptBuilder(tokenizer, config)
    language = collate([prompts.think("pick up", "the cube"), prompts.action("go")], tokenizer.pad_id)
    language = dataclasses.replace(language, pixels_ICHW=torch.randn(2, 3, 32, 32))
    action = ActionBatch(torch.randn(3, 1, 3, 32, 32), torch.randn(3, 4, 7).clamp(-1, 1), torch.randn(3, 8),
                         torch.tensor([1, 0, 1]))  # fmt: skip
    return PolicyBatch(language, action)


def test_the_total_is_language_loss_plus_flow_loss(make_policy, batch):
    policy = make_policy("expert")
    losses = policy(batch, n_draws=2, generator=torch.Generator().manual_seed(0))
    hidden = policy.vlm.hidden_of(batch.language)
    lm = policy.vlm.language_loss(hidden, batch.language.labels_BS)
    latents = policy.vlm.latents_of(hidden, batch.language.input_ids_BS)[[1, 0, 1]]
    prefix = policy.expert.encode_prefix(batch.action.pixels_BVCHW, latents, batch.action.state_BS)
    fm = flow.loss(policy.expert, prefix, batch.action.actions_BFA, n_draws=2,
                   generator=torch.Generator().manual_seed(0))  # fmt: skip
    torch.testing.assert_close(losses.lm, lm)
    torch.testing.assert_close(losses.fm, fm)
    torch.testing.assert_close(losses.total, lm + fm)


def test_without_frames_only_the_language_loss_counts(make_policy, batch):
    losses = make_policy("base")(PolicyBatch(batch.language))
    assert float(losses.fm) == 0.0
    assert torch.equal(losses.total, losses.lm)


def test_without_labels_only_the_flow_loss_counts(make_policy, batch):
    language = dataclasses.replace(batch.language, labels_BS=None)
    losses = make_policy("expert")(PolicyBatch(language, batch.action))
    assert float(losses.lm) == 0.0
    assert torch.equal(losses.total, losses.fm)


def test_cached_image_tokens_give_the_same_loss_as_pixels(make_policy, batch):
    policy = make_policy("base")
    with torch.no_grad():
        tokens = policy.vlm.encode_images(batch.language.pixels_ICHW)
        cached = dataclasses.replace(batch.language, pixels_ICHW=None, image_tokens_ITH=tokens)
        torch.testing.assert_close(policy(PolicyBatch(cached)).lm, policy(PolicyBatch(batch.language)).lm)


def test_the_flow_loss_reaches_the_language_model_through_the_latents(make_policy, batch):
    policy = make_policy("expert")
    set_trainable(policy, "expert")
    policy(batch).fm.backward()
    layer = policy.vlm.language_model.model.layers[0].self_attn.q_proj
    assert layer.lora_A["action"].weight.grad.abs().sum() > 0
    assert policy.vlm.query_embed.grad.abs().sum() > 0


STAGE_PARTS = {
    "base": {"vlm.vision_model", "vlm.mlp1", "vlm.language_model", "vlm.query_embed", "vlm.query_head"},
    "expert": {"lora.action", "vlm.query_embed", "vlm.query_head", "expert"},
    "generalist": {"lora.action", "lora.language", "vlm.gate", "vlm.query_embed", "vlm.query_head"},
}


def part(name: str) -> str:
    if ".lora_" in name:
        return "lora." + name.split(".")[-2]
    return "expert" if name.startswith("expert.") else ".".join(name.split(".")[:2])


@pytest.mark.parametrize("stage", sorted(STAGE_PARTS))
def test_each_stage_moves_exactly_its_parameters(make_policy, batch, stage):
    policy = make_policy(stage)
    names = set_trainable(policy, stage)
    assert {part(name) for name in names} == STAGE_PARTS[stage]
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
    policy(batch).total.backward()
    optimizer.step()
    moved = {part(n) for n, p in policy.named_parameters() if not torch.equal(p, before[n])}
    assert moved == STAGE_PARTS[stage]


def test_only_query_rows_of_the_tables_move_in_the_expert_stage(make_policy):
    names = set_trainable(make_policy("expert"), "expert")
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)


def test_query_rows_can_be_kept_frozen_too(make_policy):
    names = set_trainable(make_policy("generalist"), "generalist", train_queries=False)
    assert not any("query" in name for name in names)


def test_unknown_stages_are_refused(make_policy):
    with pytest.raises(ValueError, match="expected one of"):
        make_policy("base").set_stage("champion")
    with pytest.raises(ValueError, match="expected one of"):
        set_trainable(make_policy("base"), "champion")


def test_an_action_adapter_of_another_name_is_refused_not_left_frozen(make_policy, config):
    """As a released stage 2 file has, whose adapters are called 0 and 1."""
    policy = make_policy("generalist", adapters=dataclasses.replace(config.adapters, names=("0", "1")))
    with pytest.raises(ConfigError, match=r"adapters are 0, 1; expected one called action.*--adapter-names"):
        set_trainable(policy, "expert")
    assert any(".lora_A.0." in name for name in set_trainable(policy, "generalist"))
    with pytest.raises(ConfigError, match="adapters are none"):
        set_trainable(make_policy("base"), "expert")


def test_moving_on_to_the_next_stage_keeps_what_was_learnt(make_policy, batch):
    policy = make_policy("expert")
    hidden = policy.vlm.hidden_of(batch.language)
    policy.set_stage("generalist")
    assert policy.vlm.mode == "gated"
    policy.vlm.set_mode("single", "action")
    assert torch.equal(policy.vlm.hidden_of(batch.language), hidden)


def test_parameters_are_counted(make_policy):
    policy = make_policy("expert")
    set_trainable(policy, "expert")
    assert count(policy) == sum(p.numel() for p in policy.parameters())
    assert 0 < count(policy, trainable_only=True) < count(policy)


def test_a_step_under_bfloat16_autocast_has_finite_gradients(make_policy, batch):
    policy = make_policy("generalist").train()
    policy.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = policy(batch, n_draws=4)
    losses.total.backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(torch.isfinite(g).all() for g in gradients)


def test_rows_without_queries_may_stand_beside_rows_with_them(make_policy, batch, config, tokenizer):
    prompts = PromptBuilder(tokenizer, config)
    samples = [prompts.answer("what is it?", "a cube"), prompts.action("go")]
    language = collate(samples, tokenizer.pad_id)
    language = dataclasses.replace(language, pixels_ICHW=torch.randn(2, 3, 32, 32))
    action = dataclasses.replace(batch.action, context_index_B=torch.tensor([1, 1, 1]))
    assert torch.isfinite(make_policy("expert")(PolicyBatch(language, action)).total)


def test_language_batches_know_their_size():
    ids = torch.zeros(3, 4, dtype=torch.long)
    assert LanguageBatch(ids, torch.ones_like(ids)).size == 3
