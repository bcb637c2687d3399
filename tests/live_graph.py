"""The whole graph in processes of its own, as `instructvla up widowx --sim` starts it, and somebody who asks.

For tests: a ROS domain of its own, cheap pictures, no process gives way to another (a test machine is busy anyway).
"""

import json
import os
import signal
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from instructvla_msgs.msg import ActionChunk, EndEffectorDelta, LatentAction, Reasoning, SafetyState
from instructvla_msgs.srv import SetInstruction
from instructvla_ros.cli.fault import set_fault
from instructvla_ros.cli.ros_client import RosClient
from instructvla_ros.faults.engine import Fault
from instructvla_ros.graph import environment
from instructvla_ros.graph.command import node_process
from instructvla_ros.graph.description import resolve
from instructvla_ros.graph.supervisor import Supervisor
from instructvla_ros.graph.widowx import WIDOWX
from instructvla_ros.nodes import qos

LIMIT_S = 60.0
START_LIMIT_S = 200.0
Parameters = Mapping[str, Mapping[str, Any]]
CHEAP: Parameters = {
    "sim_node": {"multisampling": 0, "primary_rate_hz": 8.0},
    # A machine that runs other tests beside this one is slow: only the faults that a test makes should show.
    "widowx_controller_node": {
        "safety.max_image_age_s": 3.0,
        "safety.max_joint_state_age_s": 1.0,
        "safety.max_joint_silence_s": 30.0,
        "safety.abort_image_age_s": 120.0,
        "watch.silence_s": 3.0,
        "watch.bond_s": 20.0,
        "watch.clock_stop_s": 10.0,
    },
    "action_expert_node": {
        "max_image_age_s": 2.0,
        "max_skew_s": 1.0,
        "latent.max_age_s": 20.0,
        "controller_silence_s": 3.0,
    },
    "reasoning_node": {"max_image_age_s": 3.0, "reasoning_period": 3, "max_new_tokens": 12},
    "lifecycle_manager_node": {"attempts": 1000},
}


def supervisor_of(names: set[str] | None, log: Any, parameters: Parameters, **given: str) -> Supervisor:
    """A supervisor of the named nodes of the simulated graph, or of all, with parameters by node."""
    processes = []
    for node in resolve(WIDOWX, {"sim": "true", **given}):
        if names is None or node.name in names:
            settings = (*node.parameters, *parameters.get(node.name, {}).items())
            processes.append(node_process(replace(node, parameters=settings, nice=0)))
    variables = environment.apply_defaults(dict(os.environ))
    return Supervisor(processes, variables, output=log.fileno(), spare="faults" in given)


INSTRUCTION = "put the carrot on the plate"


