"""instructvla stop, reset, home, sleep: latch the arm where it is, leave that latch, go to a fixed posture."""

from __future__ import annotations

import argparse


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `stop`, `reset`, `home` and `sleep`."""
    for name, text in (
        ("stop", "hold the arm where it is, until reset"),
        ("reset", "leave a stop or a fault; the target is anchored at the measured pose"),
        ("home", "move the arm slowly to its home posture, straight in joint space"),
        ("sleep", "move the arm slowly to the posture in which it may be switched off"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.set_defaults(run=run, service=name)


def run(arguments: argparse.Namespace) -> int:
    """Call the controller's service; returns 0 if it did as told."""
    from std_srvs.srv import Trigger

    from instructvla_ros.cli.ros_client import RosClient

    with RosClient(arguments.namespace) as client:
        response = client.call(Trigger, arguments.service, Trigger.Request())
    print(response.message)
    return 0 if response.success else 1
