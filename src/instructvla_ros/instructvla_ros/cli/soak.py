"""instructvla bench soak: the simulated graph at full rate for a long time, with a random fault every so often."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from instructvla_ros.cli.soak_stats import (
    RECOVERY_BAR_S,
    CommandJudge,
    FollowsAgain,
    Injected,
    OrderSent,
    SoakReport,
    jitter_ms,
)
from instructvla_ros.cli.up import make_supervisor, parse_assignments, refuse_second
from instructvla_ros.faults.engine import Fault
from instructvla_ros.graph.description import argument_values
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.graph.widowx import WIDOWX

_INSTRUCTIONS = ("put the carrot on the plate", "pick up the carrot", "move the carrot near the plate")
_PERIOD_S = 0.02
_INSTRUCT_S = 20.0
_SETTLE_S = 10.0
_POLL_S = 0.05
_WEIGHED_FOR_S = 2.0
_LAST_LINES = 12
_ANSWER_S = 1.0  # a request to a process that was killed is never answered
_RECOVERY_LIMIT_S = 60.0
_STREAM_FAULTS = (
    ("image", "drop 1"),
    ("image", "freeze"),
    ("image", "corrupt"),
    ("image", "shift -5"),
    ("image", "delay 1"),
    ("joint_states", "drop 1"),
    ("joint_states", "corrupt 0.5"),
    ("joint_states", "delay 0.5"),
    ("latent_action", "drop 1"),
    ("latent_action", "corrupt"),
    ("action_chunk", "drop 1"),
    ("action_chunk", "corrupt"),
    ("action_chunk", "duplicate 3"),
    ("action_chunk", "delay 3"),
)
_KILLS = ("action_expert_node", "reasoning_node")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the soak's own arguments."""
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M", help="length, in minutes")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="time between faults, in seconds")
    parser.add_argument("--lasting", type=float, default=6.0, metavar="S", help="length of a fault, in seconds")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which order of faults")
    parser.add_argument(
        "--start-limit", type=float, default=120.0, metavar="S", help="longest start of the graph, in seconds"
    )
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--log", type=Path, default=None, metavar="FILE", help="keep what the nodes say")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of the graph")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Soak and print; returns 0 if all bars are met."""
    given = {"sim": "true", "faults": "true", "task_instruction": _INSTRUCTIONS[0]}
    given |= parse_assignments(arguments.arguments)
    with arguments.log.open("w+b") if arguments.log else tempfile.TemporaryFile() as log:
        supervisor = make_supervisor(WIDOWX, given, arguments.namespace, log.fileno(), spare=True)
        refuse_second(WIDOWX, given, arguments.namespace)
        supervisor.handle_signals()
        supervisor.start()
        try:
            report = _Soak(arguments, supervisor, argument_values(WIDOWX, given)["robot_name"]).report()
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


@dataclass
class _Heard:
    """The newest state of the controller."""

    mode: int = 0
    fault_id: str = ""
    instruction_id: int = 0


class _Soak:
    """One soak of a graph that was just started. Callbacks run in the client's thread, the rest in the caller's."""

    def __init__(self, arguments: argparse.Namespace, supervisor: Supervisor, robot_name: str) -> None:
        self._arguments, self._supervisor, self._robot_name = arguments, supervisor, robot_name
        self._judge, self._order, self._heard = CommandJudge(), OrderSent(), _Heard()
        self._goal_times: list[float] = []
        self._held: set[str] = set()
        self._dice = random.Random(arguments.seed)
        self._next_instruction_s, self._instruct_s, self._said = 0.0, _INSTRUCT_S, 0
        self._caller = ThreadPoolExecutor(1, "call")
        self._accepted: Callable[[int], None] = lambda _: None

    def report(self) -> SoakReport:
        """Run it."""
        from instructvla_ros.cli.bring_up import wait_until_active
        from instructvla_ros.cli.ros_client import RosClient

        with RosClient(self._arguments.namespace, message_info=True) as self._client:
            wait_until_active(self._client, self._check, self._arguments.start_limit)
            self._listen()
            self._wait(_SETTLE_S)
            memory, began_s = self._memory(), time.monotonic()
            self._goal_times.clear()
            faults = list(self._faults(began_s + 60.0 * self._arguments.minutes))
            seconds, after = time.monotonic() - began_s, self._memory()
        self._order.end()
        p99_ms, longest_ms = jitter_ms(self._goal_times, _PERIOD_S)
        growth = {
            name: after[name][1] / memory[name][1] - 1.0
            for name in after
            if name in memory and after[name][0] == memory[name][0]  # not of a process that was killed meanwhile
        }
        unsafe = tuple(self._judge.unsafe)
        return SoakReport(seconds, self._judge.goals, unsafe, tuple(faults), growth, p99_ms, longest_ms)

    def _faults(self, end_s: float) -> Iterator[Injected]:
        waiting: list[Callable[[], Injected]] = []
        while True:
            self._wait(min(self._arguments.every, max(0.0, end_s - time.monotonic())))
            if time.monotonic() >= end_s:
                return
            if not waiting:  # all of them once, before any comes again
                waiting = [lambda s=stream, f=fault: self._disturb(s, f) for stream, fault in _STREAM_FAULTS]
                waiting += [lambda n=node: self._kill(n) for node in _KILLS]
                waiting += [self._stop_and_reset]
                self._dice.shuffle(waiting)
            yield waiting.pop()()

    def _disturb(self, stream: str, fault: str) -> Injected:
        from instructvla_ros.cli.fault import set_fault

        with self._fault(f"{stream}: {fault}") as outcome:
            set_fault(self._client, stream, Fault.parse(fault))
            self._wait(self._arguments.lasting)
            set_fault(self._client, stream, Fault())
        return outcome[0]

    def _kill(self, node: str) -> Injected:
        follows = FollowsAgain(self._heard.instruction_id)
        self._held.clear()
        began_s = time.monotonic()
        os.kill(self._supervisor.pids[node], signal.SIGKILL)
        self._accepted = follows.accepted
        return self._recovered(
            f"kill {node}",
            began_s,
            lambda: follows.at(self._heard.instruction_id, executing=self._executing()),
            RECOVERY_BAR_S,
        )

    def _stop_and_reset(self) -> Injected:
        from std_srvs.srv import Trigger

        with self._fault("stop and reset") as outcome:
            self._client.call(Trigger, "stop", Trigger.Request())
            self._wait(self._arguments.lasting, instruct=False)
            self._client.call(Trigger, "reset", Trigger.Request())
        return outcome[0]

    @contextmanager
    def _fault(self, name: str) -> Iterator[list[Injected]]:
        """The time of a fault; afterwards the recovery from it is waited for and noted."""
        outcome: list[Injected] = []
        self._held.clear()
        began_s = time.monotonic()
        yield outcome
        outcome.append(self._recovered(name, began_s, self._executing))

    def _executing(self) -> bool:
        from instructvla_msgs.msg import SafetyState

        return self._heard.mode == SafetyState.MODE_EXECUTING and not self._heard.fault_id

    def _recovered(
        self, name: str, began_s: float, back: Callable[[], bool], instruct_s: float = _INSTRUCT_S
    ) -> Injected:
        """The fault has ended: give an instruction, and again every so often, until the arm is back."""
        from instructvla_msgs.msg import SafetyState

        ended_s = time.monotonic()
        took_s, self._next_instruction_s, self._instruct_s = math.inf, 0.0, instruct_s
        while time.monotonic() - ended_s < _RECOVERY_LIMIT_S:
            self._wait(_POLL_S)
            if back():
                took_s = time.monotonic() - ended_s
                break
            if self._heard.mode == SafetyState.MODE_FAULT:  # bad input that latches: somebody has to look, and reset
                self._reset()
        self._instruct_s = _INSTRUCT_S
        return Injected(name, ended_s - began_s, took_s, tuple(sorted(self._held)))

    def _reset(self) -> None:
        from std_srvs.srv import Trigger

        self._client.call(Trigger, "reset", Trigger.Request())
        self._next_instruction_s = 0.0

    def _wait(self, seconds: float, *, instruct: bool = True) -> None:
        """Wait; the arm is kept busy meanwhile."""
        end_s = time.monotonic() + seconds
        while True:
            self._check()
            if instruct and time.monotonic() >= self._next_instruction_s:
                self._instruct()
            left_s = end_s - time.monotonic()
            if left_s <= 0.0:
                return
            time.sleep(min(left_s, _POLL_S))

    def _instruct(self) -> None:
        from instructvla_msgs.srv import SetInstruction

        text = _INSTRUCTIONS[self._said % len(_INSTRUCTIONS)]
        try:
            request = SetInstruction.Request(instruction=text, think=True)
            answer = self._call(SetInstruction, "set_instruction", request, _ANSWER_S)
            accepted = answer.accepted
        except TimeoutError:
            accepted = False  # the node that would take it is the one that was killed
        if accepted:
            self._accepted(answer.instruction_id)
        self._said += int(accepted)
        self._next_instruction_s = time.monotonic() + (self._instruct_s if accepted else 0.2)

    def _call(self, kind: Any, service: str, request: Any, limit_s: float) -> Any:
        """Call a service; the supervisor goes on watching meanwhile, so that a killed node is started again at once."""
        called = self._caller.submit(self._client.call, kind, service, request, limit_s)
        try:
            while wait([called], _POLL_S).not_done:
                self._check()
        finally:
            wait([called])  # the client must not go before its call has ended
        return called.result()

    def _check(self) -> None:
        ending = self._supervisor.ended()
        if ending is not None:
            raise OSError(f"the graph ended: {ending.reason}")

    def _memory(self) -> dict[str, tuple[int, int]]:
        """Process id and resident bytes by node: the least of a short while's, for an image that is held is no growth.

        Of what `nice` runs, that is the same process.
        """
        least: dict[str, tuple[int, int]] = {}
        end_s = time.monotonic() + _WEIGHED_FOR_S
        while time.monotonic() < end_s:
            for name, pid in self._supervisor.pids.items():
                resident = psutil.Process(pid).memory_info().rss
                known = least.get(name)
                least[name] = (pid, min(resident, known[1]) if known and known[0] == pid else resident)
            self._wait(_POLL_S)
        return least

    def _listen(self) -> None:
        from interbotix_xs_msgs.msg import JointGroupCommand

        from instructvla_msgs.msg import SafetyState
        from instructvla_ros.nodes import qos

        topic = f"/{self._robot_name}/commands/joint_group"
        self._client.subscribe(JointGroupCommand, topic, self._on_goal, qos.OBSERVED_COMMANDS)
        self._client.subscribe(SafetyState, "safety_state", self._on_state, qos.SAFETY_STATE)

    def _on_goal(self, message: Any, info: dict[str, int]) -> None:
        sent_s = info["source_timestamp"] * 1e-9
        self._order.add(sent_s, lambda: self._judge.goal(sent_s, message.cmd))
        self._order.add(sent_s, lambda: self._goal_times.append(sent_s))

    def _on_state(self, message: Any, info: dict[str, int]) -> None:
        from instructvla_msgs.msg import SafetyState

        sent_s = info["source_timestamp"] * 1e-9
        stopped = message.mode in (SafetyState.MODE_STOPPED, SafetyState.MODE_FAULT)
        self._order.add(sent_s, lambda: self._judge.state(sent_s, stopped=stopped))
        if message.fault_id:
            self._held.add(message.fault_id)
        if message.fault_id == "F24":  # nothing is sent then, as it should be
            self._order.add(sent_s, lambda: self._goal_times.append(math.nan))
        self._heard.mode, self._heard.fault_id = message.mode, message.fault_id
        self._heard.instruction_id = message.instruction_id
