"""instructvla watch: reasoning, age of the latent action, rates and the arm's state, live in the terminal."""

from __future__ import annotations

import argparse
import time

from instructvla_ros.cli.view import LiveView


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `watch`."""
    parser = commands.add_parser("watch", help="live view of reasoning, latents, rates and the arm")
    parser.add_argument(
        "--robot-name", default="wx250s", metavar="NAME", help="namespace of the driver, for the rate of joint goals"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.0, metavar="S", help="stop after so many seconds; 0: with Ctrl-C"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show until Ctrl-C."""
    from diagnostic_msgs.msg import DiagnosticArray
    from interbotix_xs_msgs.msg import JointGroupCommand
    from rich.live import Live
    from rich.table import Table

    from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, LatentAction, Reasoning, SafetyState
    from instructvla_ros.cli.ros_client import RosClient
    from instructvla_ros.nodes import qos
    from instructvla_ros.nodes.codecs import time_to_s

    view = LiveView()

    def table() -> Table:
        made = Table(show_header=False, title="InstructVLA", min_width=80, expand=True)
        made.add_column(style="cyan", no_wrap=True)
        made.add_column(overflow="fold")
        for label, text in view.rows(time.time()):
            made.add_row(label, text)
        return made

    with RosClient(arguments.namespace) as client:
        client.subscribe(Reasoning, "reasoning", view.on_reasoning, qos.REASONING)
        client.subscribe(
            LatentAction,
            "latent_action",
            lambda m: view.on_latent(m, time.time(), time_to_s(m.header.stamp)),
            qos.LATENT_ACTION,
        )
        client.subscribe(
            ActionChunk, "action_chunk", lambda _: view.rates["chunks"].note(time.time()), qos.ACTION_CHUNK
        )
        client.subscribe(
            JointGroupCommand,
            f"/{arguments.robot_name}/commands/joint_group",
            lambda _: view.rates["joint goals"].note(time.time()),
            qos.DRIVER_COMMANDS,
        )
        client.subscribe(SafetyState, "safety_state", view.on_safety, qos.SAFETY_STATE)
        client.subscribe(EndEffectorDelta, "ee_delta", view.on_step, qos.EE_DELTA)
        client.subscribe(
            DiagnosticArray,
            "/diagnostics",
            lambda m: view.on_diagnostics(m, arguments.namespace),
            qos.DIAGNOSTICS,
        )
        end_s = time.monotonic() + arguments.seconds if arguments.seconds > 0 else float("inf")
        with Live(table(), refresh_per_second=4) as live:
            while time.monotonic() < end_s:
                time.sleep(0.25)
                live.update(table())
    return 0
