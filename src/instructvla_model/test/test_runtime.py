"""The inference entry point: streams, plans, chunks, and inputs that are refused."""

import ast
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import instructvla_model
from instructvla_model import checkpoint, compiled, flow, generate
from instructvla_model.image import ImageError
from instructvla_model.manifest import new_manifest
from instructvla_model.normalization import Statistics, compute
from instructvla_model.prompts import PromptError
from instructvla_model.runtime import PolicyRuntime, RuntimeInputError, choose_device, choose_dtype
from instructvla_model.types import LatentPlan, Observation

RNG = np.random.default_rng(0)
STATISTICS = Statistics(compute(RNG.normal(size=(50, 7)), mask=[True] * 6 + [False]), compute(RNG.normal(size=(50, 8))))
IMAGE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
OTHER = IMAGE[::-1].copy()
OBS = Observation({"primary": IMAGE}, np.linspace(-1, 1, 8).astype(np.float32), 12.5)


@pytest.fixture
def runtime(make_policy, tokenizer):
    def make(stage="generalist", statistics=STATISTICS, **changes):
        policy = make_policy(stage, **changes)
        manifest = new_manifest(policy.config, stage, statistics)
        return PolicyRuntime(manifest, tokenizer, policy.vlm, policy.expert)

    return make


def script(monkeypatch, ids):
    steps = iter(ids)
    monkeypatch.setattr(generate, "_greedy", lambda vlm, hidden: next(steps))


@pytest.mark.parametrize("mode", ["think", "motion", "answer"])
def test_thinking_streams_growing_text_and_ends_with_a_final_thought(runtime, tokenizer, monkeypatch, mode):
    rt = runtime()
    script(monkeypatch, [*tokenizer.encode("red cube "), rt.vlm.first_query_id])
    thoughts = list(rt.think(IMAGE, "Pick it", mode=mode))
    assert [t.final for t in thoughts] == [False] * (len(thoughts) - 1) + [True]
    assert all(b.text.startswith(a.text) for a, b in itertools.pairwise(thoughts))
    final = thoughts[-1]
    assert (final.text, final.instruction, final.mode) == ("red cube", "Pick it", mode)
    assert final.n_tokens == len(tokenizer.encode("red cube "))
    assert final.cache is not None
    assert all(t.cache is None for t in thoughts[:-1])
    assert final.latency_s >= thoughts[0].latency_s >= 0


def test_a_text_of_no_words_still_gives_a_final_thought(runtime, monkeypatch):
    rt = runtime()
    script(monkeypatch, [rt.vlm.first_query_id])
    (only,) = rt.think(IMAGE, "go")
    assert only.final
    assert only.text == ""


@pytest.mark.parametrize("mode", ["think", "motion"])
def test_latents_reusing_the_cache_equal_encoding_again(runtime, tokenizer, monkeypatch, mode):
    rt = runtime()
    script(monkeypatch, [*tokenizer.encode("the cup."), rt.vlm.first_query_id])
    thought = list(rt.think(IMAGE, "go", mode=mode))[-1]
    reused = rt.latents(IMAGE, "go", thought, reuse_cache=True, instruction_id=3, seq=4, stamp_s=5.0)
    again = rt.latents(IMAGE, "go", thought, reuse_cache=False)
    torch.testing.assert_close(reused.latents, again.latents, atol=1e-4, rtol=0)
    assert (reused.instruction_id, reused.seq, reused.stamp_s, reused.text) == (3, 4, 5.0, "the cup.")
    assert sum(reused.gate_mean) == pytest.approx(1.0)
    assert reused.latents.shape == (4, 24)


