"""The fault injector's engine, its corruptions and its ballast: pure, on an injected clock."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from instructvla_ros.faults import disk
from instructvla_ros.faults.engine import KINDS, Fault, FaultyStream, Handling


@dataclass(frozen=True)
class Note:
    """A message: when it was written and what it says."""

    stamp_s: float
    text: str


def stream(text: str = "none", now_s: float = 0.0) -> FaultyStream[Note]:
    made = FaultyStream(
        Handling[Note](
            restamp=lambda content, like: replace(content, stamp_s=like.stamp_s),
            shift=lambda note, seconds: replace(note, stamp_s=note.stamp_s + seconds),
            corrupt=lambda note, count: replace(note, text=f"spoiled {count}"),
        )
    )
    made.set(Fault.parse(text), now_s)
    return made


def through(made: FaultyStream[Note], count: int = 4) -> list[Note]:
    found = []
    for i in range(count):
        made.take(Note(float(i), f"note {i}"), float(i))
        found += made.due(float(i))
    return found


def test_without_a_fault_every_message_passes_at_once_and_unchanged() -> None:
    assert through(stream()) == [Note(float(i), f"note {i}") for i in range(4)]


def test_delay_keeps_order_and_content() -> None:
    made = stream("delay 1.5")
    assert through(made) == [Note(0.0, "note 0"), Note(1.0, "note 1")]
    assert [note.text for note in made.due(4.5)] == ["note 2", "note 3"]


def test_drop_loses_as_many_as_asked() -> None:
    assert through(stream("drop")) == []
    assert 400 < len(through(stream("drop 0.5"), 1000)) < 600


def test_duplicate_repeats_each_message() -> None:
    assert [note.text for note in through(stream("duplicate 2"), 2)] == ["note 0"] * 3 + ["note 1"] * 3


def test_freeze_repeats_the_first_content_under_new_stamps() -> None:
    assert through(stream("freeze"), 3) == [Note(0.0, "note 0"), Note(1.0, "note 0"), Note(2.0, "note 0")]


def test_shift_moves_stamps_only_and_corrupt_spoils_each_in_another_way() -> None:
    assert through(stream("shift -5"), 1) == [Note(-5.0, "note 0")]
    assert [note.text for note in through(stream("corrupt"), 3)] == ["spoiled 1", "spoiled 2", "spoiled 3"]


def test_a_fault_ends_by_itself() -> None:
    made = stream("drop 1 for 2")
    assert [note.text for note in through(made)] == ["note 2", "note 3"]
    assert made.fault(3.0) == Fault()


@pytest.mark.parametrize("text", ["", "bend", "drop x", "drop 2", "delay -1", "drop for", "drop 1 for 0", "drop 1 1"])
def test_what_is_no_fault_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Fault.parse(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_back_as_it_is_written(kind: str) -> None:
    fault = Fault.parse(f"{kind} for 3")
    assert Fault.parse(str(fault)).kind == kind
    assert fault.seconds == 3.0 and Fault.parse(kind).seconds == math.inf


def test_messages_are_spoiled_so_that_the_graphs_own_checks_notice() -> None:
    pytest.importorskip("sensor_msgs.msg")
    from sensor_msgs.msg import Image, JointState

    from instructvla_ros.control import WX250S
    from instructvla_ros.control.pictures import is_black
    from instructvla_ros.control.state import JointStateReader
    from instructvla_ros.faults.messages import SPOILS, handling
    from instructvla_ros.policy.ingest import image_to_rgb, time_to_s

    def look(message: Image) -> None:
        if is_black(image_to_rgb(message)):
            raise ValueError("black")

    names = [*WX250S.joint_names, WX250S.fingers.joint]
    state = JointState(name=names, position=[0.1] * len(names))
    picture = Image(height=64, width=64, encoding="rgb8", step=192, data=bytes([90]) * (64 * 192))
    outcomes: dict[str, set[bool]] = {}
    for message, read in (
        (state, lambda m: JointStateReader().read(m.name, m.position, 0.0, 0.0)),
        (picture, look),
    ):
        kind = type(message).__name__
        wire = handling(SPOILS[kind])
        for count in range(len(SPOILS[kind])):
            try:
                read(wire.corrupt(copy.deepcopy(message), count))
                outcomes.setdefault(kind, set()).add(True)
            except ValueError:
                outcomes.setdefault(kind, set()).add(False)
        assert time_to_s(wire.shift(copy.deepcopy(message), 5.0).header.stamp) == 5.0
    assert outcomes == {"JointState": {True, False}, "Image": {False}}


def test_f25_the_ballast_leaves_as_much_space_as_asked_and_no_disk_is_filled_by_mistake(tmp_path: Path) -> None:
    def free_of(total_mb: float) -> float:
        ballast = tmp_path / disk.BALLAST
        return total_mb - (ballast.stat().st_size / disk.MEGABYTE if ballast.exists() else 0.0)

    assert disk.fill(tmp_path, 400.0, free=lambda _: free_of(402.0)) == pytest.approx(2.0)
    assert free_of(402.0) == pytest.approx(400.0)
    assert disk.fill(tmp_path, 401.0, free=lambda _: free_of(402.0)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more than 10 MB"):
        disk.fill(tmp_path, 400.0, most_mb=10.0, free=lambda _: free_of(1000.0))
    assert disk.fill(tmp_path, 500.0, free=lambda _: free_of(402.0)) == 0.0
    assert not disk.clear(tmp_path)


def test_the_dice_are_the_same_every_time() -> None:
    assert through(stream("drop 0.5"), 50) == through(stream("drop 0.5"), 50)
