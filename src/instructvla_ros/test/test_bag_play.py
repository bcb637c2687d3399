"""A recording played into the policy's nodes: never beside a controller, and not before its instruction is followed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from instructvla_ros_bag_factory import recording, write

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")

from std_srvs.srv import Trigger  # noqa: E402

from instructvla_msgs.srv import SetInstruction  # noqa: E402
from instructvla_ros.bags.bag import Bag  # noqa: E402
from instructvla_ros.bags.play import Player  # noqa: E402
from instructvla_ros.bags.replay import ReplayOptions  # noqa: E402
from instructvla_ros.cli import main as cli_main  # noqa: E402
from instructvla_ros.cli import ros_client  # noqa: E402
from instructvla_ros.nodes.replay_node import ReplayNode  # noqa: E402

ACCEPTED = SetInstruction.Response(accepted=True)
INACTIVE = SetInstruction.Response(message="reasoning_node is inactive, not active.")
LOADING, ACTIVE = Trigger.Response(success=False), Trigger.Response(success=True)


class Service:
    """Stands in for a client: gives its answers in turn, the last one again and again; None is none at all."""

    srv_name = "/instructvla/set_instruction"

    def __init__(self, *answers: Any) -> None:
        self.answers, self.calls = list(answers), 0

    def service_is_ready(self) -> bool:
        return bool(self.answers)

    def call_async(self, _: Any) -> Any:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return SimpleNamespace(done=lambda: answer is not None, result=lambda: answer)

    def remove_pending_request(self, _: Any) -> None: ...


class Node:
    """Stands in for a node; notes when (s on its clock) which topic was published first."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.say, self.manager = Service(ACCEPTED), Service()
        self.controllers = 0
        self.first_s: dict[str, float] = {}

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def create_publisher(self, kind: Any, topic: str, _: Any) -> Any:
        return SimpleNamespace(publish=lambda _: self.first_s.setdefault(topic, self.now_s))

    def create_client(self, kind: Any, name: str) -> Service:
        return self.say if kind is SetInstruction else self.manager

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [("/left/safety_state", ["instructvla_msgs/msg/SafetyState"]), ("/tf", ["tf2_msgs/msg/TFMessage"])]

    def count_publishers(self, topic: str) -> int:
        return self.controllers if topic == "/left/safety_state" else 1


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "bag", recording(1.0))


@pytest.fixture
def player(node: Node, folder: Path) -> Iterator[Player]:
    with Bag(folder) as bag:
        yield Player(node, bag, ReplayOptions(), clock=node.clock, sleep=node.sleep)


def test_an_instruction_that_is_accepted_counts(player: Player, node: Node) -> None:
    assert player.wait_for_graph(5.0)
    assert player.play().instructions == 1 and node.say.calls == 1


def test_the_recording_waits_until_the_manager_says_that_the_models_are_loaded(player: Player, node: Node) -> None:
    node.manager.answers = [LOADING, None, LOADING, ACTIVE]
    assert player.wait_for_graph(60.0) and node.manager.calls == 4


def test_a_graph_that_does_not_become_active_is_waited_for_no_longer_than_allowed(player: Player, node: Node) -> None:
    node.manager.answers = [LOADING]
    assert not player.wait_for_graph(60.0) and 160.0 <= node.now_s < 161.0


def test_a_refused_instruction_is_given_again_and_the_recording_stands_still_meanwhile(
    player: Player, node: Node
) -> None:
    node.say.answers = [INACTIVE, None, INACTIVE, ACCEPTED]
    played = player.play()
    assert played.instructions == 1 and node.say.calls == 4
    assert played.latest_s < 0.02  # s; the waiting for the answer makes nothing late
    assert node.now_s > 103.0  # s; a recording of 1 s and an answer that was waited for 2 s


def test_an_instruction_that_is_never_accepted_is_told_with_the_reason_and_not_counted(
    player: Player, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.say.answers = [INACTIVE]
    with caplog.at_level(logging.WARNING):
        played = player.play()
    assert played.instructions == 0 and played.messages > 0
    assert "was not accepted: reasoning_node is inactive" in caplog.text


def test_nothing_is_played_beside_a_controller_of_any_namespace(player: Player, node: Node) -> None:
    node.controllers = 1
    with pytest.raises(
        ValueError, match=r"a controller runs \(it publishes /left/safety_state\).*up replay bag:=BAG live"
    ):
        player.wait_for_graph(5.0)
    assert node.first_s == {}


def test_a_controller_that_comes_while_the_graph_is_looked_at_is_found(player: Player, node: Node) -> None:
    def sleep(seconds: float) -> None:
        node.now_s += seconds
        node.controllers = int(node.now_s > 100.5)

    player._sleep = sleep
    with pytest.raises(ValueError, match="a controller runs"):
        player.wait_for_graph(5.0)


def test_a_controller_that_comes_before_the_instruction_gets_none(player: Player, node: Node) -> None:
    assert player.wait_for_graph(5.0)
    node.controllers = 1
    with pytest.raises(ValueError, match="a controller runs"):
        player.play()
    assert node.say.calls == 0


def test_the_command_and_the_node_refuse_to_play_beside_a_controller(
    node: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.controllers = 1
    monkeypatch.setattr(ros_client, "RosClient", lambda _: nullcontext(SimpleNamespace(node=node)))
    assert cli_main.main(["replay", str(folder), "--live"]) == 1
    assert "a controller runs" in capsys.readouterr().err

    node._values = {"bag": str(folder), "rate": 1.0, "graph_timeout_s": 5.0}
    node._ending, node._options = Event(), ReplayOptions
    with pytest.raises(ValueError, match="a controller runs"):
        ReplayNode._play(node)
