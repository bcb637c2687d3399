"""instructvla demo: start everything with the simulated robot, say one instruction, record what happens.

Exit status 0 only if the simulator's own success check holds; 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from instructvla_ros.cli import demo_results as results
from instructvla_ros.cli.arguments import positive_seconds, read_seed, seed
from instructvla_ros.cli.interrupts import Interrupts, Stopped
from instructvla_ros.cli.up import make_supervisor, parse_assignments, refuse_second
from instructvla_ros.graph import files
from instructvla_ros.graph.description import argument_values
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.policy.instructions import check_instruction
from instructvla_ros.robots import graphs


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
    parser.add_argument("--seed", type=seed, metavar="N", help="number of the random scene; default: the robot's own")
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    parser.add_argument("--no-think", action="store_true", help="without reasoning in text")
    parser.add_argument(
        "--time-limit",
        type=positive_seconds,
        default=60.0,
        metavar="S",
        help="longest task, in seconds from the instruction",
    )
    parser.add_argument(
        "--start-limit",
        type=positive_seconds,
        default=120.0,
        metavar="S",
        help="longest start of the graph, in seconds",
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


@dataclass(frozen=True)
class _Run:
    """One demonstration, checked: nothing was started or removed yet. `values` are all arguments of the graph."""

    instruction: str
    seed: int
    folder: Path
    values: dict[str, str]
    arguments: argparse.Namespace


def run(arguments: argparse.Namespace) -> int:
    """See the module."""
    show = SHOWS[arguments.robot]
    instruction = check_instruction(show.instruction if arguments.instruction is None else arguments.instruction)
    check = arguments.check or (show.check if instruction == show.instruction else "")
    number = show.seed if arguments.seed is None else arguments.seed
    given = {"sim": "true", "seed": str(number), "task_instruction": check or instruction}
    given["follow_instructions"] = "false" if check else "true"
    given |= parse_assignments(arguments.arguments)
    graph = graphs()[arguments.robot]
    make_supervisor(graph, given, arguments.namespace)  # refuses wrong arguments while the last results still stand
    refuse_second(graph, given, arguments.namespace)
    folder = arguments.output or (files.repository_root() or Path.cwd()) / "demo"
    wanted = _Run(instruction, read_seed(given["seed"]), folder, argument_values(graph, given), arguments)
    results.clear(folder)
    with open(folder / results.LOG, "wb") as log:
        supervisor = make_supervisor(graph, given, arguments.namespace, output=log.fileno())
        interrupts = Interrupts(supervisor.stop)
        try:
            supervisor.start()
            return _drive(wanted, supervisor, interrupts)
        except Stopped as stopped:
            print(f"\ninstructvla demo: {stopped}", file=sys.stderr)
            return stopped.status
        finally:
            supervisor.shutdown()
            interrupts.close()


def _drive(wanted: _Run, supervisor: Supervisor, interrupts: Interrupts) -> int:
    from instructvla_ros.cli.demo_session import DemoSession
    from instructvla_ros.cli.ros_client import RosClient

    arguments, folder = wanted.arguments, wanted.folder

    def check() -> None:
        interrupts.check()
        ending = supervisor.ended()
        if ending is not None:
            said = results.last_fatal(folder / results.LOG)
            why = f"{ending.reason}: {said}" if said else ending.reason
            raise OSError(f"the graph ended: {why}. See {folder / results.LOG}")

    print("starting the graph ...", flush=True)
    began_s = time.monotonic()
    with RosClient(arguments.namespace) as client:
        session = DemoSession(client, folder, wanted.values, check, lambda piece: print(piece, end="", flush=True))
        try:
            try:
                session.wait_until_active(arguments.start_limit)
            except TimeoutError as error:
                raise TimeoutError(f"{error}. See {folder / results.LOG}") from error
            print(f"all nodes are active after {time.monotonic() - began_s:.0f} s", flush=True)
            print(f"instruction: {wanted.instruction}\nreasoning:   ", end="", flush=True)
            session.say(wanted.instruction, not arguments.no_think)
            outcome = session.wait_for_outcome(arguments.time_limit)
            if arguments.keep:
                session.release()
        finally:
            bag = session.recorder.close()
        word = "success" if outcome.success else "failure"
        print(f"\noutcome:     {word} after {outcome.took_s:.1f} s. {outcome.why or outcome.status.describe()}")
        problem = results.bag_problem(bag, session.recorder.lost)
        about = {"messages": bag.messages, "dropped": bag.dropped, "lost": session.recorder.lost, "problem": problem}
        results.write_outcome(folder, wanted.instruction, wanted.seed, outcome, about)
        if not arguments.keep:
            supervisor.shutdown()  # leaves the machine to the film
        with interrupts.at_once():
            frames = results.write_pictures(folder, wanted.instruction, wanted.seed, session, outcome)
    film = f"{results.FILM} ({frames} frames), {results.SHEET}" if frames else "no film (no picture was heard)"
    print(f"left in {folder}: {film}, {results.RESULT}, bag ({bag.messages} messages)", flush=True)
    if problem:
        print(f"BAG NOT COMPLETE: {problem}", flush=True)
    if arguments.keep:
        print('staying up; end with Ctrl-C. In another terminal: instructvla watch, instructvla say "…"', flush=True)
        print(f"instructvla demo: {supervisor.wait().reason}", file=sys.stderr)
    return 0 if outcome.success else 1