def test_a_new_image_changes_latents_unless_the_cache_is_reused(runtime, tokenizer, monkeypatch):
    rt = runtime()
    script(monkeypatch, [*tokenizer.encode("cup "), rt.vlm.first_query_id])
    thought = list(rt.think(IMAGE, "go"))[-1]
    old = rt.latents(IMAGE, "go", thought)
    assert torch.equal(rt.latents(OTHER, "go", thought, reuse_cache=True).latents,
                       rt.latents(IMAGE, "go", thought, reuse_cache=True).latents)  # fmt: skip
    assert not torch.allclose(rt.latents(OTHER, "go", thought).latents, old.latents, atol=1e-4)


def test_a_thought_that_lost_its_caches_is_encoded_from_its_text(runtime, tokenizer, monkeypatch):
    rt = runtime()
    script(monkeypatch, [*tokenizer.encode("cup"), rt.vlm.first_query_id])
    thought = list(rt.think(IMAGE, "go"))[-1]
    bare = dataclasses.replace(thought, cache=None)
    torch.testing.assert_close(rt.latents(IMAGE, "go", bare).latents, rt.latents(IMAGE, "go", thought).latents)
    with pytest.raises(RuntimeInputError, match="no caches"):
        rt.latents(IMAGE, "go", bare, reuse_cache=True)


def test_without_a_thought_the_plain_action_prompt_is_used(runtime, monkeypatch):
    rt = runtime()
    script(monkeypatch, [rt.vlm.first_query_id] * 2)
    answer = list(rt.think(IMAGE, "go", mode="answer"))[-1]
    plain = rt.latents(IMAGE, "go")
    assert torch.equal(rt.latents(IMAGE, "go", answer).latents, plain.latents)
    think = list(rt.think(IMAGE, "go"))[-1]
    assert not torch.allclose(rt.latents(IMAGE, "go", think).latents, plain.latents, atol=1e-4)


def test_a_thought_about_another_instruction_is_refused(runtime, monkeypatch):
    rt = runtime()
    script(monkeypatch, [rt.vlm.first_query_id])
    thought = list(rt.think(IMAGE, "go"))[-1]
    with pytest.raises(RuntimeInputError, match="thought is about 'go'"):
        rt.latents(IMAGE, "stop", thought)


def test_text_can_be_written_while_latents_are_taken(runtime, tokenizer, monkeypatch):
    rt = runtime()
    script(monkeypatch, [*tokenizer.encode("red cube "), rt.vlm.first_query_id] * 2)
    alone = list(rt.think(IMAGE, "go"))[-1]
    expected = rt.latents(IMAGE, "go", alone, reuse_cache=True).latents
    thought = None
    for step in rt.think(IMAGE, "go"):
        thought = step
        rt.latents(OTHER, "other words")
    assert torch.equal(rt.latents(IMAGE, "go", thought, reuse_cache=True).latents, expected)


def test_acting_un_normalises_a_seeded_sample(runtime):
    rt = runtime("expert")
    plan = rt.latents(IMAGE, "go", instruction_id=2, seq=9)
    chunk = rt.act(OBS, plan, seed=5, seq=11)
    state = torch.from_numpy(STATISTICS.state.normalize(OBS.state))[None]
    with torch.no_grad():
        pixels = rt.manifest.expert_recipe.apply(IMAGE)[None, None]
        prefix = rt.expert.encode_prefix(pixels, plan.latents[None], state)
        y = flow.sample(rt.expert, prefix, generator=torch.Generator().manual_seed(5))[0, 0].numpy()
    q01, q99 = np.array(STATISTICS.action.q01), np.array(STATISTICS.action.q99)
    x = 0.5 * (np.clip(y, -1, 1) + 1) * (q99 - q01) + q01
    np.testing.assert_allclose(chunk.delta_xyz_m, x[:, :3], atol=1e-5)
    np.testing.assert_allclose(chunk.delta_rpy_rad, x[:, 3:6], atol=1e-5)
    np.testing.assert_allclose(chunk.gripper, np.clip(y[:, 6], 0, 1), atol=1e-5)
    assert (chunk.dt_s, chunk.stamp_s, chunk.instruction_id, chunk.seq, chunk.latent_seq) == (0.2, 12.5, 2, 11, 9)
    assert chunk.delta_xyz_m.dtype == np.float32


