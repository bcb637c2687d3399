"""Multimodal conversations, annotations joined to episodes, and opening by path."""

from __future__ import annotations

import json

import pytest
from robot_data import bag, bridge, episode, lerobot_v3, picture, png
from tiny_checkpoint import tiny_checkpoint

from instructvla_model import checkpoint
from instructvla_model.prompts import PromptBuilder
from instructvla_training.data.convert import convert
from instructvla_training.data.formats.annotated import AnnotatedDataset
from instructvla_training.data.formats.bag import BagDataset
from instructvla_training.data.formats.episode import DataError
from instructvla_training.data.formats.lerobot import LeRobotDataset
from instructvla_training.data.formats.llava import LlavaDataset, is_llava
from instructvla_training.data.formats.opening import Reading, open_dataset
from instructvla_training.data.formats.rlds import RldsDataset
from instructvla_training.language import vla_it
from instructvla_training.language.vla_it import EpisodeAnnotation, QuestionAnswer
from instructvla_training.stages.episode_text import EpisodePrompter


def conversations(count: int) -> list[dict]:
    entries = []
    for number in range(count):
        turns = [
            {"from": "human", "value": "<image>\n" * (number % 2) + f"What is “number”, {{{number}}}?"},
            {"from": "gpt", "value": f'It is {number}, "ß".'},
        ]
        entries.append({"id": str(number), "conversations": turns} | ({"image": f"{number}.png"} if number % 2 else {}))
    return entries


@pytest.mark.parametrize("form", ["list", "indented", "lines"])
def test_conversations_are_read_by_number(tmp_path, form):
    entries = conversations(5)
    text = {"list": json.dumps(entries, ensure_ascii=False), "indented": json.dumps(entries, indent=2)}
    lines = "\n".join(json.dumps(entry) for entry in entries)
    path = tmp_path / "talk.json"
    path.write_text(text.get(form, lines), encoding="utf-8")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "3.png").write_bytes(png(picture(3)))
    dataset = LlavaDataset(path)
    assert is_llava(path) and len(dataset) == 5
    assert dataset[4].turns == (("What is “number”, {4}?", 'It is 4, "ß".'),) and dataset[4].pixels() is None
    assert dataset[3].pixels().shape == (48, 64, 3)
    with pytest.raises(DataError, match=r"1\.png"):
        dataset[1].pixels()


def test_a_question_keeps_its_lines_in_training_as_when_it_is_asked(tmp_path):
    path = tmp_path / "talk.json"
    turns = [{"from": "human", "value": "<image>\nWhich?\nA. a cup\nB. a bowl"}, {"from": "gpt", "value": "A"}]
    path.write_text(json.dumps([{"conversations": turns, "image": "a.png"}]))
    policy, tokenizer, _ = checkpoint.load_policy(tiny_checkpoint(tmp_path / "expert", strip_instructions=False))
    builder = PromptBuilder(tokenizer, policy.config)
    opening = builder.opening("answer", "Which?\nA. a cup\nB. a bowl")
    trained = EpisodePrompter(builder).conversation(LlavaDataset(path)[0]).ids
    assert list(trained[: len(opening)]) == opening
    assert "\nWhich?\nA. a cup\nB. a bowl<|im_end|>" in tokenizer.decode(trained)


def test_entries_that_cross_blocks_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla_training.data.formats.llava._BLOCK", 37)
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(conversations(9), ensure_ascii=False), encoding="utf-8")
    assert [c.turns[0][1] for c in LlavaDataset(path)] == [f'It is {n}, "ß".' for n in range(9)]


def test_a_list_that_was_cut_short_and_odd_turns_are_named(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(conversations(3))[:-30])
    with pytest.raises(DataError, match="after 2 entries"):
        LlavaDataset(path)
    path.write_text(json.dumps([{"conversations": [{"from": "human", "value": "?"}]}]))
    with pytest.raises(DataError, match=r"entry 0: .*even number"):
        LlavaDataset(path)[0]


def _annotation(number: int, steps: int) -> EpisodeAnnotation:
    return EpisodeAnnotation(
        "made", str(number), ("move up",) * steps, "A lemon.", qa=(QuestionAnswer("What?", "A lemon."),)
    )


