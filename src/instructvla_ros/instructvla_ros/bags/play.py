"""Play a recording's observations into the running graph, at the rate at which they came, with /clock.

Only what the policy looks at is played (cameras, joint states, and the instructions, which are given by the service):
what it answers must come from the graph that runs now. Times on /clock are the recorder's. Where a controller runs,
nothing is played: it would move its arm by what the recording shows.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from instructvla_msgs.srv import SetInstruction
from instructvla_ros.bags import pictures
from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import Episode, find_episodes
from instructvla_ros.bags.recorder import message_class
from instructvla_ros.bags.replay import ReplayOptions
from instructvla_ros.bags.roles import Roles, find_roles
from instructvla_ros.bags.types import Record
from instructvla_ros.policy.ingest import compressed_to_rgb

CLOCK_PERIOD_S = 0.02
RELIABLE = 10
"""A reliable publisher of this depth: best-effort and reliable subscribers hear it alike."""
_LOOK_S = 1.0  # for a controller and a manager beside who takes instructions: DDS finds them in a fraction of it
_POLL_S = 0.1
_ANSWER_S = 2.0  # a request is lost where DDS does not know the new process yet: ask again rather than wait
_ACCEPT_S = 5.0
_SAFETY_STATE = "instructvla_msgs/msg/SafetyState"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Played:
    """What was played, and accepted of the instructions. `latest_s` is how late the latest message was against its time
    in the recording."""

    messages: int
    instructions: int
    latest_s: float


class Player:
    """Give it a node that spins elsewhere; `play` blocks. `ended` is asked between messages and ends it early."""

    def __init__(
        self,
        node: Any,
        bag: Bag,
        options: ReplayOptions,
        *,
        rate: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        if not rate > 0.0:
            raise ValueError(f"rate {rate}; expected a number above 0, 1 is the recorded speed")
        self._node, self._bag, self._rate = node, bag, rate
        self._clock, self._sleep, self._ended = clock, sleep, ended
        self._decoder = Decoder(bag)
        self.roles: Roles = find_roles(bag, options.topics)
        self._episodes = find_episodes(bag, self._decoder, self.roles, options.instruction)
        self._think = options.think
        self._publishers = {name: self._publisher(name) for name in sorted(self._topics())}
        self._clock_publisher = node.create_publisher(Clock, "/clock", 10)
        self._say = node.create_client(SetInstruction, "set_instruction")
        self._manager = node.create_client(Trigger, "lifecycle_manager_node/is_active")

    def _topics(self) -> set[str]:
        observed = self.roles.topics("primary", "wrist", "joints")
        infos = {f"{raw_topic(topic).rsplit('/', 1)[0]}/camera_info" for topic in self.roles.topics("primary", "wrist")}
        return observed | {topic for topic in infos if topic in self._bag.topics}

    def _publisher(self, topic: str) -> Any:
        stored = self._bag.topics[topic]
        compressed = stored.type_name == pictures.COMPRESSED
        kind = message_class(pictures.IMAGE if compressed else stored.type_name)
        return self._node.create_publisher(kind, raw_topic(topic) if compressed else topic, RELIABLE)

    def wait_for_graph(self, limit_s: float) -> bool:
        """Whether the graph comes to take instructions within a time; without it only the observations are played.

        Raises ValueError where a controller runs.
        """
        end_s, look_until_s = self._clock() + limit_s, math.inf
        while not self._ended():
            self._refuse_controller()
            now_s = self._clock()
            if self._say.service_is_ready():
                look_until_s = min(look_until_s, now_s + _LOOK_S)
                if now_s >= look_until_s and self._active():
                    return True
            if now_s >= end_s:
                break
            self._sleep(_POLL_S)
        return False

    def _active(self) -> bool:
        """Whether the models are loaded: the service is there before that. Nodes started by hand have no manager."""
        if not self._manager.service_is_ready():
            return True
        answer = self._ask(self._manager, Trigger.Request())
        return answer is not None and answer.success

    def _refuse_controller(self) -> None:
        """Of any namespace: the names of the robot's topics have none."""
        for topic, kinds in self._node.get_topic_names_and_types():
            if _SAFETY_STATE in kinds and self._node.count_publishers(topic):
                raise ValueError(
                    f"a controller runs (it publishes {topic}) and would move its arm by what the recording shows; "
                    "end its graph, or set another ROS_DOMAIN_ID, and play into the policy's nodes alone: "
                    "instructvla up replay bag:=BAG live:=true"
                )

    def _ask(self, client: Any, request: Any) -> Any:
        """The answer of a service; None where none comes in time or playing is to end."""
        future, end_s = client.call_async(request), self._clock() + _ANSWER_S
        while not future.done():
            if self._ended() or self._clock() >= end_s:
                client.remove_pending_request(future)
                return None
            self._sleep(CLOCK_PERIOD_S)
        return future.result()

    def play(self) -> Played:
        """Play it once, from the first message to the last."""
        begin_s, begin_ns = self._clock(), self._bag.start_ns
        messages = instructions = 0
        latest_s = 0.0
        waiting = list(self._episodes)
        for record in self._bag.messages(set(self._publishers)):
            due_s = begin_s + (record.stamp_ns - begin_ns) * 1e-9 / self._rate
            if not self._wait(due_s, begin_s, begin_ns):
                break
            while waiting and waiting[0].start_ns <= record.stamp_ns:
                asked_s = self._clock()
                instructions += self._instruct(waiting.pop(0))
                took_s = self._clock() - asked_s  # the recording stands still until the instruction is followed
                begin_s, due_s = begin_s + took_s, due_s + took_s
            latest_s = max(latest_s, self._clock() - due_s)
            data = self._serialized(record)
            if data is not None:
                self._publishers[record.topic].publish(data)
                messages += 1
        return Played(messages, instructions, latest_s)

    def _wait(self, due_s: float, begin_s: float, begin_ns: int) -> bool:
        """Wait for a message's turn and let /clock run meanwhile; False where playing is to end."""
        while not self._ended():
            now_s = self._clock()
            shown_ns = begin_ns + round((min(now_s, due_s) - begin_s) * 1e9 * self._rate)
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(shown_ns, 10**9)
            self._clock_publisher.publish(message)
            if now_s >= due_s:
                return True
            self._sleep(min(due_s - now_s, CLOCK_PERIOD_S))
        return False

    def _instruct(self, episode: Episode) -> bool:
        """Whether the instruction was accepted. One that is refused is given again for a while: the node may wake yet.

        Raises ValueError where a controller runs by now.
        """
        self._refuse_controller()
        if not self._say.service_is_ready():
            _log.warning("nobody offers %s; the instruction %r was not given", self._say.srv_name, episode.instruction)
            return False
        think = episode.think if self._think is None else self._think
        request = SetInstruction.Request(instruction=episode.instruction, think=think)
        end_s = self._clock() + _ACCEPT_S
        while not self._ended():
            answer = self._ask(self._say, request)
            if answer is not None and answer.accepted:
                return True
            if self._clock() >= end_s:
                why = f"{self._say.srv_name} did not answer" if answer is None else answer.message
                _log.warning("the instruction %r was not accepted: %s", episode.instruction, why)
                break
            self._sleep(_POLL_S)
        return False

    def _serialized(self, record: Record) -> bytes | None:
        """The bytes to publish: as they were, or a raw image in place of a compressed one."""
        if record.type_name != pictures.COMPRESSED:
            return record.data
        message = self._decoder.decode(record)
        try:
            return pictures.raw(message, compressed_to_rgb(message)) if message is not None else None
        except ValueError as error:
            self._bag.note(record.topic, str(error))
            return None


def raw_topic(topic: str) -> str:
    """The topic of the raw images whose compressed ones are on `topic`."""
    return topic.removesuffix("/compressed")