def test_the_seed_decides_the_noise(runtime):
    rt = runtime("expert")
    plan = rt.latents(IMAGE, "go")
    a, b, c, d = (rt.act(OBS, plan, seed=seed) for seed in (1, 1, 2, None))
    assert np.array_equal(a.delta_xyz_m, b.delta_xyz_m)
    assert not np.array_equal(a.delta_xyz_m, c.delta_xyz_m)
    assert not np.array_equal(d.delta_xyz_m, a.delta_xyz_m)


def test_stages_report_their_gates(runtime):
    assert runtime("base").latents(IMAGE, "go").gate_mean == ()
    assert runtime("expert").latents(IMAGE, "go").gate_mean == (1.0,)


def test_a_loaded_checkpoint_acts_as_the_policy_it_was_saved_from(make_policy, tokenizer, tmp_path):
    policy = make_policy("generalist")
    manifest = checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "generalist", STATISTICS))
    loaded = PolicyRuntime.load(tmp_path, device="cpu", dtype="float32", threads=1)
    direct = PolicyRuntime(manifest, tokenizer, policy.vlm, policy.expert)
    plan = loaded.latents(IMAGE, "go")
    assert torch.equal(plan.latents, direct.latents(IMAGE, "go").latents)
    a, b = loaded.act(OBS, plan, seed=1), direct.act(OBS, plan, seed=1)
    assert np.array_equal(a.delta_xyz_m, b.delta_xyz_m)
    assert loaded.manifest.checkpoint_id == manifest.checkpoint_id


def test_parts_work_alone_and_say_what_is_missing(make_policy, tokenizer, tmp_path):
    policy = make_policy("expert")
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "expert", STATISTICS))
    thinker = PolicyRuntime.load(tmp_path, parts=("vlm",))
    actor = PolicyRuntime.load(tmp_path, parts=("expert",))
    plan = thinker.latents(IMAGE, "go")
    assert actor.act(OBS, plan, seed=0).gripper.shape == (4,)
    with pytest.raises(RuntimeInputError, match="expert is not loaded"):
        thinker.act(OBS, plan, seed=0)
    with pytest.raises(RuntimeInputError, match="vision-language model is not loaded"):
        actor.latents(IMAGE, "go")
    assert thinker.warm_up(1) > 0
    assert actor.warm_up(1) > 0


def test_bfloat16_weights_give_nearly_the_same_chunk(make_policy, tokenizer, tmp_path):
    policy = make_policy("generalist")
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "generalist", STATISTICS))
    full = PolicyRuntime.load(tmp_path, device="cpu")
    half = PolicyRuntime.load(tmp_path, device="cpu", dtype="bfloat16")
    plan = full.latents(IMAGE, "go")
    a, b = full.act(OBS, plan, seed=1), half.act(OBS, plan, seed=1)
    assert np.abs(a.delta_xyz_m - b.delta_xyz_m).max() < 0.2
    list(half.think(IMAGE, "go", max_new_tokens=3))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_vision_gives_the_same_chunk(make_policy, tokenizer, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(compiled, "BACKEND", backend)
    policy = make_policy("generalist")
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "generalist", STATISTICS))
    plain, fast = (PolicyRuntime.load(tmp_path, device="cpu", compiled=wanted) for wanted in (False, True))
    towers = (fast.vlm.vision_model, fast.expert.film_vision_model)
    assert all(tower._compiled_call_impl is not None for tower in towers)
    assert plain.vlm.vision_model._compiled_call_impl is None
    assert fast.warm_up(1) > 0
    a, b = plain.latents(IMAGE, "go"), fast.latents(IMAGE, "go")
    torch.testing.assert_close(a.latents, b.latents, atol=1e-4, rtol=0)
    steps = [rt.act(OBS, a, seed=1).delta_xyz_m for rt in (plain, fast)]
    np.testing.assert_allclose(*steps, atol=1e-4)


