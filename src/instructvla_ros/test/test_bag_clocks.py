"""Stamps and the recorder's clock: constant offsets are allowed for, jumps part what was done, neither is silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from instructvla_ros_bag_factory import (
    JOINTS,
    PRIMARY,
    START_NS,
    Factory,
    Message,
    arm_at,
    finger_at,
    recording,
    write,
)  # fmt: skip
from instructvla_ros_fakes import FakeRuntime

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.evaluate import evaluate
from instructvla_ros.bags.events import EventReader
from instructvla_ros.bags.replay import ReplayOptions
from instructvla_ros.bags.report import figures, pdf
from instructvla_ros.bags.roles import find_roles
from instructvla_ros.bags.track import Spans
from instructvla_ros.bags.truth import Truth

START_S = START_NS * 1e-9
JUMP_AT_S = 3.0


def shifted(shift_s: float, since_s: float = 0.0, *, joints: bool = True, images: bool = True) -> list[Message]:
    """The factory's recording whose stamps are off by so much from a time on; it is received as ever."""
    factory, found = Factory(), []
    for message in recording(6.0, wrist=False):
        time_s = (message.stamp_ns - START_NS) * 1e-9
        data = message.data
        if time_s >= since_s and message.topic == JOINTS and joints:
            data = factory.joints(time_s + shift_s, arm_at(time_s), finger_at(time_s)).data
        elif time_s >= since_s and message.topic == PRIMARY and images:
            data = factory.image(PRIMARY, time_s + shift_s, pixels=factory.picture(time_s)).data
        found.append(Message(message.topic, message.type_name, message.stamp_ns, data))
    return found


def truth_of(folder: Path) -> tuple[Truth, list[str]]:
    with Bag(folder) as bag:
        reader, truth = EventReader(bag, Decoder(bag), find_roles(bag)), Truth()
        for event in reader.read():
            truth.add(event)
        truth.finish(reader.arm)
        return truth, [str(problem) for problem in bag.problems]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return truth_of(write(tmp_path_factory.mktemp("steady") / "bag", shifted(0.0)))[0]


@pytest.mark.parametrize("shift_s", [10.0, -10.0, 0.3])
def test_a_constant_offset_of_the_stamps_loses_no_score_and_moves_no_time(
    shift_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "save", lambda figure, kind: b"<svg/>")
    monkeypatch.setattr(pdf, "render", lambda *_: b"%PDF")
    reports = []
    for name, shift in (("as_ever", 0.0), ("off", shift_s)):
        bag = write(tmp_path / name, shifted(shift))
        reports.append(evaluate([bag], {"one": FakeRuntime()}, ReplayOptions(), tmp_path / f"{name}_report").report)
    one, other = reports
    assert one["checkpoints"][0]["chunks"] == other["checkpoints"][0]["chunks"] > 40
    for metric, cell in one["summary"]["one"].items():
        assert other["summary"]["one"][metric]["n"] == cell["n"], metric
        if cell["n"]:
            assert other["summary"]["one"][metric]["mean"] == pytest.approx(cell["mean"], rel=1e-3, abs=1e-3), metric
    assert [w["time_s"] for w in one["worst"]] == pytest.approx([w["time_s"] for w in other["worst"]], abs=1e-3)
    texts = [made["episodes"][0]["checkpoints"]["one"]["texts"][0]["time_s"] for made in reports]
    assert texts[0] == pytest.approx(texts[1], abs=1e-3)
    told = " ".join(problem["what"] for problem in other["bags"][0]["problems"])
    assert (f"begin 10.0 s {'ahead of' if shift_s > 0 else 'behind'} the recorder's clock" in told) == (
        abs(shift_s) > 0.5
    )


@pytest.mark.parametrize("shift_s", [-2.0, -10.0, 5.0])
def test_a_clock_that_jumps_spoils_nothing_before_and_after_the_jump(
    shift_s: float, steady: Truth, tmp_path: Path
) -> None:
    truth, problems = truth_of(write(tmp_path / "bag", shifted(shift_s, JUMP_AT_S)))
    assert any(f"jumps by {shift_s:+.1f} s" in text for text in problems)
    for time_s in [*np.arange(0.2, 2.7, 0.1), *np.arange(3.1, 5.6, 0.1)]:
        stamp_s = time_s + shift_s * (time_s >= JUMP_AT_S)
        found = truth.actions(START_S + stamp_s, START_S + time_s, 0.2, 1)
        expected = steady.actions(START_S + time_s, START_S + time_s, 0.2, 1)
        assert np.isfinite(expected).all() and found == pytest.approx(expected, abs=1e-5), f"at {time_s:.1f} s"
    across = truth.actions(START_S + 2.9, START_S + 2.9, 0.2, 4)
    assert np.isnan(across[1:]).all(), "a chunk that reaches over the jump is compared up to it"


