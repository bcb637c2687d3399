"""instructvla demo: start everything with the simulated robot, say one instruction, record what happens.

Exit status 0 only if the simulator's own success check holds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from instructvla_ros.cli.streaming import TextStream
from instructvla_ros.cli.task_status import TaskStatus, TaskWatch
from instructvla_ros.cli.up import make_supervisor, parse_assignments
from instructvla_ros.graph import files
from instructvla_ros.graph.description import argument_values
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.graph.widowx import GRAPHS
from instructvla_ros.policy.instructions import check_instruction

DEFAULT_INSTRUCTION = "put the carrot on the plate"
_POLL_S = 0.2
_SETTLE_S = 1.0  # film on for a moment after the end


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    parser = commands.add_parser("demo", help="run the whole system once in simulation and record it")
    parser.add_argument("--instruction", default=DEFAULT_INSTRUCTION)
    parser.add_argument("--robot", choices=sorted(GRAPHS), default="widowx")
    parser.add_argument("--seed", type=int, default=0, help="which random scene")
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    parser.add_argument("--no-think", action="store_true", help="without reasoning in text")
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="S", help="longest task, from the instruction"
    )
    parser.add_argument(
        "--start-limit", type=float, default=120.0, metavar="S", help="longest start of the graph"
    )
    parser.add_argument(
        "--output", type=Path, default=None, metavar="FOLDER", help="where to leave film, sheet and bag"
    )
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="further arguments of the graph")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """See the module."""
    instruction = check_instruction(arguments.instruction)
    folder = arguments.output or (files.repository_root() or Path.cwd()) / "demo"
    shutil.rmtree(folder / "bag", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    given = {"sim": "true", "seed": str(arguments.seed), "task_instruction": instruction}
    given |= parse_assignments(arguments.arguments)
    graph = GRAPHS[arguments.robot]
    with open(folder / "nodes.log", "wb") as log:
        supervisor = make_supervisor(graph, given, arguments.namespace, output=log.fileno())
        supervisor.handle_signals()
        supervisor.start()
        try:
            return _drive(arguments, instruction, folder, supervisor, argument_values(graph, given))
        finally:
            supervisor.shutdown()


def _drive(
    arguments: argparse.Namespace,
    instruction: str,
    folder: Path,
    supervisor: Supervisor,
    values: dict[str, str],
) -> int:
    from sensor_msgs.msg import JointState
    from std_msgs.msg import String

    from instructvla_msgs.msg import Reasoning
    from instructvla_ros.cli.film import write_contact_sheet, write_film
    from instructvla_ros.cli.recording import Recorder, topic_table
    from instructvla_ros.cli.ros_client import RosClient
    from instructvla_ros.nodes import qos

    written = threading.Event()
    stream = TextStream(lambda piece: print(piece, end="", flush=True), written.set)
    watch = TaskWatch()
    with RosClient(arguments.namespace) as client:
        recorder = Recorder(client, folder / "bag")
        try:
            for kind, topic, profile in topic_table():
                recorder.add_topic(kind, topic, profile)
            recorder.add_topic(JointState, f"/{values['robot_name']}/joint_states", qos.JOINT_STATES)
            cameras = [values["camera_topic"], values["wrist_topic"]]
            for topic in cameras:
                recorder.add_camera(topic, qos.IMAGE)
            client.subscribe(Reasoning, "reasoning", stream.on_message, qos.REASONING)
            client.subscribe(String, "sim/task_status", lambda m: watch.on_message(m.data), qos.TASK_STATUS)
            print("starting the graph ...", flush=True)
            _wait_until_active(client, supervisor, arguments.start_limit)
            began_s = time.monotonic()
            print(f"instruction: {instruction}\nreasoning:   ", end="", flush=True)
            stream.follow(_say(client, instruction, not arguments.no_think))
            status = _wait_for_outcome(supervisor, watch, arguments.time_limit)
            took_s = time.monotonic() - began_s
            time.sleep(_SETTLE_S)
        finally:
            recorder.close()
        outcome = "success" if status.success else "failure"
        print(f"\noutcome:     {outcome} after {took_s:.1f} s. {status.describe()}".rstrip())
        primary = recorder.frames[cameras[0]]
        film = write_film(folder / "demo.mp4", [recorder.frames[topic] for topic in cameras])
        caption = [
            f"Instruction: {instruction}",
            f"Reasoning: {stream.text or '-'}",
            f"Outcome: {outcome}, {took_s:.0f} s",
        ]
        write_contact_sheet(folder / "contact_sheet.png", primary, caption)
        _write_outcome(folder, instruction, stream.text, status, took_s, arguments.seed)
        print(
            f"left in {folder}: demo.mp4 ({film} frames), contact_sheet.png, "
            f"bag ({recorder.messages} messages)"
        )
        if arguments.keep:
            print('staying up; end with Ctrl-C. In another terminal: instructvla watch, instructvla say "…"')
            print(f"instructvla demo: {supervisor.wait().reason}", file=sys.stderr)
    return 0 if status.success else 1


def _wait_until_active(client: Any, supervisor: Supervisor, limit_s: float) -> None:
    """Raises TimeoutError or RuntimeError with what the nodes said."""
    from std_srvs.srv import Trigger

    end_s = time.monotonic() + limit_s
    said = "the lifecycle manager did not answer"
    while time.monotonic() < end_s:
        _check(supervisor)
        try:
            answer = client.call(Trigger, "lifecycle_manager_node/is_active", Trigger.Request(), 2.0)
        except TimeoutError:
            continue
        if answer.success:
            return
        said = answer.message
        if "cannot configure: checkpoint" in said:
            break  # no retry makes a bad checkpoint good
        time.sleep(_POLL_S)
    raise TimeoutError(f"the graph did not become active: {said}. See nodes.log in the output folder")


def _check(supervisor: Supervisor) -> None:
    ending = supervisor.ended()
    if ending is not None:
        raise OSError(f"the graph ended: {ending.reason}. See nodes.log in the output folder")


def _say(client: Any, instruction: str, think: bool) -> int:
    from instructvla_msgs.srv import SetInstruction

    response = client.call(
        SetInstruction, "set_instruction", SetInstruction.Request(instruction=instruction, think=think)
    )
    if not response.accepted:
        raise ValueError(f"the instruction was refused: {response.message}")
    return int(response.instruction_id)


def _wait_for_outcome(supervisor: Supervisor, watch: TaskWatch, limit_s: float) -> TaskStatus:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        _check(supervisor)
        if watch.status.success:
            break
        time.sleep(_POLL_S)
    return watch.status


def _write_outcome(
    folder: Path, instruction: str, text: str, status: TaskStatus, took_s: float, seed: int
) -> None:
    record = {
        "instruction": instruction,
        "reasoning": text,
        "success": status.success,
        "seconds": round(took_s, 2),
    }
    record |= {"seed": seed, "task": status.details, "host_cpus": os.cpu_count()}
    (folder / "outcome.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
