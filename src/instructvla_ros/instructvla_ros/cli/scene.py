"""instructvla scene: put another scene on the simulated table, safely for the running controller."""

from __future__ import annotations

import argparse
import sys

from instructvla_ros.cli.arguments import seed


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `scene`."""
    parser = commands.add_parser("scene", help="simulation only: make the scene anew, or another one")
    parser.add_argument(
        "--seed", type=seed, default=None, metavar="N", help="number of the random scene; without it, the same again"
    )
    parser.add_argument(
        "--instruction", default=None, metavar="TEXT", help="plain instruction whose things must be on the table"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Stop the arm, set the scene's parameters, reset the simulation, release the arm; returns 0 if all was done."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter
    from std_srvs.srv import Trigger

    from instructvla_ros.cli.ros_client import RosClient

    wanted = {"seed": arguments.seed, "instruction": arguments.instruction}
    parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in wanted.items() if v is not None]
    with RosClient(arguments.namespace) as client:
        if parameters:
            request = SetParameters.Request(parameters=parameters)
            for result in client.call(SetParameters, "sim/sim_node/set_parameters", request).results:
                if not result.successful:
                    raise ValueError(result.reason)
        # The arm jumps to its start pose: no goal of the old scene may follow it there.
        answers = {
            step: client.call(Trigger, service, Trigger.Request())
            for step, service in (("stopping", "stop"), ("the scene", "sim/reset"), ("releasing the arm", "reset"))
        }
    if answers["the scene"].success:
        print(answers["the scene"].message)
    failed = {step: answer.message for step, answer in answers.items() if not answer.success}
    for step, message in failed.items():
        print(f"instructvla scene: {step} failed: {message or 'no reason was given'}", file=sys.stderr)
    return 1 if failed else 0
