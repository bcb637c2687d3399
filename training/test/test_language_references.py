"""Descriptions are used only where they single out one object."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, ObjectView, SceneView, TaskView, ViewConvention
from instructvla_training.language.references import is_unambiguous, static_references
from instructvla_training.language.rewrites import describe
from instructvla_training.language.spatial import between, extreme, inside, neighbour, spatial_references

COLORS = {
    "carrot": "orange",
    "apple": "red",
    "lemon": "yellow",
    "can": "blue",
    "sponge": "pink",
    "eggplant": "purple",
    "plate": "white",
    "bowl": "turquoise",
    "basket": "brown",
    "cloth": "violet",
}
RECEPTACLES = ("plate", "bowl", "basket", "cloth")
CONVENTION = ViewConvention(left_y_sign=1)


def scene(
    task: TaskView | None = None, held: str | None = None, **positions_m: tuple[float, float]
) -> SceneView:
    """Objects by name (blanks as underscores) at (x, y)."""
    objects = tuple(
        ObjectView(
            name,
            "thing",
            COLORS.get(name, name.split()[0]),
            "shape",
            name in RECEPTACLES,
            position,
        )
        for name, position in ((key.replace("_", " "), value) for key, value in positions_m.items())
    )
    return SceneView(objects, task or TaskView("pick", objects[0].name), held)


def descriptions(view: SceneView, name: str, spatial: bool = False, draws: int = 400) -> set[str]:
    rng = np.random.default_rng(0)
    found = (describe(view, name, rng, CONVENTION, "train", spatial=spatial) for _ in range(draws))
    return {item.text for item in found if item is not None}


def test_a_category_is_used_when_one_member_is_visible_and_not_when_two_are() -> None:
    alone = scene(lemon=(0.3, 0.0), can=(0.3, 0.1))
    both = scene(lemon=(0.3, 0.0), apple=(0.3, 0.1))
    assert {"the fruit", "a fruit"} <= descriptions(alone, "lemon")
    assert not {"the fruit", "a fruit"} & descriptions(both, "lemon")


def test_a_colour_shared_with_another_object_is_not_used() -> None:
    texts = descriptions(scene(red_cube=(0.3, 0.0), apple=(0.3, 0.1)), "red cube")
    assert not {"something red", "the red thing", "the red one", "the red object"} & texts
    assert "the red block" in texts


def test_a_hidden_object_does_not_make_a_description_ambiguous() -> None:
    lemon = ObjectView("lemon", "fruit", "yellow", "ball", False, (0.3, 0.0))
    apple = ObjectView("apple", "fruit", "red", "ball", False, (0.3, 0.1), visible=False)
    view = SceneView((lemon, apple), TaskView("pick", "lemon"))
    assert "the fruit" in descriptions(view, "lemon")


def test_a_use_that_another_visible_object_might_serve_is_not_named() -> None:
    with_cloth = descriptions(scene(sponge=(0.3, 0.0), cloth=(0.3, 0.1)), "sponge")
    soft = {"something soft", "the soft thing", "the soft object", "the soft item", "the soft one"}
    assert not any("clean with" in text for text in with_cloth)
    assert not soft & with_cloth
    assert soft & descriptions(scene(sponge=(0.3, 0.0), plate=(0.3, 0.1)), "sponge")


def test_only_one_cube_may_be_called_the_cube() -> None:
    assert "the cube" in descriptions(scene(red_cube=(0.3, 0.0), can=(0.3, 0.1)), "red cube")
    assert "the cube" not in descriptions(scene(red_cube=(0.3, 0.0), blue_cube=(0.3, 0.1)), "red cube")


def test_colours_come_from_the_scene() -> None:
    green_can = ObjectView("can", "can", "green", "cylinder", False, (0.3, 0.0))
    view = SceneView((green_can,), TaskView("pick", "can"))
    texts = descriptions(view, "can")
    assert any("green" in text for text in texts)
    assert not any("blue" in text for text in texts)


def test_every_description_that_fits_one_object_fits_no_other_by_the_same_rule() -> None:
    view = scene(lemon=(0.3, 0.0), apple=(0.3, 0.1), red_cube=(0.2, 0.0), plate=(0.2, 0.1), sponge=(0.4, 0.0))
    for item in view.visible:
        for option in static_references(item.name, item.colors, "train"):
            owners = [
                other.name for other in view.visible if is_unambiguous(option, other.name, view.visible)
            ]
            assert owners in ([], [item.name])


def test_leftmost_depends_on_the_side_from_which_the_camera_looks() -> None:
    view = scene(lemon=(0.3, 0.1), can=(0.3, 0.0), apple=(0.3, -0.1))
    items = list(view.on_table)
    over_the_shoulder, facing = ViewConvention(left_y_sign=1), ViewConvention(left_y_sign=-1)
    assert extreme(items, "left", over_the_shoulder) == view.find("lemon")
    assert extreme(items, "left", facing) == view.find("apple")
    assert extreme(items, "right", facing) == view.find("lemon")


@pytest.mark.parametrize(("gap_m", "clear"), [(0.039, False), (0.041, True)])
def test_a_word_of_place_needs_a_margin_of_four_centimetres(gap_m: float, clear: bool) -> None:
    view = scene(lemon=(0.3, gap_m), can=(0.3, 0.0))
    assert (extreme(list(view.on_table), "left", CONVENTION) is not None) == clear
    assert ("the leftmost object" in descriptions(view, "lemon", spatial=True)) == clear


def test_near_and_far_are_measured_from_the_robot() -> None:
    view = scene(lemon=(0.2, 0.0), can=(0.4, 0.0))
    assert extreme(list(view.on_table), "close", CONVENTION) == view.find("lemon")
    assert extreme(list(view.on_table), "far", CONVENTION) == view.find("can")


def test_the_held_object_is_not_described_by_its_place() -> None:
    view = scene(held="lemon", lemon=(0.3, 0.2), can=(0.3, 0.0), apple=(0.3, -0.1))
    assert spatial_references(view, CONVENTION, "train").get("lemon", ()) == ()
    assert extreme(list(view.on_table), "left", CONVENTION) == view.find("can")


def test_what_lies_in_a_receptacle_is_found_and_what_stands_beside_it_is_not() -> None:
    view = scene(lemon=(0.3, 0.02), can=(0.3, 0.12), plate=(0.3, 0.0))
    assert [item.name for item in inside(view, "plate", CONVENTION)] == ["lemon"]
    assert inside(view, "bowl", CONVENTION) == ()


def test_a_neighbour_must_be_near_and_alone() -> None:
    lone = scene(lemon=(0.3, 0.1), plate=(0.3, 0.0))
    crowded = scene(lemon=(0.3, 0.1), can=(0.3, -0.11), plate=(0.3, 0.0))
    far = scene(lemon=(0.3, 0.2), plate=(0.3, 0.0))
    for view, name in ((lone, "lemon"), (crowded, None), (far, None)):
        plate = view.find("plate")
        assert plate is not None
        found = neighbour(view, plate, CONVENTION)
        assert (found.name if found else None) == name


def test_between_needs_one_object_near_the_line_that_joins_two() -> None:
    view = scene(lemon=(0.3, 0.0), can=(0.3, 0.15), apple=(0.3, -0.15))
    can, apple, lemon = view.find("can"), view.find("apple"), view.find("lemon")
    assert can is not None and apple is not None and lemon is not None
    assert between(view, can, apple, CONVENTION) == lemon
    assert between(view, can, lemon, CONVENTION) is None
    texts = {
        item.text
        for split in ("train", "heldout")
        for item in spatial_references(view, CONVENTION, split)["lemon"]
    }
    assert "the object between the apple and the can" in texts


def test_a_near_task_never_describes_an_object_as_being_next_to_something() -> None:
    view = scene(TaskView("near", "lemon", "plate"), lemon=(0.3, 0.1), plate=(0.3, 0.0), can=(0.3, -0.2))
    generator, rng = LanguageGenerator(convention=CONVENTION), np.random.default_rng(0)
    for _ in range(200):
        item = generator.attribute(view, rng)
        assert item is not None
        assert not any(unit.startswith("spatial:") for unit in item.units)
