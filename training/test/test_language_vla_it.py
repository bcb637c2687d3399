"""The VLA-IT annotation file survives a round trip and refuses what is not of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructvla_training.language import LanguageGenerator, parse_answer
from instructvla_training.language.sample_scenes import random_scene
from instructvla_training.language.vla_it import (
    AnnotationCounts,
    EpisodeAnnotation,
    QuestionAnswer,
    VlaItError,
    annotate_episode,
    frame_key,
    from_tree,
    read,
    to_tree,
    write,
)


def _annotations(count: int = 5) -> list[EpisodeAnnotation]:
    rng, generator = np.random.default_rng(0), LanguageGenerator()
    return [
        annotate_episode("sim/train", str(index), ["move down", "stop"], random_scene(rng), generator, rng)
        for index in range(count)
    ]


def _tree(**alternative: Any) -> dict[str, Any]:
    return {"file": {"0": {"features": {"move_primitive": ["stop"]}, "alt_instruction": alternative}}}


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = [*_annotations(), EpisodeAnnotation("sim/train", "bare", ("stop",))]
    write(tmp_path / "annotations.json", written)
    assert read(tmp_path / "annotations.json") == written


def test_the_file_has_the_documented_keys() -> None:
    entry = to_tree(_annotations(1))["sim/train"]["0"]
    assert set(entry) == {"features", "alt_instruction"}
    assert entry["features"] == {"move_primitive": ["move down", "stop"]}
    assert set(entry["alt_instruction"]) == {"Caption", "CR", "CC", "QA"}
    assert set(entry["alt_instruction"]["CR"][0]) == {"question", "answer"}


def test_an_episode_gets_the_asked_number_of_different_items_that_name_its_task() -> None:
    rng = np.random.default_rng(1)
    view = random_scene(rng)
    counts = AnnotationCounts(cr=3, cc=2, qa=5)
    item = annotate_episode("f", "0", ["stop"], view, LanguageGenerator(), rng, counts)
    assert (len(item.cr), len(item.cc), len(item.qa)) == (3, 2, 5)
    assert all(parse_answer(pair.answer) == view.task for pair in (*item.cr, *item.cc))
    assert len({pair.question for pair in item.cr}) == 3


def test_an_episode_without_instructions_has_no_alternative_entry() -> None:
    bare = EpisodeAnnotation("f", "0", ("stop",))
    assert "alt_instruction" not in to_tree([bare])["f"]["0"]
    assert from_tree(to_tree([bare])) == [bare]


def test_frames_are_looked_up_by_file_episode_and_frame() -> None:
    assert frame_key("a/b.tfrecord", "12", 3) == "a/b.tfrecord_12_3"


def test_missing_lists_count_as_empty() -> None:
    item = from_tree(_tree(Caption="A can.", CR=[{"question": "q", "answer": "a"}]))[0]
    assert item.caption == "A can." and item.cr == (QuestionAnswer("q", "a"),) and item.cc == () == item.qa


def test_the_same_episode_twice_is_refused() -> None:
    with pytest.raises(VlaItError, match="comes twice"):
        to_tree([EpisodeAnnotation("f", "0", ()), EpisodeAnnotation("f", "0", ())])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "the file is a list: expected an object"),
        ({"f": 3}, "'f' is a int"),
        ({"f": {"0": {}}}, "'f'/'0'/features is missing"),
        ({"f": {"0": {"features": {"move_primitive": "stop"}}}}, "expected a list of texts"),
        ({"f": {"0": {"features": {"move_primitive": [1]}}}}, "expected a list of texts"),
        (_tree(Caption=3), "Caption is a int: expected text"),
        (_tree(QA={}), "alt_instruction/QA is a dict: expected a list"),
        (_tree(CC=["I am thirsty."]), r"CC\[0\] is a str"),
        (_tree(CR=[{"question": "q"}]), r"CR\[0\] has keys \['question'\]"),
        (_tree(CR=[{"question": "", "answer": "a"}]), r"expected 'question' and 'answer'"),
    ],
)
def test_a_tree_of_the_wrong_form_is_refused_with_its_place(tree: object, message: str) -> None:
    with pytest.raises(VlaItError, match=message):
        from_tree(tree)


def test_a_file_that_is_no_json_or_of_wrong_form_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(VlaItError, match=r"broken\.json is not UTF-8 JSON"):
        read(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(VlaItError, match=r"broken\.json: the file is a list"):
        read(path)
