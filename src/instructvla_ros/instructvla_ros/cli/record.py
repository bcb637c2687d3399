"""instructvla record: write a bag of the running graph, and mark episodes in it."""

from __future__ import annotations

import argparse
import threading
import time
from datetime import datetime
from pathlib import Path

_POLL_S = 0.2


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `record` and `mark`."""
    parser = commands.add_parser("record", help="record the running graph as a rosbag2")
    parser.add_argument(
        "output", nargs="?", type=Path, default=None, metavar="FOLDER", help="default: recording_<time>"
    )
    parser.add_argument(
        "--joint-states-topic", default="/wx250s/joint_states", metavar="TOPIC",
        help="states of the arm and its fingers",
    )  # fmt: skip
    parser.add_argument(
        "--camera-topic", default="/camera/camera/color/image_raw", metavar="TOPIC", help="third-person camera"
    )
    parser.add_argument("--wrist-topic", default="/wrist/image_raw", metavar="TOPIC", help="wrist camera")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="further topics")
    parser.add_argument("--all", action="store_true", help="every topic there is")
    parser.add_argument(
        "--raw-images", action="store_true", help="images as they are instead of JPEG: 28 MB/s each at 30 Hz"
    )
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="form of the files")
    parser.add_argument(
        "--seconds", type=float, default=0.0, metavar="S", help="stop after so many seconds; 0 = Ctrl-C"
    )
    parser.set_defaults(run=record)

    mark = commands.add_parser("mark", help="mark where an episode begins and ends, in a recording under way")
    mark.add_argument("what", choices=("begin", "end"), help="of an episode")
    mark.add_argument("instruction", nargs="?", default="", help="with begin: what is being shown")
    mark.add_argument("--failure", action="store_true", help="with end: the episode failed")
    mark.set_defaults(run=run_mark)


def record(arguments: argparse.Namespace) -> int:
    """Record until Ctrl-C, the time limit or a full disk; 0 unless something went wrong."""
    from instructvla_ros.bags import pictures
    from instructvla_ros.bags.recorder import Recorder, RecordingPlan
    from instructvla_ros.bags.writer import CLOSED, BagWriter
    from instructvla_ros.cli.interrupts import Interrupts
    from instructvla_ros.cli.ros_client import RosClient

    folder = arguments.output or Path(f"recording_{datetime.now():%Y%m%d_%H%M%S}")
    plan = RecordingPlan(
        arguments.joint_states_topic, arguments.camera_topic, arguments.wrist_topic, tuple(arguments.topics),
        arguments.all, 0 if arguments.raw_images else pictures.JPEG_QUALITY,
    )  # fmt: skip
    writer = BagWriter(folder, storage=arguments.storage)
    with RosClient(arguments.namespace) as client:
        recorder = Recorder(client.node, writer, plan)
        print(f"recording to {folder}; end with Ctrl-C", flush=True)
        asked = threading.Event()
        interrupts = Interrupts(asked.set)  # SIGTERM too: systemd and `timeout` end a recording by it
        limit_s = arguments.seconds if arguments.seconds > 0 else float("inf")
        end_s = time.monotonic() + limit_s
        try:
            while time.monotonic() < end_s and not writer.state.ended and not asked.wait(_POLL_S):
                pass
            state = recorder.close()
        finally:
            interrupts.close()
    why = "" if state.ended == CLOSED else state.ended  # also what went wrong while it was closed
    for topic, count in sorted(recorder.received.items()):
        print(f"{count:8d}  {topic}")
    print(f"{state.messages} messages, {state.bytes / 1e6:.1f} MB in {folder}")
    if state.dropped or recorder.lost:
        print(f"NOT COMPLETE: {state.dropped} messages were not written, DDS lost {recorder.lost}")
    if why:
        print(why)
    return 1 if why or state.dropped or recorder.lost else 0


def run_mark(arguments: argparse.Namespace) -> int:
    """Call the recorder's service; 0 if it took the mark."""
    from std_srvs.srv import SetBool

    from instructvla_msgs.srv import SetInstruction
    from instructvla_ros.cli.ros_client import RosClient

    if arguments.what == "begin" and not arguments.instruction:
        raise ValueError('mark begin needs what is being shown, for instance: instructvla mark begin "pick up the can"')
    with RosClient(arguments.namespace) as client:
        if arguments.what == "begin":
            request = SetInstruction.Request(instruction=arguments.instruction)
            answer = client.call(SetInstruction, "recorder/begin_episode", request)
            print(answer.message)
            return 0 if answer.accepted else 1
        answer = client.call(SetBool, "recorder/end_episode", SetBool.Request(data=not arguments.failure))
        print(answer.message)
        return 0 if answer.success else 1
