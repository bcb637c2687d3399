"""One demonstration run, seen from outside: wait for the graph, give the instruction, record, wait for the verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from std_msgs.msg import String
from std_srvs.srv import Trigger

from instructvla_msgs.msg import Reasoning, SafetyState
from instructvla_msgs.srv import SetInstruction
from instructvla_ros.bags.recorder import Recorder, RecordingPlan
from instructvla_ros.bags.writer import BagWriter
from instructvla_ros.cli.bring_up import wait_until_active
from instructvla_ros.cli.film import Frame
from instructvla_ros.cli.ros_client import RosClient
from instructvla_ros.cli.streaming import TextStream
from instructvla_ros.cli.timeline import Timeline
from instructvla_ros.cli.view import mode_name
from instructvla_ros.nodes import qos
from instructvla_ros.policy.task_status import TaskStatus, TaskWatch

_POLL_S = 0.1
_FILM_HZ = 10.0
_SETTLE_S = 1.0  # film on for a moment after the end


@dataclass(frozen=True)
class Outcome:
    """How it ended. `why` explains a failure; `took_s` counts from the instruction to the verdict."""

    status: TaskStatus
    text: str
    took_s: float
    why: str = ""

    @property
    def success(self) -> bool:
        """The simulator's own check held at the end."""
        return self.status.success and not self.why


class DemoSession:
    """Use within `with client`. Callbacks run in the client's thread, the public methods in the caller's.

    `check` raises when the graph has ended, and so does this when the recording has: film and bag are what it is for.
    `write` prints a piece of text.
    """

    def __init__(
        self,
        client: RosClient,
        folder: Path,
        values: dict[str, str],
        check: Callable[[], None],
        write: Callable[[str], None],
    ) -> None:
        self._client, self._check_graph = client, check
        self.timeline = Timeline()
        self.watch = TaskWatch()
        self.said_at_s = 0.0
        """When the instruction was given, on the clock of the frames."""
        self._fault = ""
        self._mode = ""
        self._written = threading.Event()
        self._stream = TextStream(write, self._written.set)
        self.cameras = (values["camera_topic"], values["wrist_topic"])
        self.frames: dict[str, list[Frame]] = {topic: [] for topic in self.cameras}
        """Frames of each camera as they were recorded, in the bag's thread."""
        joint_states = values.get("joint_states_topic") or f"/{values['robot_name']}/joint_states"
        plan = RecordingPlan(joint_states, *self.cameras, max_image_hz=_FILM_HZ)
        self._began_ns = time.time_ns()
        self.recorder = Recorder(client.node, BagWriter(folder / "bag"), plan, on_jpeg=self._on_jpeg)
        client.subscribe(Reasoning, "reasoning", self._on_reasoning, qos.REASONING)
        client.subscribe(String, "sim/task_status", self._on_status, qos.TASK_STATUS)
        client.subscribe(SafetyState, "safety_state", self._on_safety, qos.SAFETY_STATE)

    def now_s(self) -> float:
        """Seconds since the recording began: the clock of the frames."""
        return (time.time_ns() - self._began_ns) * 1e-9

    # Callbacks.

    def _on_jpeg(self, topic: str, jpeg: bytes, received_ns: int) -> None:
        self.frames[topic].append(Frame(jpeg, (received_ns - self._began_ns) * 1e-9))

    def _on_reasoning(self, message: Reasoning) -> None:
        self._stream.on_message(message)
        now_s = self.now_s()
        self.timeline.note("instruction", now_s, message.instruction)
        if message.text:
            self.timeline.note("reasoning", now_s, message.text)

    def _on_status(self, message: String) -> None:
        self.watch.on_message(message.data)
        self._note_phase()

    def _on_safety(self, message: SafetyState) -> None:
        self._mode = mode_name(message.mode)
        latched = message.mode in (SafetyState.MODE_FAULT, SafetyState.MODE_STOPPED)
        self._fault = f"{message.fault_id} {message.reason}".strip() if latched else ""
        self._note_phase()

    def _note_phase(self) -> None:
        self.timeline.note("phase", self.now_s(), phase_of(self.watch.status, self._mode))

    # Steps.

    def _check(self) -> None:
        self._check_graph()
        ended = self.recorder.writer.state.ended
        if ended:
            raise OSError(f"the recording ended: {ended}")

    def wait_until_active(self, limit_s: float) -> None:
        """Wait for all nodes, the simulator's verdict and the primary camera.

        Raises TimeoutError with what the nodes said, or ValueError when the task cannot be judged.
        """
        wait_until_active(self._client, self._check, limit_s, self._missing)
        problem = self.watch.status.details.get("problem")
        if problem:
            raise ValueError(f"{problem}. Or say with --check what counts as done")

    def _missing(self) -> str:
        if not self.watch.status.details:
            return "no task status from the simulator"
        return "" if self.frames[self.cameras[0]] else f"no image on {self.cameras[0]}"

    def say(self, instruction: str, think: bool) -> None:
        """Give the instruction by the service; raises ValueError when it is refused."""
        self.said_at_s = self.now_s()
        request = SetInstruction.Request(instruction=instruction, think=think)
        response = self._client.call(SetInstruction, "set_instruction", request)
        if not response.accepted:
            raise ValueError(f"the instruction was refused: {response.message}")
        self._stream.follow(int(response.instruction_id))

    def wait_for_outcome(self, limit_s: float) -> Outcome:
        """Wait for success, a latched fault or the time limit; then stop the arm and film on for a moment."""
        began_s = time.monotonic()
        why = f"not done within {limit_s:.0f} s"
        while time.monotonic() - began_s < limit_s:
            self._check()
            if self.watch.status.success:
                why = ""
                break
            if self._fault:
                why = f"the controller stopped: {self._fault}"
                break
            time.sleep(_POLL_S)
        took_s = time.monotonic() - began_s
        self._stream.mute()
        # Done is done: without this the policy would go on with an instruction that has been carried out.
        self._client.call(Trigger, "stop", Trigger.Request())
        time.sleep(_SETTLE_S)
        if not why and not self.watch.status.success:
            why = "the goal was reached but did not last"
        return Outcome(self.watch.status, self._stream.first_text or self._stream.text, took_s, why)

    def release(self) -> None:
        """Leave the stop, so that another instruction may follow."""
        self._client.call(Trigger, "reset", Trigger.Request())


def phase_of(status: TaskStatus, mode: str) -> str:
    """What is going on, in words for the film."""
    details = status.details
    if status.success:
        return "success"
    if details.get("holding"):
        return f"holding the {details['holding']}"
    if mode == "executing" and details.get("approached"):
        return f"at the {details['approached']}"
    return mode
