"""Scene records, canonical instructions and the parser of answers."""

from __future__ import annotations

import pytest

from instructvla_training.language import (
    ObjectView,
    SceneView,
    TaskView,
    answer,
    atomic_instruction,
    parse_answer,
)
from instructvla_training.language.atomic import ALL_TASKS
from instructvla_training.language.prompts import action_prompt, motion_prompt, spoken, think_prompt


def _object(name: str, visible: bool = True) -> ObjectView:
    return ObjectView(name, "thing", "red", "box", False, (0.3, 0.0), visible)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (TaskView("pick", "red cube"), "pick up the red cube"),
        (TaskView("place", "carrot", "bowl"), "put the carrot in the bowl"),
        (TaskView("place", "lemon", "plate"), "put the lemon on the plate"),
        (TaskView("place", "lemon", "cloth"), "put the lemon on the cloth"),
        (TaskView("place", "lemon", "basket"), "put the lemon in the basket"),
        (TaskView("near", "can", "plate"), "move the can next to the plate"),
        (TaskView("stack", "red cube", "blue cube"), "stack the red cube on the blue cube"),
    ],
)
def test_each_family_has_its_canonical_instruction(task: TaskView, text: str) -> None:
    assert atomic_instruction(task) == text


def test_every_task_is_read_back_from_its_answer_with_and_without_a_reason() -> None:
    for task in ALL_TASKS:
        assert parse_answer(answer(task)) == task
        assert parse_answer(answer(task, "The lemon is sour.")) == task


def test_canonical_instructions_are_all_different() -> None:
    assert len({atomic_instruction(task) for task in ALL_TASKS}) == len(ALL_TASKS)


def test_special_tokens_case_and_blanks_do_not_disturb_the_parser() -> None:
    assert parse_answer("the can  is a drink.  PICK up the can.<|im_end|>") == TaskView("pick", "can")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "The can is a drink.",
        "Pick up the cup.",
        "Pick up the can",
        "Put the lemon in the plate.",
        "Put the lemon on the plate. The lemon is sour.",
        "Pick up the can and the lemon.",
        "<|im_end|>",
    ],
)
def test_anything_but_a_canonical_last_sentence_is_no_task(text: str) -> None:
    expected = TaskView("pick", "can") if text == "Pick up the can" else None
    assert parse_answer(text) == expected


def test_impossible_tasks_and_scenes_are_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="unknown task family"):
        TaskView("throw", "can")
    with pytest.raises(ValueError, match="unknown target"):
        TaskView("pick", "plate")
    with pytest.raises(ValueError, match="every family but 'pick' needs one"):
        TaskView("place", "can")
    with pytest.raises(ValueError, match="unusable place"):
        TaskView("near", "can", "can")
    with pytest.raises(ValueError, match="names repeat"):
        SceneView((_object("can"), _object("can")), TaskView("pick", "can"))
    with pytest.raises(ValueError, match="unknown objects"):
        SceneView((_object("cup"),), TaskView("pick", "can"))


def test_hidden_objects_are_not_visible_and_held_ones_are_not_on_the_table() -> None:
    view = SceneView(
        (_object("sponge"), _object("can"), _object("lemon", visible=False)), TaskView("pick", "can"), "can"
    )
    assert [item.name for item in view.visible] == ["can", "sponge"]
    assert [item.name for item in view.on_table] == ["sponge"]
    assert view.find("lemon") is None


def test_colour_words_are_separated() -> None:
    item = ObjectView("can", "can", "blue/white and red", "cylinder", False, (0.0, 0.0))
    assert item.colors == {"blue", "white", "red"}


def test_prompts_spell_instructions_in_lower_case_without_a_mark_at_the_end() -> None:
    assert spoken("  I am thirsty.  Can you help? ") == "i am thirsty. can you help"
    assert action_prompt("Pick up the can.") == "What action should the robot take to pick up the can?"
    assert motion_prompt("Lift it!") == (
        "What action should the robot take to lift it? Give both move primitive and action."
    )
    assert think_prompt("I am thirsty.") == (
        "What action should the robot take to i am thirsty? First answer my question."
    )
