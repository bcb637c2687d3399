"""Prompts, tiles, pixels, ensembling, SimplerEnv's conversions and clocks equal the reference's golden values."""

import dataclasses
import json
import re

import golden_tensors as golden
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from instructvla_model import flow, simpler_env, tiling
from instructvla_model.batch import IGNORE
from instructvla_model.ensemble import AdaptiveEnsemble
from instructvla_model.image import recipe
from instructvla_model.presets import preset
from instructvla_model.prompts import ACTION, MOTION, THINK, Encoded, PromptBuilder
from instructvla_model.tokenizer import SPECIAL_TOKENS, with_queries

VALUES = golden.read_json("misc")
PROMPTS = VALUES["prompts"]
ARRAYS = np.load(golden.FIXTURES / "misc.npz")
MOTION_KEYS = {"motion", "motion_states", "motion_codes"}  # in the tests of instructvla_training, whose they are


# ---- nothing is left aside ---------------------------------------------------------------------------------


def test_every_golden_file_has_its_test():
    tested = {
        "action_expert_tiny.safetensors", "action_expert_tiny_state.safetensors", "action_expert_full.safetensors",
        "vlm_tiny.safetensors", "xlora_tiny.safetensors", "misc.json", "misc.npz", "trainable_stage1.json",
        "trainable_stage2.json", "instructvla_tiny_stage1.safetensors", "instructvla_tiny_stage2.safetensors",
        "action_model_state_dict_shapes.json", "versions.json",
    }  # fmt: skip
    found = {path.name for path in golden.FIXTURES.iterdir() if path.suffix in (".safetensors", ".json", ".npz")}
    assert found <= tested


def test_every_golden_value_here_is_compared_by_a_test_of_this_file():
    ensembles = {f"ens{k}_{kind}" for k in _ensemble_sizes() for kind in ("chunks", "out")}
    robots = {
        f"{kind}_{name}_{side}"
        for name in simpler_env.SETUPS
        for kind, sides in (("policy", ("chunks", "actions")), ("proprio", ("eef", "out")))
        for side in sides
    }
    assert set(ARRAYS.files) == {"vlm_px_u8", "vlm_px_norm", "dino_px"} | ensembles | robots | MOTION_KEYS - {"motion"}
    assert set(VALUES) == {"prompts", "tiles", "bf16_t_schedule", "beta"} | {"motion"}


# ---- prompts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    """The reference's numbers, over the fixture's tokenizer: characters, and `assistant` as one token."""
    letters = sorted(set(json.dumps(PROMPTS, ensure_ascii=False)) | set("\n"))
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.add_tokens(["assistant"])
    tokenizer = with_queries(backend, 64)
    config = dataclasses.replace(preset("2b").with_vocab_size(tokenizer.vocab_size))
    return PromptBuilder(tokenizer, config)


def expand(text: str) -> str:
    queries = "".join(f"<new_token_{i}>" for i in range(64))
    return text.replace("<IMG_CONTEXT>*256", "<IMG_CONTEXT>" * 256).replace("<new_token_0..63>", queries)


def turns(text: str) -> list[tuple[str, str]]:
    """(user, assistant) of a golden prompt, without images and queries."""
    turn = r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n(.*?)(?:<\|im_end\|>|$)"
    found = re.findall(turn, text, re.DOTALL)
    image = r"(?:<image \d>)?<img>.*?</img>\n"
    return [(re.sub(image, "", user), said.replace("<new_token_0..63>", "").strip()) for user, said in found]


def instruction(pattern: str, user: str) -> str:
    """The words that a prompt of the catalogue was made for."""
    match = re.fullmatch(re.escape(pattern).replace(re.escape("{lang}"), "(.*)"), user)
    assert match is not None, user
    return match.group(1)


