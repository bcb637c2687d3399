"""instructvla fault: disturb a running graph on purpose, to see what it does."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from instructvla_ros.faults import disk
from instructvla_ros.faults.engine import KINDS, Fault
from instructvla_ros.graph.faults import NODE

_STREAMS = ("image", "joint_states", "latent_action", "action_chunk", "clock")
_WAIT_S = 5.0


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fault` with its three objects: a stream, a process, a disk."""
    parser = commands.add_parser("fault", help="disturb a graph that was started with faults:=true")
    what = parser.add_subparsers(dest="what", required=True, metavar="what")
    kinds = "; ".join(f"{kind}: {meaning}" for kind, (_, meaning) in KINDS.items())
    stream = what.add_parser("stream", help="delay, lose, repeat, freeze or spoil messages", description=kinds)
    stream.add_argument("stream", choices=_STREAMS, help="which messages; the clock with faulty_clock:=true")
    stream.add_argument("kind", choices=tuple(KINDS), help="what happens to them, see above")
    stream.add_argument("amount", nargs="?", type=float, default=None, help="seconds, probability or number")
    stream.add_argument(
        "--for",
        dest="seconds",
        type=float,
        default=None,
        metavar="S",
        help="end it after so many seconds; without, it lasts",
    )
    stream.set_defaults(run=run_stream)
    kill = what.add_parser("kill", help="end the process of a node without a word, or stop it for a while")
    kill.add_argument("node", help="name of the node, for example action_expert_node")
    kill.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "INT", "STOP", "CONT"), help="which signal")
    kill.set_defaults(run=run_kill)
    full = what.add_parser("disk", help="leave only so much space on a disk, or give it back")
    full.add_argument("folder", type=Path, help="a folder on that disk")
    full.add_argument("--leave-mb", type=float, default=400.0, metavar="MB", help="space to leave")
    full.add_argument("--most-mb", type=float, default=disk.DEFAULT_MOST_MB, metavar="MB", help="largest file to write")
    full.add_argument("--clear", action="store_true", help="take the file away again")
    full.set_defaults(run=run_disk)


def run_stream(arguments: argparse.Namespace) -> int:
    """Set the fault of one stream; returns 0 if the relay took it."""
    from instructvla_ros.cli.ros_client import RosClient

    amount = KINDS[arguments.kind][0] if arguments.amount is None else arguments.amount
    fault = Fault.parse(f"{arguments.kind} {amount}" + (f" for {arguments.seconds}" if arguments.seconds else ""))
    with RosClient(arguments.namespace) as client:
        reason = set_fault(client, arguments.stream, fault)
    print(reason or f"{arguments.stream}: {fault}")
    return 1 if reason else 0


def set_fault(client: object, stream: str, fault: Fault) -> str:
    """Ask the relay; returns "" or why it refused. Raises TimeoutError when there is no relay."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    request = SetParameters.Request(parameters=[Parameter(stream, value=str(fault)).to_parameter_msg()])
    try:
        (result,) = client.call(SetParameters, f"{NODE}/set_parameters", request, _WAIT_S).results  # type: ignore[attr-defined]
    except TimeoutError as error:
        raise TimeoutError(f"no {NODE} answers; start the graph with faults:=true") from error
    return "" if result.successful else str(result.reason)


def process_of(client: object, node: str, limit_s: float = _WAIT_S) -> int:
    """The process id of a node, from its heartbeats; raises TimeoutError when it sends none."""
    from diagnostic_msgs.msg import DiagnosticStatus

    from instructvla_ros.nodes import qos

    heard, found = threading.Event(), []

    def on_heartbeat(message: DiagnosticStatus) -> None:
        if message.name == node:
            found.append(int(message.hardware_id.partition("-")[0]))  # process id and token: nodes/managed.py
            heard.set()

    client.subscribe(DiagnosticStatus, "heartbeat", on_heartbeat, qos.HEARTBEAT)  # type: ignore[attr-defined]
    if not heard.wait(limit_s):
        raise TimeoutError(f"no heartbeat of {node} within {limit_s:g} s; is it a node of the graph, and does it run?")
    return found[0]


def run_kill(arguments: argparse.Namespace) -> int:
    """Send the signal to the process that sends the node's heartbeats."""
    from instructvla_ros.cli.ros_client import RosClient

    with RosClient(arguments.namespace) as client:
        pid = process_of(client, arguments.node)
    os.kill(pid, signal.Signals[f"SIG{arguments.signal}"])
    print(f"sent {arguments.signal} to {arguments.node}, process {pid}")
    return 0


def run_disk(arguments: argparse.Namespace) -> int:
    """Fill or clear."""
    if arguments.clear:
        print("ballast taken away" if disk.clear(arguments.folder) else "there was no ballast")
        return 0
    size_mb = disk.fill(arguments.folder, arguments.leave_mb, arguments.most_mb)
    print(f"ballast of {size_mb:.0f} MB; {disk.free_mb(arguments.folder):.0f} MB are free. --clear takes it away")
    return 0
