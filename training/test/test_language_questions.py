"""Questions, captions, pointing and knowledge agree with the scene."""

from __future__ import annotations

import re

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, ObjectView, SceneView, TaskView, ViewConvention
from instructvla_training.language.knowledge import knowledge_groups
from instructvla_training.language.sample_scenes import random_scene
from instructvla_training.language.scene_view import CUBE_COLORS, OBJECT_NAMES, RECEPTACLES
from instructvla_training.language.situations import NEED_GROUPS
from instructvla_training.language.splits import words
from instructvla_training.language.templates import questions as wording
from instructvla_training.language.templates.needs_things import COLOR_THINGS
from instructvla_training.language.templates.requests import PLACE_CUES

GENERATOR = LanguageGenerator(convention=ViewConvention(left_y_sign=1))


def _object(name: str, x_m: float, y_m: float, color: str = "") -> ObjectView:
    return ObjectView(name, "thing", color or name.split()[0], "shape", name in RECEPTACLES, (x_m, y_m))


VIEW = SceneView(
    (
        _object("red cube", 0.2, 0.15),
        _object("lemon", 0.3, 0.0, "yellow"),
        _object("can", 0.4, -0.2, "blue/white"),
        _object("plate", 0.3, 0.01, "white"),
        _object("bowl", 0.2, -0.1, "turquoise"),
    ),
    TaskView("pick", "can"),
)


def _answers(view: SceneView = VIEW, draws: int = 30000) -> dict[str, set[str]]:
    rng = np.random.default_rng(0)
    found: dict[str, set[str]] = {}
    for _ in range(draws):
        item = GENERATOR.qa(view, rng)
        assert item is not None and item.kind == "QA"
        found.setdefault(item.question, set()).add(item.answer)
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, set[str]]:
    return _answers()


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("What color is the can?", "The can is blue and white."),
        ("Is there a can on the table?", "Yes."),
        ("Is there an apple on the table?", "No."),
        ("How many cubes are there?", "There is one cube."),
        ("How many vegetables are there?", "There are no vegetables."),
        ("How many objects are there?", "There are five objects."),
        ("Which fruits are there?", "The lemon."),
        ("What is on the plate?", "The lemon."),
        ("What is in the bowl?", "Nothing."),
        ("What is the robot holding?", "Nothing."),
        ("What is the leftmost object?", "The red cube."),
        ("What is the rightmost object?", "The can."),
        ("What is the most distant object?", "The can."),
        ("Is the red cube to the left of the can?", "Yes."),
        ("Is the red cube to the right of the can?", "No."),
        ("Where is the red cube?", "The red cube is on the left."),
        ("Where is the can?", "The can is on the right."),
        ("Name something sour.", "The lemon."),
        ("Which object here goes with thirst?", "The can."),
    ],
)
def test_questions_are_answered_from_the_ground_truth(
    question: str, reply: str, answers: dict[str, set[str]]
) -> None:
    assert answers[question] == {reply}


def test_no_question_has_two_different_answers(answers: dict[str, set[str]]) -> None:
    assert all(len(replies) == 1 for replies in answers.values())


def test_questions_that_the_margin_leaves_open_are_not_asked(answers: dict[str, set[str]]) -> None:
    assert "Where is the lemon?" not in answers
    assert "Is the lemon to the left of the plate?" not in answers


def test_the_other_camera_side_swaps_left_and_right() -> None:
    mirrored = LanguageGenerator(convention=ViewConvention(left_y_sign=-1))
    rng = np.random.default_rng(0)
    items = [mirrored.qa(VIEW, rng) for _ in range(3000)]
    replies = {item.answer for item in items if item and item.question == "What is the leftmost object?"}
    assert replies == {"The can."}


