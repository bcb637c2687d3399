"""Tokenizer: training, ids, saving, bad files."""

import pytest
from tokenizers import Tokenizer, models

from instructvla_model.tokenizer import (
    SPECIAL_TOKENS,
    TokenizerError,
    load_tokenizer,
    query_token,
    train_tokenizer,
)


def test_queries_are_the_last_ids_and_contiguous(tokenizer):
    assert tokenizer.n_queries == 4
    assert tokenizer.query_ids == tuple(range(tokenizer.vocab_size, tokenizer.vocab_size + 4))
    assert tokenizer.encode("".join(query_token(i) for i in range(4))) == list(tokenizer.query_ids)


@pytest.mark.parametrize("text", ["pick up the cube", "café ☕ \n\n two  spaces ", "", "\x00\ufffd"])
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_strings_become_single_tokens(tokenizer):
    for token in SPECIAL_TOKENS:
        assert len(tokenizer.encode(token)) == 1


def test_half_a_character_decodes_without_raising(tokenizer):
    first_byte = tokenizer.encode("é")[0]
    assert isinstance(tokenizer.decode([first_byte]), str)


def test_the_turn_header_words_are_single_tokens_once_seen_in_training(tokenizer):
    assert len(tokenizer.encode("assistant")) == 1
    assert tokenizer.encode("assistant\n") == tokenizer.encode("assistant") + tokenizer.encode("\n")


def test_saving_and_loading_keep_every_id(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "pick up <img><IMG_CONTEXT></img> the cup <new_token_1>"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.stop_ids == tokenizer.stop_ids
    assert again.to_json() == tokenizer.to_json()


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(TokenizerError, match="at least 262"):
        train_tokenizer(["a"], 100, 4)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="no tokenizer file"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_the_template_tokens_is_refused(tmp_path):
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="lacks"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_whose_queries_are_not_last_is_refused(tokenizer, tmp_path):
    backend = Tokenizer.from_str(tokenizer.to_json())
    backend.add_tokens(["afterwards"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="end of the vocabulary"):
        load_tokenizer(tmp_path)
