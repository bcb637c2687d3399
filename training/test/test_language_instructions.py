"""Rewritten and situated instructions: answers, clarity, variety and speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, ObjectView, SceneView, TaskView, parse_answer
from instructvla_training.language.annotated import MAX_ANSWER_WORDS, word_count
from instructvla_training.language.patterns import expand
from instructvla_training.language.sample_scenes import random_scene
from instructvla_training.language.scene_view import GRASPABLE, RECEPTACLES, is_cube
from instructvla_training.language.situations import NEED_GROUPS, THINGS_OF_COLOR
from instructvla_training.language.templates.families import FAMILY_TEMPLATES

GENERATORS = {split: LanguageGenerator(split) for split in ("train", "heldout")}
METHODS = ("paraphrase", "attribute", "rewrite", "situated")


def scene(task: TaskView, *names: str) -> SceneView:
    objects = tuple(
        ObjectView(name, "thing", "gray", "shape", name in RECEPTACLES, (0.3, 0.1 * index))
        for index, name in enumerate(names)
    )
    return SceneView(objects, task)


@pytest.fixture(scope="module")
def scenes() -> list[SceneView]:
    rng = np.random.default_rng(1)
    return [random_scene(rng) for _ in range(600)]


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("method", METHODS)
def test_every_answer_names_the_task_of_the_scene_in_few_words(
    method: str, split: str, scenes: list[SceneView]
) -> None:
    rng, made = np.random.default_rng(2), 0
    for view in scenes:
        item = getattr(GENERATORS[split], method)(view, rng)
        if item is None:
            continue
        made += 1
        assert item.task == view.task
        assert parse_answer(item.answer) == view.task
        assert word_count(item.answer) <= MAX_ANSWER_WORDS
        assert "{" not in item.question and "[" not in item.question and "  " not in item.question
        assert item.question[0].isupper() and item.question[-1] in ".?!"
    assert made > 0.9 * len(scenes)


def test_the_same_seed_gives_the_same_sentences(scenes: list[SceneView]) -> None:
    def draws(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [GENERATORS["train"].rewrite(view, rng).question for view in scenes[:100]]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_a_situation_is_not_used_when_two_visible_objects_answer_it() -> None:
    rng = np.random.default_rng(5)
    both = scene(TaskView("pick", "apple"), "apple", "lemon")
    alone = scene(TaskView("pick", "apple"), "apple", "can")
    fruit = "to make a fruit salad"
    assert not any(fruit in GENERATORS["train"].situated(both, rng).question for _ in range(600))  # type: ignore[union-attr]
    assert any(fruit in GENERATORS["train"].situated(alone, rng).question for _ in range(600))  # type: ignore[union-attr]


def test_wiping_is_no_situation_for_the_sponge_when_a_cloth_is_there() -> None:
    rng = np.random.default_rng(6)
    view = scene(TaskView("pick", "sponge"), "sponge", "cloth")
    questions = [GENERATORS["train"].situated(view, rng).question for _ in range(400)]  # type: ignore[union-attr]
    assert not any("spilled" in text for text in questions)


def test_a_container_is_a_cue_only_while_one_container_is_there() -> None:
    rng = np.random.default_rng(7)
    one = scene(TaskView("place", "lemon", "bowl"), "lemon", "bowl", "plate")
    two = scene(TaskView("place", "lemon", "bowl"), "lemon", "bowl", "basket")
    for view, possible in ((one, True), (two, False)):
        questions = [GENERATORS["train"].situated(view, rng).question for _ in range(800)]  # type: ignore[union-attr]
        assert any("roll" in text for text in questions) == possible


def test_a_situation_never_names_the_object_to_take(scenes: list[SceneView]) -> None:
    rng = np.random.default_rng(8)
    for view in scenes:
        if view.task.family != "pick":
            continue
        item = GENERATORS["train"].situated(view, rng)
        assert item is None or f"the {view.task.target}" not in item.question


def test_a_task_whose_objects_are_hidden_has_no_situation() -> None:
    view = scene(TaskView("place", "lemon", "bowl"), "lemon", "plate")
    assert GENERATORS["train"].situated(view, np.random.default_rng(9)) is None


def test_an_indefinite_description_only_fills_gaps_that_take_one(scenes: list[SceneView]) -> None:
    rng = np.random.default_rng(10)
    for view in scenes:
        item = GENERATORS["train"].rewrite(view, rng)
        assert "and nothing else" not in item.question or " something " not in item.question


def test_the_atomic_instruction_comes_with_its_own_answer() -> None:
    item = GENERATORS["train"].atomic(scene(TaskView("pick", "can"), "can"))
    assert (item.question, item.instruction, item.answer) == (
        "Pick up the can.",
        "pick up the can",
        "Pick up the can.",
    )


@pytest.mark.parametrize(("family", "least"), [("pick", 80), ("place", 80), ("near", 25), ("stack", 25)])
def test_each_family_has_many_templates(family: str, least: int) -> None:
    templates = FAMILY_TEMPLATES[family]
    texts = {text for pattern in templates.of("train") + templates.of("heldout") for text in expand(pattern)}
    assert len(texts) >= least


@pytest.mark.parametrize("name", GRASPABLE)
def test_each_object_has_at_least_a_dozen_situations(name: str) -> None:
    own = [group for group in NEED_GROUPS if name in group.true_of]
    count = sum(len(group.needs.train) + len(group.needs.heldout) for group in own)
    if is_cube(name):
        things = THINGS_OF_COLOR[name.split()[0]]
        assert len(things.train) >= 12
        count += len(things.train) + len(things.heldout)
    assert count >= 12


def test_situated_instructions_vary_by_the_thousands() -> None:
    rng = np.random.default_rng(11)
    scenes = [random_scene(rng) for _ in range(3000)]
    items = (GENERATORS["train"].situated(view, rng) for view in scenes)
    assert len({item.question for item in items if item is not None}) > 2400


@pytest.mark.parametrize("method", ["rewrite", "situated", "qa", "pointing"])
def test_five_thousand_draws_take_less_than_a_second_of_processor_time(
    method: str, scenes: list[SceneView]
) -> None:
    rng = np.random.default_rng(12)
    draw = getattr(GENERATORS["train"], method)
    best_s = float("inf")
    for _ in range(3):
        start_s = time.process_time()
        for view in scenes[:500]:
            draw(view, rng)
        best_s = min(best_s, time.process_time() - start_s)
    assert 500 / best_s >= 5000
