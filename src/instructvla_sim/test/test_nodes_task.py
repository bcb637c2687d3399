"""Which task a plain instruction means, and the verdict on it."""

from __future__ import annotations

import json

import pytest

from instructvla_sim import Task, World
from instructvla_sim.catalog import CUBES, GRASPABLE, NAMES, RECEPTACLES
from instructvla_sim.nodes.task_monitor import TaskMonitor
from instructvla_sim.task_text import TaskTextError, task_of, text_of

ALL_TASKS = [
    *[Task("pick", thing) for thing in GRASPABLE],
    *[Task("place", thing, place) for thing in GRASPABLE for place in RECEPTACLES],
    *[Task("near", thing, other) for thing in GRASPABLE for other in NAMES if other != thing],
    *[Task("stack", upper, lower) for upper in CUBES for lower in CUBES if upper != lower],
]


def test_every_task_is_read_back_from_its_plain_instruction() -> None:
    assert [task for task in ALL_TASKS if task_of(text_of(task)) != task] == []


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Put the carrot on the plate.", Task("place", "carrot", "plate")),
        ("please grab the RED block", Task("pick", "red cube")),
        ("drop the lemon into the basket", Task("place", "lemon", "basket")),
        ("set the apple down close to the bowl", Task("near", "apple", "bowl")),
        ("place the green cube on top of the blue cube", Task("stack", "green cube", "blue cube")),
        ("can you pick up the lemon", Task("pick", "lemon")),
        ("Could you please put the can in the bowl?", Task("place", "can", "bowl")),
        ("pick up the can you see", Task("pick", "can")),
        ("pick up the carrot and put it next to the bowl", Task("near", "carrot", "bowl")),
        ("take the apple to the plate", Task("place", "apple", "plate")),
        ("lift the lemon off the table", Task("pick", "lemon")),
        ("put the carrot on the left on the plate", Task("place", "carrot", "plate")),
        ("lift the carrot over and drop it into the white bowl", Task("place", "carrot", "bowl")),
        ("bring the apple on the right over to the bowl", Task("place", "apple", "bowl")),
        ("move the red cube on the left next to the bowl", Task("near", "red cube", "bowl")),
        ("stack the red cube on the right on the blue cube", Task("stack", "red cube", "blue cube")),
    ],
)
def test_other_plain_wordings_are_understood(text: str, task: Task) -> None:
    assert task_of(text) == task


@pytest.mark.parametrize(
    "text",
    [
        "I am thirsty",
        "the carrot",
        "put the plate on the carrot",
        "put the apple, not the lemon, on the plate",
        "put the apple and the lemon on the plate",
        "put the apple on the lemon",
        "",
        "take the apple off the plate",
        "pick up the apple from the plate",
        "take the carrot out of the bowl",
        "move the carrot away from the bowl",
        "pick up the carrot near the bowl",
        "pick up the carrot next to the bowl",
        "grab the apple on the plate",
        "can you take the bowl",
        "don\u2019t pick up the apple",
        "please don\u02bct pick up the apple",
        "put the carrot to the left of the bowl",
        "put the carrot in front of the plate",
        "put the carrot behind the basket",
        "put the carrot under the cloth",
        "move the apple towards the bowl",
        "move the red cube past the plate",
        "put the red cube on the left of the blue cube",
        "stack the red cube under the blue cube",
        "put the carrot on the left-hand side of the white plate",
        "put the apple below the bowl",
        "bring the lemon toward the plate",
        "drop the lemon over the bowl",
        "move the can around the basket",
        "put the lemon between the bowl",
        "put the apple right of the bowl",
        "put the lemon close to the left of the bowl",
        "put the lemon to the bowl's left",
        "put the carrot by the plate\u2019s far side",
    ],
)
def test_what_the_words_leave_open_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(TaskTextError, match=r"expected|name a place|say"):
        task_of(text)


def test_success_counts_once_it_has_held() -> None:
    monitor = TaskMonitor(0.4)
    seen = [monitor.look(holds, 0.2 * k) for k, holds in enumerate([True, True, False, True, True, True, False])]
    assert seen == [False, False, False, False, False, True, False]


def test_a_new_instruction_is_judged_in_the_scene_as_it_is(world: World) -> None:
    world.reset(2, task=Task("place", "carrot", "plate"))
    monitor = TaskMonitor(0.0)
    monitor.look(True, 1.0)
    assert monitor.success
    monitor.follow("pick up the carrot", 3, world)
    assert world.task == Task("pick", "carrot") and not monitor.success
    status = json.loads(monitor.text(world, world.progress()))
    assert status["success"] is False and status["instruction"] == "pick up the carrot" and status["problem"] == ""


@pytest.mark.parametrize("text", ["make me happy", "pick up the eggplant"])
def test_an_instruction_that_cannot_be_judged_never_counts_as_done(world: World, text: str) -> None:
    world.reset(2, task=Task("place", "carrot", "plate"), n_distractors=0)
    monitor = TaskMonitor(0.0)
    monitor.follow(text, 4, world)
    assert not monitor.look(True, 5.0)
    status = json.loads(monitor.text(world, world.progress()))
    assert status["problem"] and status["success"] is False
    assert world.task == Task("place", "carrot", "plate")