@contextmanager
def with_relay(
    folder: Path, domain: int, parameters: Parameters = CHEAP, height_m: float = 0.0, **given: str
) -> "Iterator[LiveGraph]":
    """A graph with the fault relay and a policy of random weights, active. `height_m`: of random_checkpoint."""
    random_checkpoint.write(folder / "checkpoint", "tiny", height_m=height_m)
    given |= {"checkpoint": str(folder / "checkpoint"), "task_instruction": INSTRUCTION, "faults": "true"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        with LiveGraph(folder, parameters=parameters, **given) as made:
            assert made.until(lambda: "all nodes are active" in made.log(), START_LIMIT_S), made.log()
            yield made


class LiveGraph:
    """Use with `with`. What was heard is kept by topic, with its time on the steady clock; `until` waits for something
    to become true."""

    def __init__(
        self, folder: Path, names: set[str] | None = None, parameters: Parameters = CHEAP, **given: str
    ) -> None:
        self.log_path = folder / "nodes.log"
        self._log = open(self.log_path, "wb")  # noqa: SIM115 - closed by __exit__
        self.supervisor = supervisor_of(names, self._log, parameters, **given)
        self.heard: dict[str, list[Any]] = {}
        self.times: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "LiveGraph":
        self.supervisor.start()
        self.pids = self.supervisor.pids
        self.client = RosClient()
        self.client.__enter__()
        for kind, topic, profile in (
            (Reasoning, "reasoning", qos.REASONING),
            (LatentAction, "latent_action", qos.LATENT_ACTION),
            (ActionChunk, "action_chunk", qos.ACTION_CHUNK),
            (EndEffectorDelta, "ee_delta", qos.EE_DELTA),
            (SafetyState, "safety_state", qos.SAFETY_STATE),
            (String, "sim/task_status", qos.TASK_STATUS),
            (DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS),
            (JointState, "/wx250s/joint_states", qos.JOINT_STATES),
            (JointGroupCommand, "/wx250s/commands/joint_group", qos.OBSERVED_COMMANDS),
            (JointSingleCommand, "/wx250s/commands/joint_single", qos.OBSERVED_COMMANDS),
        ):
            self.heard[topic], self.times[topic] = [], []
            self.client.subscribe(kind, topic, lambda message, t=topic: self._keep(t, message), profile)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.__exit__(None, None, None)
        self.supervisor.shutdown()
        self._log.close()

    def _keep(self, topic: str, message: Any) -> None:
        self.heard[topic].append(message)
        self.times[topic].append(time.monotonic())

    def check(self) -> None:
        """Raises when a node has ended."""
        ending = self.supervisor.ended()
        assert ending is None, f"{ending}\n{self.log()}"

    def log(self) -> str:
        """What the nodes have printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> bool:
        """Wait for a condition; false when the time is over."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if condition():
                return True
            self.check()
            time.sleep(0.02)
        return False

    def news(self, topic: str, count: int = 1) -> list[Any]:
        """The next messages of a topic; fails when they do not come."""
        seen = len(self.heard[topic])
        assert self.until(lambda: len(self.heard[topic]) >= seen + count), f"nothing on {topic}\n{self.log()}"
        return self.heard[topic][seen:]

    def since(self, topic: str, since_s: float) -> list[tuple[float, Any]]:
        """What was heard on a topic from a time on, each with its time."""
        first = bisect_left(self.times[topic], since_s)
        times = self.times[topic][first:]
        return list(zip(times, self.heard[topic][first : first + len(times)], strict=True))

    def when(self, topic: str, since_s: float, condition: Callable[[Any], Any]) -> float:
        """When the first message from a time on came of which the condition is true; fails when none does."""

        def first() -> float:
            return next((at_s for at_s, message in self.since(topic, since_s) if condition(message)), 0.0)

        assert self.until(first), f"not heard on {topic}; {self.safety()}\n{self.log()}"
        return first()

    def quiet(self, topic: str, for_s: float) -> bool:
        """Whether nothing comes on a topic for so long."""
        seen = len(self.heard[topic])
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s:
            time.sleep(0.02)
        return len(self.heard[topic]) == seen

    # Asking.

    def trigger(self, service: str) -> Any:
        return self.client.call(Trigger, service, Trigger.Request(), LIMIT_S)

    def say(self, text: str, think: bool = True, limit_s: float = LIMIT_S) -> Any:
        request = SetInstruction.Request(instruction=text, think=think)
        return self.client.call(SetInstruction, "set_instruction", request, limit_s)

    def set(self, node: str, **values: Any) -> list[Any]:
        wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=wanted)
        return list(self.client.call(SetParameters, f"{node}/set_parameters", request, LIMIT_S).results)

    def transition(self, node: str, number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        return bool(self.client.call(ChangeState, f"{node}/change_state", request, START_LIMIT_S).success)

    def moves(self, instruction: str) -> None:
        """Give the instruction until the arm follows it.

        Given anew even to an arm that moves: after a fault that may be the rest of what it had been told.
        """

        def follows(number: int) -> bool:
            return (self.safety().instruction_id, self.safety().mode) == (number, SafetyState.MODE_EXECUTING)

        def moving() -> bool:
            with suppress(TimeoutError):  # a request to a process that was killed is never answered
                answer = self.say(instruction, think=False, limit_s=3.0)
                return answer.accepted and self.until(lambda: follows(answer.instruction_id), 10.0)
            return False

        assert self.until(moving, START_LIMIT_S), f"{self.safety()}\n{self.log()}"

    # Disturbing.

    def disturb(self, stream: str, fault: str) -> tuple[float, float]:
        """Tell the fault relay; the times between which it took effect."""
        before_s = time.monotonic()
        assert set_fault(self.client, stream, Fault.parse(fault)) == ""
        return before_s, time.monotonic()

    def send_signal(self, node: str, name: str) -> float:
        """Send a signal to a node's process; when."""
        os.kill(self.supervisor.pids[node], signal.Signals[f"SIG{name}"])
        return time.monotonic()

    @contextmanager
    def frozen(self, node: str) -> Iterator[float]:
        """A node whose process stands still meanwhile, and says nothing; since when."""
        try:
            yield self.send_signal(node, "STOP")
        finally:
            self.send_signal(node, "CONT")

    # Looking.

    def safety(self) -> SafetyState:
        """The newest state of the controller."""
        assert self.until(lambda: self.heard["safety_state"]), "no controller heard"
        return self.heard["safety_state"][-1]

    def holds(self, fault_id: str) -> SafetyState:
        """Waits until the controller holds because of this fault; its words."""
        states = self.heard["safety_state"]
        assert self.until(lambda: states and states[-1].fault_id == fault_id), f"{self.safety()}\n{self.log()}"
        state = next(m for m in reversed(states) if m.fault_id == fault_id)
        assert state.mode == SafetyState.MODE_HOLDING
        return state

    def status(self) -> dict[str, Any]:
        """The newest verdict of the simulator."""
        return dict(json.loads(self.news("sim/task_status")[-1].data))

    def diagnostics(self, node: str) -> DiagnosticStatus:
        """What a node last said of itself in /diagnostics; empty before it has said anything."""
        for message in reversed(self.heard["/diagnostics"]):
            for status in message.status:
                if status.name.endswith(node):
                    return status
        return DiagnosticStatus()

    def diagnosis(self, node: str) -> str:
        """The words of that."""
        return str(self.diagnostics(node).message)

    def goals(self, count: int) -> np.ndarray:
        """The next joint goals, (count, 6)."""
        return np.array([message.cmd for message in self.news("/wx250s/commands/joint_group", count)])

    def still(self) -> bool:
        """Whether the goals do not move any more."""
        return bool(np.ptp(self.goals(10), axis=0).max() < 1e-6)
