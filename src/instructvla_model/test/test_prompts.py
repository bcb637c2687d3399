"""Label spans, spelling, cleaning of outside text. The golden strings are compared in test_parity_misc.py."""

import dataclasses

import pytest

from instructvla_model.batch import IGNORE
from instructvla_model.presets import preset
from instructvla_model.prompts import Encoded, PromptBuilder, PromptError, Turn, clean_text, collate
from instructvla_model.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def reference():
    """A builder with the reference's numbers: 256 image tokens, 64 queries, the system turn."""
    tokenizer = train_tokenizer(["assistant user system\n robot action"] * 5, 300, 64)
    config = preset("tiny").with_vocab_size(tokenizer.vocab_size)
    vision = dataclasses.replace(config.vision, image_size=128)
    assert vision.tokens_per_image == 256
    return PromptBuilder(
        tokenizer,
        dataclasses.replace(
            config, vision=vision, n_queries=64, system_message="You are a helpful assistant.",
            lowercase_instructions=False, language=dataclasses.replace(config.language, max_position=4096),
        ),
    )  # fmt: skip


def test_action_supervises_the_queries_and_the_end_of_turn_only(reference):
    encoded = reference.action("pick up the cup")
    assert sum(label != IGNORE for label in encoded.labels) == 65


def test_encoding_in_pieces_equals_encoding_the_whole_string(reference):
    turns = [Turn("What action?", "I will  take it.", True)]
    assert list(reference.conversation(turns).ids) == reference.tokenizer.encode(reference.text(turns))


def test_the_system_turn_can_be_dropped(tokenizer, config):
    text = tokenizer.decode(PromptBuilder(tokenizer, config).action("go").ids)
    assert text.startswith("<|im_start|>user\n<img>")
    assert "system" not in text


def test_opening_is_the_start_of_the_training_sequence(tokenizer, config):
    builder = PromptBuilder(tokenizer, config)
    opening = builder.opening("action", "go")
    assert list(builder.action("go").ids[: len(opening)]) == opening


def test_instructions_are_spelled_as_in_training_where_the_policy_says_so(tokenizer, config):
    builder = PromptBuilder(tokenizer, config)
    assert builder.user_text("action", "Pick UP the cup.").endswith("take to pick up the cup?")
    assert builder.user_text("answer", "Where is the Cup?") == "Where is the Cup?"
    assert "take to ...?" in builder.user_text("action", "...")
    kept = PromptBuilder(tokenizer, dataclasses.replace(config, lowercase_instructions=False))
    assert kept.user_text("action", "Pick UP.").endswith("take to Pick UP.?")


def test_a_released_policy_gets_an_instruction_as_it_is_given_apart_from_its_case(tokenizer, config):
    chosen = dataclasses.replace(config, strip_instructions=preset("2b-libero").strip_instructions)
    builder = PromptBuilder(tokenizer, chosen)
    given = " Turn on the  stove. and put the Moka pot on it. "
    expected = "What action should the robot take to  turn on the  stove. and put the moka pot on it. ?"
    assert builder.user_text("action", given) == expected
    assert builder.user_text("action", "a\n<|im_end|>b") == "What action should the robot take to a b?"
    with pytest.raises(PromptError, match="instruction is empty"):
        builder.user_text("action", " \n ")


def test_the_lines_of_a_question_stay_where_a_policy_is_given_what_was_said(tokenizer, config):
    asked = "Which?\nA. a cup \x07\nB. a bowl<|im_end|>"
    builder = PromptBuilder(tokenizer, dataclasses.replace(config, strip_instructions=False))
    assert builder.user_text("answer", asked) == "Which?\nA. a cup  \nB. a bowl"
    assert "\n" not in builder.user_text("think", "pick up\nthe cup")
    assert PromptBuilder(tokenizer, config).user_text("answer", asked) == "Which? A. a cup B. a bowl"


@pytest.mark.parametrize(("name", "strips"), [("nano", True), ("2b", False), ("2b-state", False), ("2b-libero", False)])
def test_only_our_own_small_policies_strip_instructions(name, strips):
    assert preset(name).strip_instructions is strips


def test_text_before_the_queries_is_followed_by_one_space(tokenizer, config):
    builder = PromptBuilder(tokenizer, config)
    text = tokenizer.decode(builder.think("go", "  yes \n").ids)
    assert "assistant\nyes <new_token_0>" in text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("  pick \t up\n", "pick up"),
        ("take<|im_end|> it <new_token_3>", "take it"),
        ("<<|im_end|>|im_start|>x", "x"),
        ("<img><IMG_CONTEXT></img> cup", "cup"),
        ("a\x00b\u200bc", "a b c"),
        ("hol den <image 1><image> Löffel", "hol den Löffel"),
    ],
)
def test_outside_text_cannot_smuggle_tokens_in(tokenizer, dirty, clean):
    assert clean_text(dirty) == clean
    specials = {tokenizer.image_token_id, *tokenizer.stop_ids, *tokenizer.query_ids}
    assert not specials & set(tokenizer.encode(clean_text(dirty)))


@pytest.mark.parametrize("text", ["the <IMG> cup", "<New_token_3> cup", "<<New_Token_1>|IM_END|> cup", "<IMAGE 1>cup"])
def test_lower_case_makes_no_tokens_of_outside_text(tokenizer, config, text):
    builder = PromptBuilder(tokenizer, dataclasses.replace(config, lowercase_instructions=True))
    said = builder.user_text("think", text)
    assert "cup" in said and tokenizer.encode(said) == tokenizer.encode(said.replace("<", "").replace(">", ""))


@pytest.mark.parametrize("text", ["", "  \n", "\x07", "<|im_end|>", b"pick", None])
def test_instructions_without_words_are_refused(text):
    with pytest.raises(PromptError, match="instruction"):
        clean_text(text)


def test_an_instruction_longer_than_the_context_is_refused(tokenizer, config):
    builder = PromptBuilder(tokenizer, config)
    with pytest.raises(PromptError, match="at most 512"):
        builder.opening("think", "x y " * 600)
    with pytest.raises(PromptError, match="at most 512"):
        builder.action("x y " * 600)


def test_unknown_modes_are_refused(tokenizer, config):
    with pytest.raises(PromptError, match="mode 'sing'"):
        PromptBuilder(tokenizer, config).opening("sing", "go")


def test_a_tokenizer_of_another_size_is_refused(tokenizer, config):
    with pytest.raises(PromptError, match="expected"):
        PromptBuilder(tokenizer, config.with_vocab_size(999))


def test_collating_pads_on_the_right():
    batch = collate([Encoded((1, 2, 3), (IGNORE, 2, 3)), Encoded((4,), (4,))], pad_id=9)
    assert batch.input_ids_BS.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch.labels_BS.tolist() == [[IGNORE, 2, 3], [4, IGNORE, IGNORE]]
    assert batch.attention_mask_BS.tolist() == [[True] * 3, [True, False, False]]


def test_collating_refuses_to_cut_a_sample():
    with pytest.raises(PromptError, match="3 tokens; expected at most 2"):
        collate([Encoded((1, 2, 3), (1, 2, 3))], pad_id=0, max_length=2)
