"""A bag replayed through the policy: what it is fed, what is kept, how it is compared with what was done."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instructvla_ros_bag_factory import (
    JOINTS,
    PRIMARY,
    REASONING,
    START_NS,
    WRIST,
    Factory,
    Message,
    arm_at,
    recording,
    write,
)  # fmt: skip
from instructvla_ros_fakes import FakeRuntime

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import find_episodes
from instructvla_ros.bags.events import EventReader, ImageEvent
from instructvla_ros.bags.replay import ReplayOptions, ReplayResult, replay
from instructvla_ros.bags.roles import NOTE, find_roles
from instructvla_ros.bags.score import score_chunks, score_gripper, score_texts
from instructvla_ros.bags.truth import difference
from instructvla_ros.bags.types import BagError
from instructvla_ros.control.state import state_vector
from instructvla_ros.control.types import ActionChunk

INSTRUCTION = "put the carrot on the plate"


class Oracle(FakeRuntime):
    """Knows the motion of the factory's arm and predicts it, shifted by `shift_m` along x."""

    shift_m = 0.0

    def act(self, observation: Any, plan: Any, *, seed: int | None, seq: int) -> ActionChunk:
        super().act(observation, plan, seed=seed, seq=seq)
        begin_s = observation.stamp_s - START_NS * 1e-9
        states = [state_vector(np.array(arm_at(begin_s + 0.2 * k)), 0.037) for k in range(9)]
        rows = np.array([difference(a, b) for a, b in pairwise(states)])
        rows[:, 0] += self.shift_m
        rows[:, 6] = [float(begin_s + 0.2 * k < 2.9) for k in range(8)]
        return ActionChunk(
            rows[:, :3], rows[:, 3:6], rows[:, 6], 0.2, observation.stamp_s, plan.instruction_id, seq, plan.seq
        )


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return recording(6.0)


def run(folder: Path, runtime: FakeRuntime | None = None, **options: Any) -> tuple[ReplayResult, list[str]]:
    """Replay a bag of the factory through a fake policy."""
    with Bag(folder) as bag:
        result = replay(bag, {"fake": runtime or Oracle()}, ReplayOptions(**options))
        return result, [str(problem) for problem in bag.problems]


def test_a_policy_that_predicts_what_was_done_has_no_error(messages: list[Message], tmp_path: Path) -> None:
    result, problems = run(write(tmp_path / "bag", messages))
    scores = score_chunks(result, result.runs[0])
    assert problems == [] and result.truth.source == "states" and len(result.runs[0].predictions) > 40
    assert np.nanmax(scores.by_step["path_error_mm"]) < 0.1
    assert np.nanmax(scores.values["rotation_error_deg"]) < 0.05
    assert np.nanmin(scores.values["direction_cosine"]) > 0.999
    timing = score_gripper(scores)
    assert len(timing.late_s) == 1 and abs(timing.late_s[0]) <= 0.2 and timing.missed == timing.spurious == 0


def test_a_policy_that_is_off_by_five_millimetres_a_step_is_found_to_be(
    messages: list[Message], tmp_path: Path
) -> None:
    oracle = Oracle()
    oracle.shift_m = 0.005
    result, _ = run(write(tmp_path / "bag", messages), oracle)
    scores = score_chunks(result, result.runs[0])
    assert np.nanmedian(scores.values["translation_error_mm"]) == pytest.approx(5.0, abs=0.1)
    assert np.nanmedian(scores.by_step["path_error_mm"][:, 7]) == pytest.approx(40.0, abs=0.5)


def test_the_policy_sees_the_frames_states_and_instruction_of_the_bag(messages: list[Message], tmp_path: Path) -> None:
    runtime = FakeRuntime()
    result, _ = run(write(tmp_path / "bag", messages), runtime, seed=5)
    thoughts = [call for kind, call in runtime.calls if kind == "think"]
    acts = [call for kind, call in runtime.calls if kind == "act"]
    assert thoughts[0]["instruction"] == INSTRUCTION
    assert acts[0]["seed"] == 6 and acts[1]["seed"] == 7, "a seed for every chunk, counted from the given one"
    first = result.runs[0].predictions[0]
    arm = np.array(arm_at(first.stamp_s - START_NS * 1e-9))
    assert np.allclose(acts[0]["state"], state_vector(arm, 0.037), atol=1e-6)
    assert all(p.latent_age_s <= 0.5 for p in result.runs[0].predictions)
    assert score_texts(result, result.runs[0])[0].recall == pytest.approx(1 / 3), (
        "of put, carrot and plate, one is named"
    )


