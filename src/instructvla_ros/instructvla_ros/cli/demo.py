"""instructvla demo: start everything with the simulated robot, say one instruction, record what happens.

Exit status 0 only if the simulator's own success check holds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instructvla_ros.cli.up import make_supervisor, parse_assignments
from instructvla_ros.graph import files
from instructvla_ros.graph.description import argument_values
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.policy.instructions import check_instruction
from instructvla_ros.robots import graphs

if TYPE_CHECKING:
    from instructvla_ros.cli.demo_session import DemoSession, Outcome


@dataclass(frozen=True)
class Show:
    """What a robot is told where nobody says otherwise: a Franka's checkpoint knows plain instructions only."""

    instruction: str
    check: str
    seed: int


SHOWS = {
    "widowx": Show("i am thirsty. put the right thing in the bowl", "put the can in the bowl", 11),
    "franka": Show("put the can in the bowl", "", 11),
}
"""By robot; those that have a simulation."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    parser = commands.add_parser("demo", help="run the whole system once in simulation and record it")
    parser.add_argument(
        "--instruction",
        metavar="TEXT",
        help="what the robot is told; default: what its checkpoint knows",
    )
    parser.add_argument(
        "--check",
        default="",
        metavar="TEXT",
        help="what counts as done, in plain words, where the instruction itself does not say it plainly",
    )
    parser.add_argument("--robot", choices=sorted(SHOWS), default="widowx", help="which robot")
    parser.add_argument("--seed", type=int, metavar="N", help="number of the random scene; default: the robot's own")
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    parser.add_argument("--no-think", action="store_true", help="without reasoning in text")
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="S", help="longest task, in seconds from the instruction"
    )
    parser.add_argument(
        "--start-limit", type=float, default=120.0, metavar="S", help="longest start of the graph, in seconds"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="where to leave film, sheet and bag; default: demo/ in the checkout, else in the current folder",
    )
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="further arguments of the graph")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """See the module."""
    show = SHOWS[arguments.robot]
    instruction = check_instruction(show.instruction if arguments.instruction is None else arguments.instruction)
    check = arguments.check or (show.check if instruction == show.instruction else "")
    arguments.seed = show.seed if arguments.seed is None else arguments.seed
    folder = arguments.output or (files.repository_root() or Path.cwd()) / "demo"
    shutil.rmtree(folder / "bag", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    given = {"sim": "true", "seed": str(arguments.seed), "task_instruction": check or instruction}
    given["follow_instructions"] = "false" if check else "true"
    given |= parse_assignments(arguments.arguments)
    graph = graphs()[arguments.robot]
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
    from instructvla_ros.cli.demo_session import DemoSession
    from instructvla_ros.cli.ros_client import RosClient

    def check() -> None:
        ending = supervisor.ended()
        if ending is not None:
            raise OSError(f"the graph ended: {ending.reason}. See {folder / 'nodes.log'}")

    print("starting the graph ...", flush=True)
    began_s = time.monotonic()
    with RosClient(arguments.namespace) as client:
        session = DemoSession(client, folder, values, check, lambda piece: print(piece, end="", flush=True))
        try:
            try:
                session.wait_until_active(arguments.start_limit)
            except TimeoutError as error:
                raise TimeoutError(f"{error}. See {folder / 'nodes.log'}") from error
            print(f"all nodes are active after {time.monotonic() - began_s:.0f} s", flush=True)
            print(f"instruction: {instruction}\nreasoning:   ", end="", flush=True)
            session.say(instruction, not arguments.no_think)
            outcome = session.wait_for_outcome(arguments.time_limit)
            if arguments.keep:
                session.release()
        finally:
            session.recorder.close()
        word = "success" if outcome.success else "failure"
        print(f"\noutcome:     {word} after {outcome.took_s:.1f} s. {outcome.why or outcome.status.describe()}")
        if not arguments.keep:
            supervisor.shutdown()  # leaves the machine to the film
        _write_files(arguments, instruction, folder, session, outcome)
    if arguments.keep:
        print('staying up; end with Ctrl-C. In another terminal: instructvla watch, instructvla say "…"', flush=True)
        print(f"instructvla demo: {supervisor.wait().reason}", file=sys.stderr)
    return 0 if outcome.success else 1


def _write_files(
    arguments: argparse.Namespace, instruction: str, folder: Path, session: DemoSession, outcome: Outcome
) -> None:
    from instructvla_ros.cli.film import write_contact_sheet, write_film

    primary, wrist = (session.frames[topic] for topic in session.cameras)
    begin_s = max(0.0, session.said_at_s - 0.3)
    primary = [frame for frame in primary if frame.time_s >= begin_s]
    frames = write_film(folder / "demo.mp4", primary, wrist, session.timeline)
    word = "success" if outcome.success else f"failure, {outcome.why}"
    caption = [
        f"Instruction: {instruction}",
        f"Reasoning: {outcome.text or '-'}",
        f"Outcome: {word} after {outcome.took_s:.0f} s (scene {arguments.seed})",
    ]
    write_contact_sheet(folder / "contact_sheet.png", primary, session.timeline, caption)
    record = {
        "instruction": instruction,
        "reasoning": outcome.text,
        "success": outcome.success,
        "why": outcome.why,
        "seconds": round(outcome.took_s, 2),
        "seed": arguments.seed,
        "task": outcome.status.details,
        "host_cpus": os.cpu_count(),
    }
    (folder / "outcome.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    count = session.recorder.writer.state.messages
    print(f"left in {folder}: demo.mp4 ({frames} frames), contact_sheet.png, bag ({count} messages)", flush=True)