def test_the_held_object_is_named_and_counted_but_not_on_the_table() -> None:
    view = SceneView(VIEW.objects, VIEW.task, held="can")
    replies = _answers(view, 4000)
    assert replies["What is the robot holding?"] == {"The robot is holding the can."}
    assert replies["Is the robot holding the can?"] == {"Yes."}
    assert "Where is the can?" not in replies
    caption = GENERATOR.caption(view, np.random.default_rng(0)).answer
    assert caption == (
        "There is a red cube, a lemon, a plate and a bowl on the table. The robot is holding the can."
    )


def test_captions_list_the_visible_objects_in_a_fixed_order() -> None:
    shuffled = SceneView(VIEW.objects[::-1], VIEW.task)
    rng = np.random.default_rng(0)
    assert GENERATOR.caption(VIEW, rng).answer == GENERATOR.caption(shuffled, rng).answer
    assert GENERATOR.caption(VIEW, rng).answer == (
        "There is a red cube, a lemon, a can, a plate and a bowl on the table."
    )


def test_an_empty_table_has_a_caption_and_questions() -> None:
    view = SceneView((), TaskView("pick", "can"))
    rng = np.random.default_rng(0)
    assert GENERATOR.caption(view, rng).answer == "The table is empty."
    assert GENERATOR.pointing(view, rng) is None
    for _ in range(100):
        item = GENERATOR.qa(view, rng)
        assert item is None or item.answer in {"No.", "Nothing."} or item.answer.startswith("There are no")


def test_there_are_ten_ways_to_ask_for_a_caption() -> None:
    rng = np.random.default_rng(0)
    assert (
        len({GENERATOR.caption(VIEW, rng).question for _ in range(300)}) == len(wording.CAPTION_PROMPTS) == 10
    )


def test_pointing_names_its_target_and_keeps_to_the_names_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        item = GENERATOR.pointing(VIEW, rng, names=["lemon", "apple"])
        assert item is not None
        assert item.target == "lemon" and item.answer == "The lemon."


def test_yes_and_no_are_about_equally_frequent() -> None:
    rng = np.random.default_rng(0)
    items = [GENERATOR.qa(random_scene(rng), rng) for _ in range(4000)]
    replies = [item.answer for item in items if item is not None and item.answer in ("Yes.", "No.")]
    assert 0.35 < replies.count("Yes.") / len(replies) < 0.65


def test_every_keyword_and_every_colour_thing_is_asked_about_in_knowledge() -> None:
    asked = {item.question for group in knowledge_groups() for item in group}
    for group in (*NEED_GROUPS, *PLACE_CUES):
        for keyword in group.keywords:
            assert f"What goes with {keyword}?" in asked
    for things in COLOR_THINGS:
        for thing in (*things.train, *things.heldout):
            assert f"What color is {thing}?" in asked


def test_knowledge_gives_each_question_one_answer() -> None:
    replies: dict[str, set[str]] = {}
    for group in knowledge_groups():
        for item in group:
            if item.question not in {
                t.format(a=f"{a} {n}") for t in wording.KNOW_WHAT for a in ("a", "an") for n in OBJECT_NAMES
            }:
                replies.setdefault(item.question, set()).add(item.answer)
    assert {question: found for question, found in replies.items() if len(found) > 1} == {}


def test_knowledge_about_colour_things_names_the_right_cube() -> None:
    for item in (item for group in knowledge_groups() for item in group):
        match = re.fullmatch(r"Which cube has the color of (.+)\?", item.question)
        if match:
            color = next(t.color for t in COLOR_THINGS if match[1] in (*t.train, *t.heldout))
            assert item.answer == f"The {color} cube."


def test_no_thing_has_two_colours() -> None:
    things = [thing for group in COLOR_THINGS for thing in (*group.train, *group.heldout)]
    assert len(set(things)) == len(things)
    assert not any(words(thing) & set(CUBE_COLORS) for thing in things)


def test_knowledge_is_drawn_from_all_groups() -> None:
    rng = np.random.default_rng(0)
    drawn = {GENERATOR.knowledge(rng).question for _ in range(4000)}
    for group in knowledge_groups():
        assert drawn & {item.question for item in group}