def encode(builder: PromptBuilder, name: str) -> Encoded:
    golden_turns, images = turns(PROMPTS[name]["text"]), PROMPTS[name]["text"].count("<img>")
    (user, answer), (last, _) = golden_turns[0], golden_turns[-1]
    if name == "action":
        return builder.action(instruction(ACTION, user))
    if name == "primitive":
        return builder.motion(instruction(MOTION, user), answer)
    if name == "think":
        return builder.think(instruction(THINK, user), answer)
    if name == "qa_then_action":
        return builder.question_then_action(user, answer, instruction(ACTION, last))
    return builder.answer(user, answer, n_images=images)


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "generate_prefix"])
def test_prompt_labels_and_numbers_equal_the_golden_ones(builder, name):
    wanted = PROMPTS[name]
    assert set(wanted) == {"text", "supervised_text", "n_tokens", "n_supervised", "pixel_shape", "pixel_dtype"}
    encoded = encode(builder, name)
    labels = [label for label in encoded.labels if label != IGNORE]
    assert text_of(builder, encoded.ids) == expand(wanted["text"])
    assert text_of(builder, labels) == expand(wanted["supervised_text"])
    assert (len(encoded.ids), len(labels)) == (wanted["n_tokens"], wanted["n_supervised"])
    vlm = recipe(builder.config.vlm_recipe, builder.config.vision.image_size)
    images = [vlm.apply(np.zeros((480, 640, 3), np.uint8))] * wanted["text"].count("<img>")
    assert list(torch.stack(images).shape) == wanted["pixel_shape"]
    assert wanted["pixel_dtype"] == "torch.bfloat16"


def test_the_generation_prefix_equals_the_golden_string(builder):
    text = PROMPTS["generate_prefix"]["text"]
    (user, answer) = turns(text)[-1]
    assert answer == ""
    assert text_of(builder, builder.opening("think", instruction(THINK, user))) == expand(text)


def text_of(builder: PromptBuilder, ids) -> str:
    return "".join(builder.tokenizer.hf.convert_ids_to_tokens(list(ids)))


# ---- pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES["tiles"])
def test_the_number_of_tiles_is_the_reference_one(name):
    width, height, most = (int(number) for number in re.fullmatch(r"(\d+)x(\d+)_max(\d+)", name).groups())
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = tiling.tiles(image, most, 448)
    assert len(found) == VALUES["tiles"][name]
    assert {tile.shape for tile in found} == {(448, 448, 3)}


def test_pixels_of_both_towers_equal_the_golden_ones():
    """Of a 640 x 480 picture that counts modulo 251; every eighth pixel (SigLIP) and every fourth (DINO) is stored."""
    image = (np.arange(480 * 640 * 3) % 251).astype(np.uint8).reshape(480, 640, 3)
    siglip, dino = recipe("siglip_squash", 448), recipe("dino_crop", 224)
    assert np.array_equal(siglip.pixels(image)[::8, ::8], ARRAYS["vlm_px_u8"])
    np.testing.assert_allclose(siglip.apply(image)[:, ::8, ::8].numpy(), ARRAYS["vlm_px_norm"], atol=1e-6)
    np.testing.assert_allclose(dino.apply(image)[:, ::4, ::4].numpy(), ARRAYS["dino_px"], atol=1e-6)


# ---- actions -----------------------------------------------------------------------------------------------


def _ensemble_sizes() -> list[int]:
    return [int(name.removeprefix("ens").removesuffix("_out")) for name in ARRAYS.files if name.endswith("_out")
            and name.startswith("ens")]  # fmt: skip


@pytest.mark.parametrize("size", _ensemble_sizes())
def test_ensembled_actions_equal_the_golden_ones(size):
    ensemble = AdaptiveEnsemble(size)
    got = [ensemble.step(chunk) for chunk in ARRAYS[f"ens{size}_chunks"]]
    np.testing.assert_allclose(got, ARRAYS[f"ens{size}_out"], atol=1e-12)


@pytest.mark.parametrize("name", simpler_env.SETUPS)
def test_simpler_env_gets_the_golden_actions_and_states(name):
    actions = simpler_env.SimplerActions(name)
    for _ in range(2):  # an episode forgets the one before
        actions.reset()
        got = [actions.step(chunk) for chunk in ARRAYS[f"policy_{name}_chunks"]]
        np.testing.assert_allclose(got, ARRAYS[f"policy_{name}_actions"], atol=1e-9)
    states = [simpler_env.state_vector(name, pose) for pose in ARRAYS[f"proprio_{name}_eef"]]
    np.testing.assert_allclose(states, ARRAYS[f"proprio_{name}_out"], atol=1e-9)


def test_the_half_precision_clock_is_the_golden_one():
    steps = VALUES["bf16_t_schedule"]
    assert flow.clock(len(steps), torch.bfloat16) == steps


def test_the_law_of_training_times_is_the_golden_one():
    law, config = VALUES["beta"], preset("2b").flow
    assert (config.beta_a, config.beta_b, config.time_max) == (law["a"], law["b"], law["s"])
    assert law["formula"] == "t=0.999*(1-z), z~Beta(1.5,1)"
