"""The one recorder: subscribes to what a run consists of and writes every message as it was on the wire.

Topics are taken up when their first publisher appears, with a profile that hears all of them. Callbacks only queue; the
bag's own thread compresses pictures and writes. Without an error no message is lost: what the queue or DDS had to drop
is counted and told.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.parameter import parameter_value_to_python
from std_msgs.msg import String
from std_srvs.srv import SetBool

from instructvla_msgs.srv import SetInstruction
from instructvla_ros.bags import pictures
from instructvla_ros.bags.definitions import DefinitionError
from instructvla_ros.bags.qos import listening_profile, to_bag
from instructvla_ros.bags.roles import NOTE
from instructvla_ros.bags.writer import BagWriter, WriterState
from instructvla_ros.cli.ros_client import NODE_PREFIX
from instructvla_ros.nodes import qos
from instructvla_ros.policy.instructions import InstructionError, check_instruction

SCAN_PERIOD_S = 0.2
RELATIVE = {
    "reasoning": "reasoning", "latent": "latent_action", "chunk": "action_chunk", "delta": "ee_delta",
    "safety": "safety_state", "mark": "episode", "label": "instruction", "note": "annotation",
}  # fmt: skip
"""Role -> topic in the project's namespace."""
COMMANDS = {
    "trajectory_msgs/msg/JointTrajectory": ("joint_trajectory",),
    "geometry_msgs/msg/PoseStamped": ("target_pose", "pose_target_cmds"),
    "geometry_msgs/msg/TwistStamped": ("delta_twist_cmds", "twist"),
}
"""What arms other than Interbotix's are told is known by its type and the last part of the topic's name."""
_FURTHER = ("gripper_command", "estop", "sim/task_status", "/diagnostics")


@dataclass(frozen=True)
class RecordingPlan:
    """What to record: the run's topics, `further` ones by name, or everything that there is.

    Images become JPEG of `jpeg_quality` on `<topic>/compressed`, at most `max_image_hz` (0: all); 0 keeps them raw.
    """

    joint_states_topic: str = "/wx250s/joint_states"
    camera_topic: str = "/camera/camera/color/image_raw"
    wrist_topic: str = "/wrist/image_raw"
    further: tuple[str, ...] = ()
    everything: bool = False
    jpeg_quality: int = pictures.JPEG_QUALITY
    max_image_hz: float = 0.0

    def topics(self) -> dict[str, str]:
        """Topic -> its role, "" where it has none; names without / are in the namespace of the node."""
        robot = self.joint_states_topic.rpartition("/")[0]  # the Interbotix driver hears its commands beside them
        found = {topic: role for role, topic in RELATIVE.items()}
        found |= {self.camera_topic: "primary", self.wrist_topic: "wrist", self.joint_states_topic: "joints"}
        found[f"{robot}/commands/joint_group"] = "command"
        infos = [f"{t.rsplit('/', 1)[0]}/camera_info" for t in (self.camera_topic, self.wrist_topic)]
        for topic in (*_FURTHER, f"{robot}/commands/joint_single", *infos, *self.further):
            found.setdefault(topic, "")
        return found


def message_class(type_name: str) -> Any:
    """The class of package/msg/Name; raises ImportError or AttributeError where it is not installed."""
    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


@dataclass
class _Taken:
    """A topic that is being recorded. `raw` holds for an image topic whose pictures cannot be JPEG."""

    name: str
    type_name: str
    profiles: Sequence[Any]
    subscription: Any = None
    raw: bool | None = None
    next_s: float = 0.0
    received: int = 0


@dataclass
class _Asked:
    """A node whose parameters are waited for: clients for their names and values, and whether it was asked already."""

    names: Any
    values: Any
    listing: bool = False


@dataclass
class _Graph:
    """What is noted of the running graph beside its messages."""

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, _Asked] = field(default_factory=dict)