def test_two_views_are_taken_by_name(runtime):
    rt = runtime("expert", views=("primary", "wrist"))
    plan = rt.latents(IMAGE, "go")
    with pytest.raises(RuntimeInputError, match="'wrist'"):
        rt.act(OBS, plan, seed=0)
    swapped = [
        rt.act(dataclasses.replace(OBS, images={"wrist": w, "primary": p}), plan, seed=0).delta_xyz_m
        for p, w in ((IMAGE, OTHER), (OTHER, IMAGE))
    ]
    assert not np.array_equal(*swapped)


def test_the_vlm_sees_two_views_side_by_side_where_the_policy_says_so(runtime):
    rt = runtime("expert", views=("primary", "wrist"), vlm_input="side_by_side")
    plan = rt.latents({"wrist": OTHER, "primary": IMAGE}, "go").latents
    one = runtime("expert").latents(np.concatenate([IMAGE, OTHER], axis=1), "go").latents
    assert torch.equal(plan, one)
    assert torch.equal(
        runtime("expert").latents({"primary": IMAGE}, "go").latents, runtime("expert").latents(IMAGE, "go").latents
    )
    for images, words in (
        (IMAGE, "one image given"),
        ({"primary": IMAGE}, "'wrist'"),
        ({"primary": IMAGE, "wrist": OTHER[:4]}, "heights"),
    ):
        with pytest.raises((RuntimeInputError, ImageError), match=words):
            rt.latents(images, "go")
    assert rt.warm_up(1) > 0


def test_what_the_vlm_sees_of_libero_is_each_view_prepared_and_then_joined(runtime, monkeypatch):
    """The recipe's own restatement is in test_image.py; here: the runtime hands it the views one by one."""
    rt = runtime("expert", views=("primary", "wrist"), vlm_input="side_by_side", vlm_recipe="siglip_libero")
    seen, encode = [], type(rt.vlm).encode_images
    monkeypatch.setattr(type(rt.vlm), "encode_images", lambda vlm, pixels: seen.append(pixels) or encode(vlm, pixels))
    rt.latents({"wrist": OTHER, "primary": np.ascontiguousarray(IMAGE[:40])}, "go")
    expected = rt.manifest.vlm_recipe.apply_joined([IMAGE[:40], OTHER])
    assert torch.equal(seen[0][0], expected)


def test_a_released_gripper_is_open_or_closed(runtime):
    rt = runtime("expert", binary_gripper=True)
    plan = rt.latents(IMAGE, "go")
    plain = runtime("expert").act(OBS, plan, seed=0)
    assert np.array_equal(rt.act(OBS, plan, seed=0).gripper, (plain.gripper >= 0.5).astype(np.float32))


def test_weights_that_nothing_reads_are_not_loaded_for_inference(make_policy, config, tokenizer, tmp_path):
    film = dataclasses.replace(config.film, n_blocks_used=1, final_norm=False)
    policy = make_policy("expert", film=film)
    checkpoint.save(tmp_path, policy, tokenizer, new_manifest(policy.config, "expert", STATISTICS))
    loaded = PolicyRuntime.load(tmp_path, device="cpu")
    tower = loaded.expert.film_vision_model.vision_model
    assert (len(tower.blocks), tower.norm) == (1, None)
    direct = PolicyRuntime(loaded.manifest, tokenizer, policy.vlm, policy.expert)
    plan = direct.latents(IMAGE, "go")
    a, b = loaded.act(OBS, plan, seed=1), direct.act(OBS, plan, seed=1)
    np.testing.assert_allclose(a.delta_xyz_m, b.delta_xyz_m, atol=1e-5)


