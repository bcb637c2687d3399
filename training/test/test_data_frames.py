"""Episodes of datasets as the frames that stages train on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robot_data import INSTRUCTIONS, bridge, episode, lerobot_v3, picture, png

from instructvla_model.image import recipe
from instructvla_training.data.episode_frames import MULTIMODAL, EpisodeFrames, Part
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.llava import LlavaDataset
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.data.survey import survey
from instructvla_training.language import vla_it
from instructvla_training.language.motion import language_motion
from instructvla_training.language.vla_it import EpisodeAnnotation

SMALL = recipe("nano_area", 32)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    lerobot_v3(root / "kitchen", episodes=3)
    bridge(root)
    vla_it.write(root / "words.json", [EpisodeAnnotation("kitchen", "1", ("move up",) * 11, "a bowl")])
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(png(picture(2)))
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a picture"}]
    (root / "talk.json").write_text(
        json.dumps(
            [
                {"conversations": talk, "image": "a.png"},
                {"conversations": [{"from": "human", "value": "what is it?"}, talk[1]]},
            ]
        )
    )
    return root


def _part(path: Path, reading: Reading | None = None) -> Part:
    dataset = open_dataset(path, reading)
    return Part(dataset, survey(dataset))


def _frames(*parts: Part, talk: Path | None = None, views=("primary",), budget: int = 2**30) -> EpisodeFrames:
    return EpisodeFrames(parts, LlavaDataset(talk) if talk else None, views, SMALL, SMALL, budget)


def test_all_datasets_and_then_the_conversations_are_frames_of_one_store(made):
    found = _frames(_part(made / "kitchen"), _part(made / "bridge_dataset"), talk=made / "talk.json")
    frames = found.frames
    assert len(frames) == 10 + 11 + 12 + 4 * 10 + 2
    assert [record.source for record in frames.episodes] == ["kitchen"] * 3 + ["bridge_dataset"] * 4 + [MULTIMODAL] * 2
    assert np.array_equal(frames.action[10:21], episode(1, 11).action_TA)
    assert found.words(4).name == "bridge_dataset 102" and found.words(4).instruction == INSTRUCTIONS[0]
    assert not frames.action[-2:].any()


def test_images_are_the_same_whether_kept_or_decoded_when_drawn(made):
    both = [_frames(_part(made / "kitchen"), talk=made / "talk.json", budget=budget) for budget in (2**30, 0)]
    index = np.array([32, 3, 20, 33, 34])
    kept, drawn = (found.views[0][index] for found in both)
    assert np.array_equal(kept, drawn)
    assert kept[1].any() and kept[3].any() and not kept[4].any()  # the second conversation has no image
    assert np.array_equal(both[0].views[0][2:5], both[1].frames.image[2:5])


def test_a_view_that_a_dataset_lacks_is_not_made_up_as_black_pictures(made):
    with pytest.raises(DataError, match=r"expected \['primary', 'wrist'\].*--camera wrist=KEY"):
        _frames(_part(made / "kitchen"), views=("primary", "wrist"))


def test_numbers_of_one_dataset_stay_on_disk(made):
    _part(made / "kitchen")
    assert isinstance(_part(made / "kitchen").survey.action_XA, np.memmap)
    assert _frames(_part(made / "kitchen")).frames.action.base is not None


def test_motion_is_the_annotated_one_or_that_of_the_states(made):
    found = _frames(_part(made / "kitchen", Reading(annotations=made / "words.json")))
    assert found.motion(10 + 4) == "move up" and found.words(1).annotation.caption == "a bowl"
    phrases = language_motion(episode(0, 10).state_TS)
    assert [found.motion(step) for step in range(10)] == phrases


def test_episodes_without_an_instruction_weigh_nothing(made):
    part = _part(made / "kitchen")
    silent = replace(part.survey, instructions=("", "pick", ""))
    weight = _frames(Part(part.dataset, silent)).frames.weight
    assert weight.tolist() == [0.0] * 10 + [1.0] * 11 + [0.0] * 12
    nobody = replace(part.survey, instructions=("", "", ""))
    with pytest.raises(DataError, match="no episode with an instruction"):
        _frames(Part(part.dataset, nobody))


def test_the_last_episodes_of_a_large_dataset_are_kept_apart(tmp_path):
    part = _part(lerobot_v3(tmp_path / "many", episodes=21, length=3))
    weights = replace(part, weight=2.0).step_weights()
    assert not weights[-(22 + 23) :].any() and (weights[: -(22 + 23)] == 2.0).all()
    assert _part(lerobot_v3(tmp_path / "few", episodes=20, length=3)).step_weights().all()


def test_two_datasets_of_one_name_are_refused(made):
    with pytest.raises(DataError, match="different names"):
        _frames(_part(made / "kitchen"), _part(made / "kitchen"))
