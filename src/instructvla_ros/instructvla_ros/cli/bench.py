"""instructvla bench graph: bring the simulated graph up, keep it thinking and acting, and measure it from outside.

Text is written again after every latent action, so that the chunk rate is measured under the heaviest load of the
reasoning node. Exit status 0 only if the rates that the project promises on two cores are met.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from instructvla_ros.cli import bench_bag, bench_ik, bench_memory, bench_model, soak
from instructvla_ros.cli.bench_stats import Report, Writing, longest_gap_s, rate_hz, spread
from instructvla_ros.cli.up import make_supervisor, parse_assignments, refuse_second
from instructvla_ros.graph.description import argument_values
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.graph.widowx import WIDOWX

_INSTRUCTION = "put the carrot on the plate"
_SETTLE_S = 3.0
_GOAL_PERIOD_S = 0.02
_LAST_LINES = 12
_OVERRIDES: Mapping[str, Mapping[str, Any]] = {"reasoning_node": {"reasoning_period": 1}}


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench graph`, `bench soak`, `bench model`, `bench memory`, `bench ik` and `bench bag`."""
    text = "measure the running graph, in good times and in bad, a model alone, the arms' kinematics, or recordings"
    bench = commands.add_parser("bench", help=text)
    subjects = bench.add_subparsers(dest="what", required=True, metavar="what")
    bench_model.add_parser(subjects)
    bench_memory.add_parser(subjects)
    bench_ik.add_parser(subjects)
    bench_bag.add_parser(subjects)
    soak.add_arguments(subjects.add_parser("soak", help="many minutes with a random fault every so often"))
    parser = subjects.add_parser("graph", help="measure the running graph: rates, gaps, ages, CPU shares")
    parser.add_argument(
        "--seconds", type=float, default=30.0, metavar="S", help="length of the measurement, in seconds"
    )
    parser.add_argument(
        "--start-limit", type=float, default=120.0, metavar="S", help="longest start of the graph, in seconds"
    )
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns 0 if all bars are met."""
    given = {"sim": "true", "task_instruction": _INSTRUCTION} | parse_assignments(arguments.arguments)
    with tempfile.TemporaryFile() as log:
        supervisor = make_supervisor(WIDOWX, given, arguments.namespace, log.fileno(), _OVERRIDES)
        refuse_second(WIDOWX, given, arguments.namespace)
        supervisor.handle_signals()
        supervisor.start()
        try:
            report = _measure(arguments, supervisor, argument_values(WIDOWX, given))
        except (OSError, TimeoutError) as error:
            log.seek(0)
            said = log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
            raise type(error)("\n".join([f"{error}. The nodes said last:", *said])) from error
        finally:
            supervisor.shutdown()
    for label, text in report.rows():
        print(f"{label:32s} {text}")
    for miss in report.misses:
        print(f"MISSED  {miss}")
    if arguments.output:
        arguments.output.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 1 if report.misses else 0


class _Ears:
    """Times of arrival (monotonic s) of everything that is measured. Callbacks run in the client's thread."""

    def __init__(self, client: Any, robot_name: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from interbotix_xs_msgs.msg import JointGroupCommand
        from sensor_msgs.msg import JointState

        from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, LatentAction, Reasoning
        from instructvla_ros.nodes import qos

        self.forget()
        client.subscribe(ActionChunk, "action_chunk", self._on_chunk, qos.ACTION_CHUNK)
        client.subscribe(LatentAction, "latent_action", self._on_latent, qos.LATENT_ACTION)
        client.subscribe(Reasoning, "reasoning", self._on_reasoning, qos.REASONING)
        client.subscribe(EndEffectorDelta, "ee_delta", lambda _: self.steps.append(time.monotonic()), qos.EE_DELTA)
        client.subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        # Raw: reading the messages would cost more than counting them.
        for kind, topic, times, profile in (
            (JointGroupCommand, f"/{robot_name}/commands/joint_group", "goals", qos.DRIVER_COMMANDS),
            (JointState, f"/{robot_name}/joint_states", "joints", qos.JOINT_STATES),
        ):
            client.subscribe(kind, topic, lambda _, n=times: self._note(n), profile, raw=True)

    def forget(self) -> None:
        """Begin anew."""
        self.chunks: list[float] = []
        self.latents: list[float] = []
        self.steps: list[float] = []
        self.goals: list[float] = []
        self.joints: list[float] = []
        self.chunk_latency: list[float] = []
        self.latent_latency: list[float] = []
        self.image_age: list[float] = []
        self.tokens: list[float] = []
        self.factors: list[float] = []
        self.writing = Writing()

    def _note(self, name: str) -> None:
        getattr(self, name).append(time.monotonic())

    def _on_chunk(self, message: Any) -> None:
        from instructvla_ros.nodes.codecs import time_to_s

        self.chunks.append(time.monotonic())
        self.chunk_latency.append(message.latency_s)
        self.image_age.append(time.time() - time_to_s(message.header.stamp))

    def _on_latent(self, message: Any) -> None:
        self.latents.append(time.monotonic())
        self.latent_latency.append(message.latency_s)

    def _on_reasoning(self, message: Any) -> None:
        self.writing.note(time.monotonic(), message.seq, message.text, message.final)
        if message.final and message.n_tokens:
            self.tokens.append(message.tokens_per_second)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key == "real_time_factor":
                    self.factors.append(float(pair.value))


def _measure(arguments: argparse.Namespace, supervisor: Supervisor, values: Mapping[str, str]) -> Report:
    from std_srvs.srv import Trigger

    from instructvla_msgs.srv import SetInstruction
    from instructvla_ros.cli.bring_up import wait_until_active
    from instructvla_ros.cli.ros_client import RosClient

    with RosClient(arguments.namespace) as client:
        ears = _Ears(client, values["robot_name"])

        def check() -> None:
            ending = supervisor.ended()
            if ending is not None:
                raise OSError(f"the graph ended: {ending.reason}")

        wait_until_active(client, check, arguments.start_limit)
        request = SetInstruction.Request(instruction=_INSTRUCTION, think=True)
        answer = client.call(SetInstruction, "set_instruction", request)
        if not answer.accepted:
            raise ValueError(f"the instruction was refused: {answer.message}")
        time.sleep(_SETTLE_S)
        processes = {name: psutil.Process(pid) for name, pid in supervisor.pids.items()}
        before, began_s = _cpu_s(processes), time.monotonic()
        ears.forget()
        time.sleep(arguments.seconds)
        seconds, after = time.monotonic() - began_s, _cpu_s(processes)
        check()
        client.call(Trigger, "stop", Trigger.Request())
    return Report(
        seconds=seconds,
        cores=os.cpu_count() or 1,
        checkpoint=values["checkpoint"],
        text_seconds=ears.writing.seconds,
        tokens_per_second=sum(ears.tokens) / max(1, len(ears.tokens)),
        chunk_rate_hz=len(ears.chunks) / seconds,
        chunk_rate_while_writing_hz=ears.writing.rate_hz(ears.chunks),
        chunk_latency=spread(ears.chunk_latency),
        image_age=spread(ears.image_age),
        latent_rate_hz=len(ears.latents) / seconds,
        latent_latency=spread(ears.latent_latency),
        goal_rate_hz=rate_hz(ears.goals),
        longest_goal_gap_periods=longest_gap_s(ears.goals) / _GOAL_PERIOD_S,
        joint_state_rate_hz=rate_hz(ears.joints),
        longest_joint_state_gap_ms=longest_gap_s(ears.joints) * 1e3,
        steps_per_second=len(ears.steps) / seconds,
        real_time_factor=sum(ears.factors) / max(1, len(ears.factors)),
        cpu_share={name: (after[name] - before[name]) / seconds for name in processes},
    )


def _cpu_s(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Processor seconds used so far, by process."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
