"""instructvla status: which nodes are up, what they say, what the controller allows."""

from __future__ import annotations

import argparse
import time
from typing import Any

from instructvla_ros.cli.view import LEVELS, mode_name

_LISTEN_S = 2.5


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `status`."""
    parser = commands.add_parser("status", help="which nodes are up and what they say")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Listen to diagnostics for a moment and print them; returns 0 if the lifecycle manager says all are
    active."""
    from diagnostic_msgs.msg import DiagnosticArray
    from std_srvs.srv import Trigger

    from instructvla_msgs.msg import SafetyState
    from instructvla_ros.cli.ros_client import RosClient
    from instructvla_ros.nodes import qos

    heard: dict[str, Any] = {}
    safety: list[Any] = []

    def on_diagnostics(message: DiagnosticArray) -> None:
        mine = arguments.namespace.lstrip("/") + "/"  # all robots of the domain share the topic
        heard.update({status.name: status for status in message.status if status.name.startswith(mine)})

    with RosClient(arguments.namespace) as client:
        client.subscribe(DiagnosticArray, "/diagnostics", on_diagnostics, qos.DIAGNOSTICS)
        client.subscribe(SafetyState, "safety_state", safety.append, qos.SAFETY_STATE)
        answer = client.call(Trigger, "lifecycle_manager_node/is_active", Trigger.Request())
        time.sleep(_LISTEN_S)
    for name in sorted(heard):
        status = heard[name]
        print(f"{LEVELS.get(status.level, '?'):5} {name}: {status.message}")
        for pair in status.values:
            print(f"        {pair.key}: {pair.value}")
    if safety:
        last = safety[-1]
        reason = f" ({last.fault_id} {last.reason})".replace("( ", "(") if last.reason else ""
        print(f"arm:  {mode_name(last.mode)}{reason}")
    print("all nodes are active" if answer.success else f"not all nodes are active: {answer.message}")
    return 0 if answer.success else 1