def test_images_whose_clock_jumps_alone_are_compared_with_nothing(tmp_path: Path) -> None:
    truth, _ = truth_of(write(tmp_path / "bag", shifted(-2.0, JUMP_AT_S, joints=False)))
    assert np.isfinite(truth.actions(START_S + 1.0, START_S + 1.0, 0.2, 1)).all()
    assert np.isnan(truth.actions(START_S + 2.0, START_S + 4.0, 0.2, 1)).all(), "what was done two seconds before"


def test_images_that_come_a_second_late_are_compared_with_their_own_moment(tmp_path: Path, steady: Truth) -> None:
    late = [
        Message(m.topic, m.type_name, m.stamp_ns + 10**9 * (m.topic == PRIMARY), m.data)
        for m in shifted(0.0)
    ]  # fmt: skip
    truth, _ = truth_of(write(tmp_path / "bag", sorted(late, key=lambda m: m.stamp_ns)))
    expected = steady.actions(START_S + 2.0, START_S + 2.0, 0.2, 1)
    assert truth.actions(START_S + 2.0, START_S + 3.0, 0.2, 1) == pytest.approx(expected, abs=1e-6)


def test_goals_are_put_on_the_clock_of_the_stamps(tmp_path: Path) -> None:
    factory = Factory()
    goals = [
        factory.pack(
            "/wx250s/commands/joint_group", n / 50,
            factory.make("interbotix_xs_msgs/msg/JointGroupCommand", name="arm", cmd=np.array(arm_at(n / 50), "f4")),
        )
        for n in range(300)
    ]  # fmt: skip
    found = []
    for shift_s in (0.0, 10.0):
        messages = sorted([*shifted(shift_s), *goals], key=lambda m: m.stamp_ns)
        truth, _ = truth_of(write(tmp_path / f"off_{shift_s:.0f}", messages))
        assert truth.source == "commands"
        found.append(truth.actions(START_S + 2.0 + shift_s, START_S + 2.0, 0.2, 8, START_S + 5.0))
    assert np.isfinite(found[0]).all() and found[1] == pytest.approx(found[0], abs=1e-5)


def test_stamps_that_run_backwards_a_little_are_left_out_until_they_have_caught_up(tmp_path: Path) -> None:
    truth, problems = truth_of(write(tmp_path / "bag", shifted(-0.3, JUMP_AT_S, images=False)))
    stamps_s = truth.stamps_s(START_S, START_S)
    assert (np.diff(stamps_s) >= 0.0).all() and "run backwards were left out (14 times)" in " ".join(problems)


def test_one_stray_stamp_parts_nothing(tmp_path: Path, steady: Truth) -> None:
    stray = Factory().joints(0.5)
    messages = [*shifted(0.0), Message(JOINTS, stray.type_name, START_NS + 2_050_000_000, stray.data)]
    truth, _ = truth_of(write(tmp_path / "bag", sorted(messages, key=lambda m: m.stamp_ns)))
    at = START_S + 1.9
    assert truth.actions(at, at, 0.2, 8) == pytest.approx(steady.actions(at, at, 0.2, 8), abs=1e-6)


def test_joint_states_are_kept_in_few_bytes() -> None:
    from instructvla_ros.bags.events import JointEvent
    from instructvla_ros.control.types import JointSample

    import tracemalloc  # isort: skip

    truth, count = Truth(), 20_000
    tracemalloc.start()
    for number in range(count):
        truth.add(JointEvent(number * 10**7, JointSample(np.zeros(6), 0.03, number * 0.01, number * 0.01)))
    kept, _ = tracemalloc.get_traced_memory()
    truth.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / count < 90 and peak / count < 250, (kept / count, peak / count)


def test_parts_of_a_clock_are_found_and_an_image_belongs_to_the_one_that_agrees_with_it() -> None:
    received_s = np.arange(30.0)
    stamps_s = received_s - 100.0 * (received_s >= 10) + 100.0 * (received_s >= 20)
    spans = Spans(stamps_s, received_s)
    assert [part.tolist() for part in spans.parts] == [[*range(10), *range(20, 30)], [*range(10, 20)]]
    assert [spans.find(t, t) for t in (5.0, 25.0, 10.05)] == [0, 0, 0] and spans.find(-85.0, 15.0) == 1
    assert spans.find(50.0, 15.0) is None and Spans(np.empty(0), np.empty(0)).find(1.0, 1.0) is None