def test_annotations_meet_their_episodes_by_key(tmp_path):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=2))
    vla_it.write(tmp_path / "annotations.json", [_annotation(1, 11)])
    joined = open_dataset(tmp_path / "made", Reading(annotations=tmp_path / "annotations.json"))
    assert joined[0].annotation is None and joined[1].annotation == _annotation(1, 11)
    assert joined.reading == dataset.reading and joined.files() == dataset.files()


def test_too_few_move_primitives_are_left_out_and_said(tmp_path, caplog):
    dataset = LeRobotDataset(lerobot_v3(tmp_path / "made", episodes=1))
    joined = AnnotatedDataset(dataset, [_annotation(0, 4)])
    assert joined[0].annotation.move_primitive == () and joined[0].annotation.caption == "A lemon."
    assert "4 move primitives for 10 steps" in caplog.text


def test_annotations_are_refused_where_two_episodes_share_the_key_of_one(tmp_path):
    class Twice(LeRobotDataset):
        def __getitem__(self, index):
            return super().__getitem__(0)

    joined = AnnotatedDataset(Twice(lerobot_v3(tmp_path / "made", episodes=2)), [_annotation(0, 10)])
    keys = [("made", "0"), ("made", "0"), ("made", "1"), ("made", "1")]
    with pytest.raises(DataError, match=r"several episodes with file path 'made' and id '0'.*data convert"):
        joined.joined(keys)
    assert joined.joined(keys[1:3]) == 1 and joined.joined(keys[1:3], keys[1:3]) == 2
    with pytest.raises(DataError, match="several episodes"):
        convert(joined, tmp_path / "new", codec="h264")
    assert not (tmp_path / "new").exists()


def test_a_path_is_opened_as_what_lies_there(tmp_path):
    lerobot_v3(tmp_path / "a", episodes=1)
    bag(tmp_path / "b" / "run")
    assert isinstance(open_dataset(tmp_path / "a"), LeRobotDataset)
    assert isinstance(open_dataset(tmp_path / "b"), BagDataset)
    assert isinstance(open_dataset(bridge(tmp_path)), RldsDataset)
    with pytest.raises(DataError, match="expected LeRobot"):
        open_dataset(_empty(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_an_episode_of_wrong_shapes_is_refused():
    made = episode(0)
    with pytest.raises(DataError, match=r"expected \(T, 8\)"):
        type(made)("f", "0", "", made.state_TS[:, :7], made.action_TA, {})
    with pytest.raises(DataError, match="10 primary images for 9 steps"):
        type(made)("f", "0", "", made.state_TS[1:], made.action_TA[1:], made.images)


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_may_end_as_on_any_system_and_begin_with_a_mark(tmp_path, ending, mark):
    path = tmp_path / "talk.jsonl"
    path.write_bytes(mark + ending.join(json.dumps(entry, ensure_ascii=False).encode() for entry in conversations(4)))
    assert [c.turns[0][1] for c in LlavaDataset(path)] == [f'It is {n}, "ß".' for n in range(4)]


def test_text_in_another_encoding_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "talk.json"
    text = json.dumps(conversations(1), ensure_ascii=False).replace("“", "").replace("”", "")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"expected UTF-8; save"):
        LlavaDataset(path)
    with pytest.raises(DataError, match="correct the path"):
        LlavaDataset(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([("human", "<image>"), ("gpt", "a cat")], "a question without words"),
        ([("human", "what?"), ("gpt", " ")], "an answer without words"),
    ],
)
def test_a_turn_without_words_is_named(tmp_path, turns, told):
    entry = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    (tmp_path / "talk.json").write_text(json.dumps([entry, {"conversations": [1, 2]}, {"conversations": [{}, {}]}]))
    dataset = LlavaDataset(tmp_path / "talk.json")
    for number, words in ((0, told), (1, "entry 1: found"), (2, "entry 2: found")):
        with pytest.raises(DataError, match=words):
            dataset[number]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"images": ["a.png"]}, r"found <image> in a question and the keys .*images.*, expected one path"),
        ({"image": ["a.png", "b.png"]}, r"found image \"\['a.png', 'b.png'\]\", expected one path"),
        ({"image": ""}, "found <image> in a question"),
    ],
)
def test_a_question_about_a_picture_is_never_asked_without_it(tmp_path, entry, told):
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a cup"}]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"conversations": talk} | entry]))
    with pytest.raises(DataError, match=told):
        LlavaDataset(path)[0]