def test_nothing_is_predicted_before_the_instruction_and_after_a_stop(tmp_path: Path) -> None:
    factory = Factory()
    stop = factory.make(
        "instructvla_msgs/msg/SafetyState", header=factory.header(4.0), mode=5, reason="stopped",
        fault_id="F22", instruction_id=1, chunks_accepted=0, chunks_rejected=0, steps_executed=0,
        steps_clamped=0, holds=0, commands_sent=0,
    )  # fmt: skip
    messages = [m for m in recording(6.0) if m.topic != REASONING]
    messages.append(factory.reasoning(2.0, 3, INSTRUCTION))
    messages.append(factory.pack("/instructvla/safety_state", 4.0, stop))
    result, _ = run(write(tmp_path / "bag", sorted(messages, key=lambda m: m.stamp_ns)))
    stamps = np.array([p.stamp_s for p in result.runs[0].predictions]) - START_NS * 1e-9
    assert 1.85 <= stamps.min() < 2.0, "the image at hand when the instruction came"
    assert 3.8 < stamps.max() < 4.0
    assert result.episodes[0].instruction_id == 3


def test_the_same_bag_and_seed_give_the_same_chunks_and_another_seed_others(
    messages: list[Message], tmp_path: Path
) -> None:
    class Noisy(FakeRuntime):
        def act(self, observation: Any, plan: Any, *, seed: int | None, seq: int) -> ActionChunk:
            noise = np.random.default_rng(seed).normal(size=(8, 3)) * 0.01
            chunk = super().act(observation, plan, seed=seed, seq=seq)
            return replace(chunk, delta_xyz_m=noise)

    folder = write(tmp_path / "bag", messages)
    runs = [run(folder, Noisy(), seed=seed)[0].runs[0].predictions for seed in (3, 3, 4)]
    stacked = [np.array([p.actions for p in predictions]) for predictions in runs]
    assert np.array_equal(stacked[0], stacked[1]) and not np.array_equal(stacked[0], stacked[2])
    assert [p.stamp_s for p in runs[0]] == [p.stamp_s for p in runs[1]]


def test_compressed_images_are_replayed_like_raw_ones(tmp_path: Path) -> None:
    raw, _ = run(write(tmp_path / "raw", recording(2.0)))
    jpeg, problems = run(write(tmp_path / "jpeg", recording(2.0, compressed=True)))
    assert problems == [] and jpeg.roles.primary == f"{PRIMARY}/compressed"
    assert [p.stamp_s for p in jpeg.runs[0].predictions] == [p.stamp_s for p in raw.runs[0].predictions]


def test_recorded_commands_are_a_source_of_actions(messages: list[Message], tmp_path: Path) -> None:
    factory = Factory()
    goals = [
        factory.pack(
            "/wx250s/commands/joint_group", number / 50,
            factory.make(
                "interbotix_xs_msgs/msg/JointGroupCommand", name="arm", cmd=np.array(arm_at(number / 50), np.float32)
            ),
        )
        for number in range(300)
    ]  # fmt: skip
    both = sorted([*messages, *goals], key=lambda m: m.stamp_ns)
    folder = write(tmp_path / "bag", both)
    result, _ = run(folder)
    assert result.truth.source == "commands"
    assert np.nanmax(score_chunks(result, result.runs[0]).by_step["path_error_mm"]) < 0.2
    assert run(folder, actions="states")[0].truth.source == "states"
    with pytest.raises(ValueError, match="the bag has no recorded steps; it has commands, states"):
        run(folder, actions="steps")