def test_with_one_cache_for_both_streams_latents_are_encoded_again(runtime, tokenizer, monkeypatch):
    rt = runtime(text_cache="shared")
    script(monkeypatch, [*tokenizer.encode("the cup."), tokenizer.turn_end_id])
    thought = list(rt.think(IMAGE, "go"))[-1]
    reused = rt.latents(IMAGE, "go", thought, reuse_cache=True)
    again = rt.latents(IMAGE, "go", thought)
    assert torch.equal(reused.latents, again.latents)
    # the released code puts the end token that was written into the next prompt, and a space behind it
    ids = [*tokenizer.encode("the cup.<|im_end|> ")]
    clean = runtime()
    with torch.inference_mode():
        prompt = clean._prompt(IMAGE, "think", "go")
        tail = clean.vlm.embed(torch.tensor([[*ids, *tokenizer.query_ids]]))
        embeds = torch.cat([prompt, tail], dim=1)
        hidden = clean.vlm.hidden(embeds, clean.vlm.mix_for(embeds))[0, -4:]
    torch.testing.assert_close(again.latents, hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "state", [None, np.zeros(7, np.float32), np.full(8, np.nan, np.float32), np.full(8, np.inf, np.float32)]
)
def test_a_bad_state_is_refused(runtime, state):
    rt = runtime("expert")
    with pytest.raises(RuntimeInputError, match="state"):
        rt.act(dataclasses.replace(OBS, state=state), rt.latents(IMAGE, "go"), seed=0)


@pytest.mark.parametrize("latents", [torch.zeros(3, 24), torch.full((4, 24), float("nan"))])
def test_a_bad_plan_is_refused(runtime, latents):
    with pytest.raises(RuntimeInputError, match="latents"):
        runtime("expert").act(OBS, LatentPlan(latents, 0.0, 0, 0, (), ""), seed=0)


def test_output_that_is_not_finite_is_refused(runtime):
    rt = runtime("expert")
    plan = rt.latents(IMAGE, "go")
    with torch.no_grad():
        rt.expert.action_head[6].bias.fill_(float("nan"))
    with pytest.raises(RuntimeInputError, match="returned NaN"):
        rt.act(OBS, plan, seed=0)


def test_a_checkpoint_without_statistics_cannot_act(runtime):
    rt = runtime("base", statistics=None)
    assert rt.warm_up(1) > 0
    with pytest.raises(RuntimeInputError, match="no action statistics"):
        rt.act(OBS, rt.latents(IMAGE, "go"), seed=0)


@pytest.mark.parametrize("instruction", ["", "\n", "<|im_end|>", "x y " * 2000])
def test_bad_instructions_are_refused_with_words(runtime, instruction):
    rt = runtime()
    with pytest.raises(PromptError):
        next(rt.think(IMAGE, instruction))
    with pytest.raises(PromptError):
        rt.latents(IMAGE, instruction)


def test_bad_images_and_modes_are_refused(runtime):
    rt = runtime()
    with pytest.raises(ImageError):
        rt.latents(IMAGE.astype(np.float32), "go")
    with pytest.raises(RuntimeInputError, match="mode"):
        next(rt.think(IMAGE, "go", mode="sing"))


def test_devices_and_dtypes_are_chosen_by_rule(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(RuntimeInputError, match="no CUDA"):
        choose_device("cuda")
    with pytest.raises(RuntimeInputError, match="unknown"):
        choose_device("toaster")
    with pytest.raises(RuntimeInputError, match="dtype"):
        choose_dtype("int3", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda") and choose_device("cuda:1").index == 1
    with pytest.raises(RuntimeInputError, match="sees 2 of them"):
        choose_device("cuda:2")
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_the_library_imports_no_ros_no_simulator_and_no_pickle():
    forbidden = {"rclpy", "mujoco", "pickle", "sensor_msgs", "instructvla_msgs", "instructvla_ros", "torchvision"}
    for path in Path(instructvla_model.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not forbidden & {name.split(".")[0] for name in names}, path
