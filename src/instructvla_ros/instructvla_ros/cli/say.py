"""instructvla say: give the robot an instruction."""

from __future__ import annotations

import argparse
import threading

from instructvla_ros.cli.arguments import positive_seconds
from instructvla_ros.cli.streaming import TextStream
from instructvla_ros.policy.instructions import check_instruction


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `say`."""
    parser = commands.add_parser("say", help="give the robot an instruction")
    parser.add_argument("instruction", help="what to do, in plain words; 1 to 512 characters")
    parser.add_argument("--no-think", action="store_true", help="go straight to the latent action, without text")
    parser.add_argument("--follow", action="store_true", help="print the reasoning until it is complete")
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=30.0,
        metavar="S",
        help="with --follow: longest wait for the reasoning, in seconds",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, call the service, print what it says; returns 0 if the instruction was accepted."""
    text = check_instruction(arguments.instruction)
    from instructvla_msgs.msg import Reasoning
    from instructvla_msgs.srv import SetInstruction
    from instructvla_ros.cli.ros_client import RosClient
    from instructvla_ros.nodes import qos

    complete = threading.Event()
    stream = TextStream(lambda piece: print(piece, end="", flush=True), complete.set)
    with RosClient(arguments.namespace) as client:
        if arguments.follow:
            client.subscribe(Reasoning, "reasoning", stream.on_message, qos.REASONING)
        request = SetInstruction.Request(instruction=text, think=not arguments.no_think)
        response = client.call(SetInstruction, "set_instruction", request)
        print(response.message)
        if not response.accepted:
            return 1
        if arguments.follow:
            stream.follow(response.instruction_id)
            if not complete.wait(arguments.timeout):
                print(f"\nno complete reasoning within {arguments.timeout:g} s; see: instructvla status")
                return 1
            print()
    return 0
