"""Any episode as a recording, so that it can be replayed: images, states, instruction and executed steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from instructvla_ros.bags.messages import COMPRESSED, DELTA, JOINT_STATE, REASONING, STRING, MessageMaker
from instructvla_ros.bags.writer import CLOSED, BagWriter
from instructvla_ros.control.state import STATE_NAMES

from .formats.bag import note_of
from .formats.episode import DataError, Episode, EpisodeDataset

START_NS = 1_600_000_000 * 10**9
"""Data sets tell no time of day: their recordings begin then, which keeps them the same byte for byte."""
PAUSE_S = 2.0
_QUEUED_BYTES = 32_000_000
TOPICS = {"primary": "/camera/camera/color/image_raw/compressed", "wrist": "/wrist/image_raw/compressed"}
STATE_TOPIC, NAMESPACE = "/dataset/joint_states", "/instructvla"


def to_bag(
    dataset: EpisodeDataset,
    target: Path,
    numbers: Sequence[int] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes episodes (all, or those numbered) one after the other into one new bag -> how many. Raises DataError.

    Data sets know no joints: the policy's state is kept as a joint state with the names of `STATE_NAMES`. What its
    numbers are, and of which robot, stands in the bag's metadata, where `BagDataset` looks for it.
    """
    chosen = range(len(dataset)) if numbers is None else numbers
    unknown = [number for number in chosen if not 0 <= number < len(dataset)]
    if unknown:
        raise DataError(f"{dataset.name} has no episodes {unknown}; expected numbers from 0 to {len(dataset) - 1}")
    try:
        writer = BagWriter(target)
    except OSError as error:
        raise DataError(str(error)) from error
    try:
        _write_all(writer, dataset, chosen, report)
    except BaseException:
        writer.close()
        shutil.rmtree(target, ignore_errors=True)  # half a bag is of no use: the data set is still there
        raise
    return len(chosen)


def _write_all(
    writer: BagWriter, dataset: EpisodeDataset, chosen: Sequence[int], report: Callable[[int, int], None]
) -> None:
    maker, now_ns = MessageMaker(), START_NS
    writer.note(*note_of(dataset))
    for topic, kind in (
        (STATE_TOPIC, JOINT_STATE), (f"{NAMESPACE}/reasoning", REASONING), (f"{NAMESPACE}/ee_delta", DELTA),
        (f"{NAMESPACE}/annotation", STRING), (f"{NAMESPACE}/episode", STRING),
        *((TOPICS[view], COMPRESSED) for view in dataset.views),
    ):  # fmt: skip
        writer.add_topic(topic, kind)
    for done, number in enumerate(chosen):
        report(done, len(chosen))
        now_ns = _write(writer, maker, dataset[number], done + 1, dataset.dt_s, now_ns) + round(PAUSE_S * 1e9)
    state = writer.close()
    if state.ended != CLOSED or state.dropped:
        raise DataError(f"{writer.folder}: {state.ended}, {state.dropped} messages dropped; make room and try again")


def _write(writer: BagWriter, maker: MessageMaker, episode: Episode, number: int, dt_s: float, start_ns: int) -> int:
    """One episode from a time on; returns its end."""
    if not episode.instruction.strip():
        raise DataError(f"{episode.name}: found no instruction, expected one; leave the episode out with --episodes")
    begin = {"mark": "begin", "instruction": episode.instruction}
    writer.put(f"{NAMESPACE}/episode", start_ns, maker.text(json.dumps(begin)))
    writer.put(f"{NAMESPACE}/reasoning", start_ns, maker.reasoning(start_ns, number, episode.instruction))
    found = episode.annotation
    pairs = (*found.cr, *found.cc) if found is not None else ()
    if pairs:
        writer.put(f"{NAMESPACE}/annotation", start_ns + 1, maker.text(pairs[0].answer))
    streams = {view: iter(images) for view, images in episode.images.items()}
    stamp_ns = start_ns
    for step in range(len(episode)):
        writer.wait_below(_QUEUED_BYTES)
        stamp_ns = start_ns + round((step + 1) * dt_s * 1e9)
        position = np.asarray(episode.state_TS[step], float)
        writer.put(STATE_TOPIC, stamp_ns, maker.joints(stamp_ns, STATE_NAMES, position))
        for view, images in streams.items():
            writer.put(TOPICS[view], stamp_ns + 1, maker.picture(stamp_ns, next(images)))
        delta = maker.step(stamp_ns, np.asarray(episode.action_TA[step], float), dt_s, number, step)
        writer.put(f"{NAMESPACE}/ee_delta", stamp_ns + 2, delta)
    stop_ns = stamp_ns + round(dt_s * 1e9)  # the last step takes its time, too
    writer.put(f"{NAMESPACE}/episode", stop_ns, maker.text(json.dumps({"mark": "end"})))
    return stop_ns