class Recorder:
    """Give it a spinning node; `close` ends the bag. Callbacks run in the node's executor, `on_jpeg` (topic, JPEG,
    receive time ns) in the bag's thread."""

    def __init__(
        self,
        node: Any,
        writer: BagWriter,
        plan: RecordingPlan | None = None,
        *,
        on_jpeg: Callable[[str, bytes, int], None] = lambda *_: None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._node, self.writer, self.plan = node, writer, plan or RecordingPlan()
        self._on_jpeg, self._clock_ns = on_jpeg, clock_ns
        self._wanted = {node.resolve_topic_name(t): role for t, role in self.plan.topics().items()}
        self._taken: dict[str, _Taken] = {}
        self._refused: set[str] = set()
        self._graph = _Graph()
        self.lost = 0
        """Messages that DDS reports as lost before they reached the recorder."""
        self._mark = node.create_publisher(String, "episode", qos.EPISODE_MARK)
        node.create_service(SetInstruction, "recorder/begin_episode", self._on_begin)
        node.create_service(SetBool, "recorder/end_episode", self._on_end)
        self._timer = node.create_timer(SCAN_PERIOD_S, self.scan)
        self.scan()

    @property
    def received(self) -> Mapping[str, int]:
        """Messages heard so far, by topic."""
        return {taken.name: taken.received for taken in self._taken.values()}

    def scan(self) -> None:
        """Take up topics that have a publisher now; ask new nodes of the graph for their parameters."""
        for topic, kinds in sorted(self._node.get_topic_names_and_types()):
            if len(kinds) == 1 and self._is_wanted(topic, kinds[0]) and not self._has_twin(topic, kinds[0]):
                offered = self._node.get_publishers_info_by_topic(topic)
                if offered:
                    self._take(topic, kinds[0], [info.qos_profile for info in offered])
        self._ask_nodes()

    def _is_wanted(self, topic: str, type_name: str) -> bool:
        if topic in self._taken or topic in self._refused:
            return False
        commands = topic.rsplit("/", 1)[-1] in COMMANDS.get(type_name, ())
        return topic in self._wanted or commands or (self.plan.everything and not topic.startswith("/rosout"))

    def _has_twin(self, topic: str, type_name: str) -> bool:
        """Whether the same pictures are recorded under the same name already: raw ones made JPEG go where
        image_transport publishes its own."""
        if not self.plan.jpeg_quality:
            return False
        if type_name == pictures.IMAGE:
            return _compressed(topic) in self._taken
        raw = self._taken.get(topic.removesuffix("/compressed")) if topic.endswith("/compressed") else None
        return raw is not None and raw.type_name == pictures.IMAGE and not raw.raw

    def close(self) -> WriterState:
        """Stop listening, write what is queued and the note; safe to call twice."""
        self._node.destroy_timer(self._timer)
        for taken in self._taken.values():
            if taken.subscription is not None:
                self._node.destroy_subscription(taken.subscription)
                taken.subscription = None
        self.writer.note(NOTE, json.dumps(self._note(), sort_keys=True))
        return self.writer.close()

    # Topics.

    def _take(self, topic: str, type_name: str, offered: Sequence[Any]) -> None:
        taken = _Taken(topic, type_name, offered)
        try:
            kind = message_class(type_name)
            if type_name != pictures.IMAGE or not self.plan.jpeg_quality:
                taken.raw = True
                self.writer.add_topic(topic, type_name, [to_bag(profile) for profile in offered])
        except (ImportError, AttributeError, DefinitionError) as error:
            self._refused.add(topic)
            self._node.get_logger().warning(f"{topic} is not recorded: its type {type_name} is not installed ({error})")
            return
        self._taken[topic] = taken
        events = SubscriptionEventCallbacks(message_lost=partial(self._on_lost, topic), use_default_callbacks=False)
        taken.subscription = self._node.create_subscription(
            kind, topic, partial(self._on_message, taken), listening_profile(offered), raw=True, event_callbacks=events
        )

    def _on_message(self, taken: _Taken, data: bytes) -> None:
        now_ns = self._clock_ns()
        taken.received += 1
        if taken.raw:
            self.writer.put(taken.name, now_ns, bytes(data))
            return
        if self.plan.max_image_hz and now_ns * 1e-9 < taken.next_s:
            return
        message = pictures.read_image(bytes(data))
        if taken.raw is None:
            taken.raw = not pictures.can_compress(message)
            name, kind = (taken.name, taken.type_name) if taken.raw else (_compressed(taken.name), pictures.COMPRESSED)
            self.writer.add_topic(name, kind, [to_bag(profile) for profile in taken.profiles])
            if taken.raw:
                self._node.get_logger().info(f"{taken.name} has {message.encoding} images: recorded as they are")
                self.writer.put(taken.name, now_ns, bytes(data))
                return
        if self.plan.max_image_hz:
            taken.next_s = now_ns * 1e-9 + 0.95 / self.plan.max_image_hz
        self.writer.put_later(
            _compressed(taken.name), now_ns, partial(self._compressed, taken.name, message, now_ns), len(data)
        )

    def _compressed(self, topic: str, message: Any, now_ns: int) -> bytes:
        """In the bag's thread."""
        data, jpeg = pictures.compress(message, self.plan.jpeg_quality)
        self._on_jpeg(topic, jpeg, now_ns)
        return data

    def _on_lost(self, topic: str, event: Any) -> None:
        if not event.total_count_change:  # some events only tell that there is none
            return
        self.lost += int(event.total_count_change)
        self._node.get_logger().warning(f"{topic}: DDS lost messages, {self.lost} so far", throttle_duration_sec=5.0)

    # Marks.

    def _on_begin(self, request: Any, response: Any) -> Any:
        try:
            text = check_instruction(request.instruction)
        except InstructionError as error:
            response.accepted, response.message = False, str(error)
            return response
        self._mark.publish(String(data=json.dumps({"mark": "begin", "instruction": text})))
        response.accepted, response.message = True, f"episode begins: {text}"
        return response

    def _on_end(self, request: Any, response: Any) -> Any:
        self._mark.publish(String(data=json.dumps({"mark": "end", "success": bool(request.data)})))
        response.success, response.message = True, "episode ends"
        return response

    # Parameters.

    def _ask_nodes(self) -> None:
        namespace, asked = self._node.get_namespace().rstrip("/"), self._graph.asked
        there = {
            f"{where.rstrip('/')}/{name}"
            for name, where in self._node.get_node_names_and_namespaces()
            if f"{where}/".startswith(f"{namespace}/") and not name.startswith(NODE_PREFIX)
        }
        unknown = there - {self._node.get_fully_qualified_name()} - self._graph.parameters.keys()
        for full in asked.keys() - unknown:  # it has answered, or is gone
            self._node.destroy_client(asked[full].names)
            self._node.destroy_client(asked.pop(full).values)
        for full in sorted(unknown - asked.keys()):
            asked[full] = _Asked(
                self._node.create_client(ListParameters, f"{full}/list_parameters"),
                self._node.create_client(GetParameters, f"{full}/get_parameters"),
            )
        for full, node in asked.items():
            if not node.listing and node.names.service_is_ready() and node.values.service_is_ready():
                node.listing = True
                answer = node.names.call_async(ListParameters.Request())
                answer.add_done_callback(partial(self._on_listed, full))

    def _on_listed(self, full: str, future: Any) -> None:
        if full not in self._graph.asked:  # it has gone since it answered, and the clients with it
            return
        names = list(future.result().result.names)
        answer = self._graph.asked[full].values.call_async(GetParameters.Request(names=names))
        answer.add_done_callback(partial(self._on_values, full, names))

    def _on_values(self, full: str, names: Sequence[str], future: Any) -> None:
        values = [parameter_value_to_python(value) for value in future.result().values]
        self._graph.parameters[full] = {
            name: list(value) if isinstance(value, tuple) or hasattr(value, "tolist") else value
            for name, value in zip(names, values, strict=False)
        }

    def _note(self) -> dict[str, Any]:
        roles = {}
        for topic, role in self._wanted.items():
            taken = self._taken.get(topic) or self._taken.get(_compressed(topic))
            if role and taken is not None:
                roles[role] = taken.name if taken.raw else _compressed(topic)
        state = self.writer.state
        checkpoints = [values.get("checkpoint") for values in self._graph.parameters.values()]
        return {
            "roles": roles,
            "images": f"jpeg {self.plan.jpeg_quality}" if self.plan.jpeg_quality else "raw",
            "parameters": self._graph.parameters,
            "manifest": next((m for m in map(_manifest, checkpoints) if m), {}),
            "lost": self.lost,
            "dropped": state.dropped,
        }


def _compressed(topic: str) -> str:
    return f"{topic}/compressed"


def _manifest(checkpoint: Any) -> dict[str, Any]:
    """A checkpoint's manifest, where its folder is on this machine."""
    path = Path(str(checkpoint or "")) / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if checkpoint and path.is_file() else {}
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
