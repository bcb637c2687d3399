"""The tokenizer's corpus and the evaluation set."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, SceneView, parse_answer
from instructvla_training.language.atomic import ALL_TASKS, answer
from instructvla_training.language.corpus import distinct_words, iterate_corpus
from instructvla_training.language.patterns import expand, sentence_case
from instructvla_training.language.prompts import PROMPTS
from instructvla_training.language.sample_scenes import random_scene
from instructvla_training.language.splits import words


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return list(islice(iterate_corpus(np.random.default_rng(0)), 15_000))


@pytest.fixture(scope="module")
def scenes() -> list[SceneView]:
    rng = np.random.default_rng(1)
    return [random_scene(rng) for _ in range(120)]


def test_the_corpus_is_the_same_for_the_same_seed(corpus: list[str]) -> None:
    assert list(islice(iterate_corpus(np.random.default_rng(0)), 6000)) == corpus[:6000]


def test_the_corpus_holds_every_word_of_the_training_language_and_no_gap(corpus: list[str]) -> None:
    found = set().union(*(words(line) for line in corpus))
    assert distinct_words() <= found
    assert not any("{" in line or "[" in line for line in corpus)


def test_the_corpus_holds_every_prompt_of_the_catalogue(corpus: list[str]) -> None:
    for prompt in PROMPTS:
        before, after = prompt.split("{instruction}")
        assert any(line.startswith(before) and line.endswith(after) for line in corpus)


def test_a_small_tokenizer_trained_on_the_corpus_writes_any_plain_answer_in_sixteen_tokens(
    corpus: list[str],
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1300,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(corpus, trainer)
    assert max(len(bpe.encode(answer(task)).ids) for task in ALL_TASKS) <= 16
    generator, rng = LanguageGenerator("heldout"), np.random.default_rng(2)
    lengths = []
    for _ in range(400):
        item = generator.situated(random_scene(rng), rng)
        if item is not None:
            lengths.append(len(bpe.encode(item.answer).ids))
    assert np.mean(lengths) <= 16
    assert np.percentile(lengths, 95) <= 20
    assert max(lengths) <= 24  # rare names of things ("Ketchup is red.") take several tokens


def test_the_evaluation_set_is_balanced_repeatable_and_carries_the_ground_truth(
    scenes: list[SceneView],
) -> None:
    generator = LanguageGenerator("heldout")
    items = generator.instruct_set(scenes, 90, seed=5)
    assert items == generator.instruct_set(scenes, 90, seed=5)
    assert items != generator.instruct_set(scenes, 90, seed=6)
    assert Counter(item.annotated.variety for item in items) == {
        "paraphrase": 30,
        "attribute": 30,
        "situated": 30,
    }
    for item in items:
        assert item.task == scenes[item.view_index].task == parse_answer(item.annotated.answer)


def test_the_evaluation_set_uses_the_scenes_evenly(scenes: list[SceneView]) -> None:
    items = LanguageGenerator("heldout").instruct_set(scenes, 360, seed=7, varieties=("paraphrase",))
    uses = Counter(item.view_index for item in items)
    assert len(uses) == len(scenes)
    assert set(uses.values()) <= {2, 3, 4}


def test_too_few_scenes_for_an_evaluation_set_are_reported(scenes: list[SceneView]) -> None:
    generator = LanguageGenerator("heldout")
    with pytest.raises(ValueError, match="pass at least one"):
        generator.instruct_set([], 3, seed=0)
    hidden = SceneView((), scenes[0].task)
    with pytest.raises(ValueError, match="pass more scenes"):
        generator.instruct_set([hidden], 3, seed=0)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'"):
        LanguageGenerator("test")


def test_patterns_expand_to_all_their_choices_without_double_blanks() -> None:
    assert expand("[a|b] [|c ]d[|, e]") == (
        "a d",
        "a d, e",
        "a c d",
        "a c d, e",
        "b d",
        "b d, e",
        "b c d",
        "b c d, e",
    )


def test_sentences_begin_in_upper_case_and_end_with_a_mark() -> None:
    assert sentence_case("i see. do you?") == "I see. Do you?"
    assert sentence_case("go on") == "Go on."
    assert sentence_case("") == ""