def executed(steps_s: float) -> list[Message]:
    """Steps of this duration and of one centimetre each, over six seconds."""
    factory = Factory()
    vector = lambda x: factory.make("geometry_msgs/msg/Vector3", x=x, y=0.0, z=0.0)  # noqa: E731
    return [
        factory.pack(
            "/instructvla/ee_delta", number * steps_s,
            factory.make(
                "instructvla_msgs/msg/EndEffectorDelta", header=factory.header(number * steps_s), instruction_id=1,
                chunk_seq=1, step=0, dt_s=steps_s, delta_xyz_m=vector(0.01), delta_rpy_rad=vector(0.0),
                gripper=1.0, clamped=False,
            ),
        )
        for number in range(round(6.0 / steps_s))
    ]  # fmt: skip


def test_executed_steps_are_a_source_of_actions(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", sorted([*messages, *executed(0.2)], key=lambda m: m.stamp_ns))
    result, _ = run(folder, FakeRuntime())
    assert result.truth.source == "steps"
    scores = score_chunks(result, result.runs[0])
    assert np.nanmax(scores.values["translation_error_mm"]) < 1e-3, "the fake steps by one centimetre too"


@pytest.mark.parametrize("steps_s", [0.05, 1 / 3])
def test_executed_steps_of_another_duration_than_the_policys_are_told_and_not_compared(
    steps_s: float, messages: list[Message], tmp_path: Path
) -> None:
    folder = write(tmp_path / "bag", sorted([*messages, *executed(steps_s)], key=lambda m: m.stamp_ns))
    result, (told,) = run(folder)
    assert f"steps of {steps_s:.3g} s are not compared with those of fake: 0.2 s" in told
    assert result.truth.source == "states"
    assert np.nanmax(score_chunks(result, result.runs[0]).by_step["path_error_mm"]) < 0.1
    result, problems = run(folder, actions="steps")
    assert np.isnan(score_chunks(result, result.runs[0]).recorded).all() and len(problems) == 1
    assert run(folder, actions="states")[1] == [], "nobody asked for steps"


def test_an_instruction_is_asked_for_where_the_bag_has_none(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", [m for m in messages if m.topic != REASONING])
    with pytest.raises(BagError, match="say it with --instruction"):
        run(folder)
    result, _ = run(folder, instruction="pick up the can")
    assert [e.instruction for e in result.episodes] == ["pick up the can"] and result.runs[0].predictions


def test_marks_cut_episodes_and_carry_the_outcome(messages: list[Message], tmp_path: Path) -> None:
    factory = Factory()

    def mark(time_s: float, **values: Any) -> Message:
        return factory.pack(
            "/instructvla/episode", time_s, factory.make("std_msgs/msg/String", data=json.dumps(values))
        )

    marks = [
        mark(1.0, mark="begin", instruction="first"), mark(2.5, mark="end", success=True),
        mark(3.0, mark="begin", instruction="second"), mark(5.0, mark="end", success=False),
        factory.pack("/instructvla/episode", 5.5, factory.make("std_msgs/msg/String", data="{")),
        factory.pack("/instructvla/episode", 5.6, factory.make("std_msgs/msg/String", data="[1]")),
    ]  # fmt: skip
    folder = write(tmp_path / "bag", sorted([*messages, *marks], key=lambda m: m.stamp_ns))
    with Bag(folder) as bag:
        decoder = Decoder(bag)
        found = find_episodes(bag, decoder, find_roles(bag))
        assert [(e.instruction, e.success, round(e.duration_s, 3)) for e in found] == [
            ("first", True, 1.5),
            ("second", False, 2.0),
        ]
        assert "marks that are no JSON object were left aside (2 times)" in str(bag.problems[0])


def mark(time_s: float, **values: Any) -> Message:
    """A message of the recorder's marks."""
    factory = Factory()
    text = factory.make("std_msgs/msg/String", data=json.dumps(values))
    return factory.pack("/instructvla/episode", time_s, text)


def cut(
    folder: Path, messages: list[Message], instruction: str = "", otherwise: str = ""
) -> tuple[list[tuple[str, float, float]], str]:  # fmt: skip
    """(instruction, begin, end) of the episodes of a bag, and what was noted."""
    with Bag(write(folder, sorted(messages, key=lambda m: m.stamp_ns))) as bag:
        found = find_episodes(bag, Decoder(bag), find_roles(bag), instruction, otherwise)
        told = " | ".join(str(problem) for problem in bag.problems)
    times = [((e.start_ns - START_NS) * 1e-9, (e.stop_ns - START_NS) * 1e-9) for e in found]
    return [(e.instruction, round(a, 2), round(b, 2)) for e, (a, b) in zip(found, times, strict=True)], told


def test_marks_that_yield_nothing_are_told_and_do_not_hide_the_instructions(
    messages: list[Message], tmp_path: Path
) -> None:
    whole = [(INSTRUCTION, 0.05, 5.98)]
    for name, marks, expected in (
        ("end", [mark(2.0, mark="end")], "which none began"),
        ("empty", [mark(1.0, mark="begin", instruction=""), mark(2.0, mark="end")], "without saying what is shown"),
        ("odd", [mark(1.0, mark="pause")], "neither begin nor end"),
    ):
        found, told = cut(tmp_path / name, [*messages, *marks])
        assert found == whole and expected in told, name
    found, told = cut(tmp_path / "short", [*messages, mark(1.0, mark="begin", instruction="x"), mark(1.2, mark="end")])
    assert found == [] and "less than 0.5 s were left out" in told


def test_a_given_instruction_always_gives_an_episode(messages: list[Message], tmp_path: Path) -> None:
    short = [mark(1.0, mark="begin", instruction="x"), mark(1.2, mark="end")]
    assert cut(tmp_path / "short", [*messages, *short], "given")[0] == [("given", 0.0, 5.98)]
    empty = [mark(1.0, mark="begin", instruction=""), mark(2.0, mark="end")]
    assert cut(tmp_path / "empty", [*messages, *empty], "given")[0] == [("given", 1.0, 2.0)]
    last = [m for m in messages if m.topic != REASONING] + [Factory().reasoning(5.8, 1, INSTRUCTION)]
    assert cut(tmp_path / "last", last, "given")[0] == [("given", 0.0, 5.98)]


def test_a_text_for_want_of_another_replaces_nothing_that_the_bag_says(messages: list[Message], tmp_path: Path) -> None:
    silent = [m for m in messages if m.topic != REASONING]
    said = [mark(1.0, mark="begin", instruction="x"), mark(2.0, mark="end")]
    unsaid = [mark(3.0, mark="begin"), mark(4.0, mark="end")]
    for name, found, expected in (
        ("followed", messages, [(INSTRUCTION, 0.05, 5.98)]),
        ("followed and marked", [*messages, *unsaid], [(INSTRUCTION, 0.05, 5.98)]),
        ("marked", [*silent, *said, *unsaid], [("x", 1.0, 2.0), ("else", 3.0, 4.0)]),
        ("marked without words", [*silent, *unsaid], [("else", 3.0, 4.0)]),
        ("marked too short", [*silent, mark(3.0, mark="begin"), mark(3.1, mark="end")], [("else", 0.0, 5.98)]),
        ("driven", silent, [("else", 0.0, 5.98)]),
    ):
        assert cut(tmp_path / name, found, otherwise="else")[0] == expected, name
    assert cut(tmp_path / "given", messages, "given", "else")[0] == [("given", 0.05, 5.98)]


def test_instructions_whose_numbers_begin_again_are_cut_and_replayed(messages: list[Message], tmp_path: Path) -> None:
    factory = Factory()
    again = [
        factory.reasoning(2.0, 2, "second", seq=2), factory.reasoning(2.05, 1, INSTRUCTION, "late words", final=True),
        factory.reasoning(3.0, 1, "third", seq=1), factory.reasoning(3.5, 1, "third", "words", final=True, seq=2),
        factory.reasoning(4.5, 1, "third", seq=1),
    ]  # fmt: skip
    found, told = cut(tmp_path / "bag", [*messages, *again])
    assert found == [
        (INSTRUCTION, 0.05, 2.0), ("second", 2.0, 3.0), ("third", 3.0, 4.5), ("third", 4.5, 5.98)
    ] and "begin again" in told  # fmt: skip
    result, _ = run(tmp_path / "bag")
    for episode in result.episodes:
        assert sum(p.episode == episode.index for p in result.runs[0].predictions) > 5, episode


def test_a_text_that_changes_under_the_same_number_is_another_instruction(
    messages: list[Message], tmp_path: Path
) -> None:
    found, _ = cut(tmp_path / "bag", [*messages, Factory().reasoning(3.0, 1, "pick up the can", seq=2)])
    assert found == [(INSTRUCTION, 0.05, 3.0), ("pick up the can", 3.0, 5.98)]


def test_an_instruction_ends_where_the_graph_is_told_to_rest(messages: list[Message], tmp_path: Path) -> None:
    found, _ = cut(tmp_path / "bag", [*messages, Factory().reasoning(3.0, 2, "", seq=2)])
    assert found == [(INSTRUCTION, 0.05, 3.0)]


def test_a_wrist_camera_never_becomes_the_primary_one(messages: list[Message], tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", [m for m in messages if m.topic != PRIMARY])
    result, problems = run(folder)
    assert (result.roles.primary, result.roles.wrist) == ("", WRIST) and not result.runs[0].predictions
    told = " ".join(problems)
    assert "none of the cameras is taken as primary: /wrist/image_raw" in told and "has no primary camera" in told
    assert run(folder, topics={"primary": WRIST})[0].roles.primary == WRIST


def test_joint_goals_of_another_arm_are_told_and_left_out(messages: list[Message], tmp_path: Path) -> None:
    factory = Factory()

    def goal(time_s: float, joints: list[float]) -> Message:
        values = np.array(joints, np.float32)
        sent = factory.make("interbotix_xs_msgs/msg/JointGroupCommand", name="arm", cmd=values)
        return factory.pack("/wx250s/commands/joint_group", time_s, sent)

    goals = [goal(n / 50, arm_at(n / 50)) for n in range(300)]
    bad = [goal(1.001, [0.1, 0.2]), goal(2.001, [np.nan] * 6)]
    folder = write(tmp_path / "bag", sorted([*messages, *goals, *bad], key=lambda m: m.stamp_ns))
    result, problems = run(folder)
    assert result.truth.source == "commands" and result.runs[0].predictions
    assert "joint goals of 2 joints were left out; the wx250s has 6" in " ".join(problems)
    assert "joint goals that are not finite were left out" in " ".join(problems)


def test_roles_follow_the_recorders_note_then_names_and_say_what_they_chose(
    messages: list[Message], tmp_path: Path
) -> None:
    factory = Factory()
    more = [factory.image("/head/image_raw", 0.1), factory.image("/head/depth", 0.1)]
    both = sorted([*messages, *more], key=lambda m: m.stamp_ns)
    with Bag(write(tmp_path / "plain", both)) as bag:
        roles = find_roles(bag)
        assert (roles.primary, roles.wrist, roles.joints) == (PRIMARY, WRIST, JOINTS)
        assert find_roles(bag, {"primary": "/head/image_raw"}).primary == "/head/image_raw"
        for wrong, expected in (
            ({"primry": "/x"}, "no role 'primry'"),
            ({"primary": "/x"}, "no topic /x"),
            ({"label": JOINTS}, "JointState; label is of std_msgs/msg/String"),
        ):
            with pytest.raises(BagError, match=expected):
                find_roles(bag, wrong)
    noted = json.dumps({"roles": {"primary": "/head/image_raw", "wrist": "/gone", "joints": REASONING}})
    with Bag(write(tmp_path / "noted", both, custom=noted)) as bag:
        assert NOTE == "instructvla" and find_roles(bag).primary == "/head/image_raw"
        assert find_roles(bag).joints == JOINTS, "a note that does not fit is left aside"
    with (
        Bag(write(tmp_path / "blind", [m for m in messages if m.topic == JOINTS])) as bag,
        pytest.raises(BagError, match="holds no camera images"),
    ):
        find_roles(bag)


def test_bad_encodings_changing_cameras_and_jumping_clocks_are_told_and_replayed_as_far_as_they_can_be(
    tmp_path: Path,
) -> None:
    factory = Factory()
    good = [m for m in recording(6.0, wrist=False) if m.topic != PRIMARY]
    images: list[Message] = []
    for number in range(60):
        time_s = number / 10
        if time_s < 2.0:
            images.append(factory.image(PRIMARY, time_s))
        elif time_s < 3.0:
            images.append(factory.image(PRIMARY, time_s, encoding="yuv422_yuy2"))
        elif time_s < 4.0:
            images.append(factory.image(PRIMARY, time_s, pixels=factory.picture(time_s, (120, 160))))
        else:
            late = factory.image(PRIMARY, time_s + 100.0)
            images.append(replace(late, stamp_ns=START_NS + round(time_s * 1e9)))
    folder = write(tmp_path / "bag", sorted([*good, *images], key=lambda m: m.stamp_ns))
    result, problems = run(folder, FakeRuntime())
    text = " | ".join(problems)
    assert "image encoding 'yuv422_yuy2' is not supported" in text and "(10 times)" in text
    assert "changes from 128x96 to 160x120" in text and "jumps by +100.0 s" in text and "(F16)" in text
    stamps = np.array([p.stamp_s for p in result.runs[0].predictions]) - START_NS * 1e-9
    assert stamps.min() < 1.0 and 3.5 < stamps.max() < 4.0, "images of another clock fit no joint state"


def test_a_jpeg_whose_dimensions_are_damaged_is_told_and_the_others_are_replayed(tmp_path: Path) -> None:
    def spoilt(message: Message) -> Message:
        begin = message.data.index(b"\xff\xc0") + 5  # of height and width in the start of frame
        return replace(message, data=message.data[:begin] + b"\xc0\x00\xc0\x00" + message.data[begin + 4 :])

    messages = recording(2.0, compressed=True, wrist=False)
    fifth = [m for m in messages if m.topic == f"{PRIMARY}/compressed"][5]
    result, problems = run(write(tmp_path / "bag", [spoilt(m) if m is fifth else m for m in messages]))
    assert result.frames == 19 and len(problems) == 1 and "cannot be decoded; expected JPEG or PNG" in problems[0]


def test_an_instruction_that_is_not_utf8_is_told_and_can_be_said_anew(tmp_path: Path) -> None:
    spoilt = [
        replace(m, data=m.data.replace(b"carrot", b"c\xe9rr\xf8t")) if m.topic == REASONING else m
        for m in recording(2.0, wrist=False)
    ]
    folder = write(tmp_path / "bag", spoilt)
    with pytest.raises(BagError, match="say it with --instruction"):
        run(folder)
    result, problems = run(folder, FakeRuntime(), instruction="put the carrot on the plate")
    assert result.runs[0].predictions and any("not UTF-8" in text for text in problems)


def test_without_joint_states_a_policy_that_needs_them_predicts_nothing_and_the_bag_says_why(tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", [m for m in recording(2.0) if m.topic != JOINTS])
    result, problems = run(folder, FakeRuntime())
    assert result.runs[0].predictions == () and "has no joint states" in " ".join(problems)
    assert score_chunks(result, result.runs[0]).values["seam_jump_mm"].shape == (0,)


def test_a_model_that_fails_is_counted_and_does_not_end_the_replay(messages: list[Message], tmp_path: Path) -> None:
    class Failing(FakeRuntime):
        def act(self, observation: Any, plan: Any, *, seed: int | None, seq: int) -> ActionChunk:
            if seq % 2:
                raise ValueError("the policy returned NaN")
            return super().act(observation, plan, seed=seed, seq=seq)

    result, _ = run(write(tmp_path / "bag", messages), Failing())
    assert result.runs[0].failures["the policy returned NaN"] > 5 and result.runs[0].predictions


def test_frames_keep_their_order_and_stamps_however_many_threads_decode(
    messages: list[Message], tmp_path: Path
) -> None:
    folder = write(tmp_path / "bag", messages)
    read = []
    for workers in (1, 4):
        with Bag(folder) as bag:
            decoder = Decoder(bag)
            reader = EventReader(bag, decoder, find_roles(bag), workers=workers)
            read.append([e for e in reader.read() if isinstance(e, ImageEvent)])
    assert [(e.view, e.frame.stamp_s) for e in read[0]] == [(e.view, e.frame.stamp_s) for e in read[1]]
    assert all(np.array_equal(a.frame.image, b.frame.image) for a, b in zip(*read, strict=True))
