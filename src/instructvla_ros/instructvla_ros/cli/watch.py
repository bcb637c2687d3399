"""instructvla watch: reasoning, age of the latent action, rates and the arm's state, live in the terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from instructvla_ros.cli.view import LiveView

if TYPE_CHECKING:
    from rich.table import Table


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


def make_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Labels and texts as they are: brackets in what somebody said are no mark-up."""
    from rich.table import Table
    from rich.text import Text

    made = Table(show_header=False, title="InstructVLA", min_width=80, expand=True)
    made.add_column(style="cyan", no_wrap=True)
    made.add_column(overflow="fold")
    for label, text in rows:
        made.add_row(Text(label), Text(text))
    return made


def run(arguments: argparse.Namespace) -> int:
    """Show until Ctrl-C."""
    from diagnostic_msgs.msg import DiagnosticArray
    from interbotix_xs_msgs.msg import JointGroupCommand
    from rich.live import Live

    from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, LatentAction, Reasoning, SafetyState
    from instructvla_ros.cli.ros_client import RosClient
    from instructvla_ros.nodes import qos
    from instructvla_ros.nodes.codecs import time_to_s

    view = LiveView()

    goals = f"/{arguments.robot_name}/commands/joint_group"

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
            goals,
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
        with Live(make_table(view.rows(time.time())), refresh_per_second=4) as live:
            while time.monotonic() < end_s:
                time.sleep(0.25)
                view.unheard_goals = "" if client.node.count_publishers(goals) else goals
                live.update(make_table(view.rows(time.time())))
    return 0
