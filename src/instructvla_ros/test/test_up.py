"""instructvla up: a second graph in the same place is refused before anything of it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")

from instructvla_ros.cli import main as cli  # noqa: E402
from instructvla_ros.cli import up  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.graph.supervisor import Ending, Supervisor  # noqa: E402


@pytest.fixture
def domain(new_ros_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> int:
    number = new_ros_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number


@pytest.fixture
def running(domain: int) -> Iterator[Any]:
    """What another graph in /instructvla is known by."""
    environment.apply_defaults(os.environ)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("lifecycle_manager_node", namespace="/instructvla", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The nodes that were started: none really is."""
    names: list[str] = []
    monkeypatch.setattr(Supervisor, "start", lambda self: names.extend(p.name for p in self._wanted))
    monkeypatch.setattr(Supervisor, "wait", lambda self: Ending(0, "asked to"))
    monkeypatch.setattr(Supervisor, "handle_signals", lambda self: None)
    monkeypatch.setenv("INSTRUCTVLA_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(up, "_LOOK_S", 60.0)
    return names


def test_a_second_graph_of_the_same_namespace_and_domain_is_refused_with_the_way_out(
    running: Any, started: list[str], domain: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["up", "widowx", "--sim"]) == 1
    said = capsys.readouterr().err
    assert f"a graph runs in namespace /instructvla of ROS domain {domain} already" in said
    assert "end it" in said and "namespace:=/other" in said and "ROS_DOMAIN_ID" in said
    assert started == []


def test_a_graph_in_another_namespace_is_no_obstacle(
    running: Any, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_LOOK_S", 0.5)
    assert cli.main(["up", "widowx", "namespace:=/left"]) == 0
    assert "lifecycle_manager_node" in started


def test_a_replay_without_policy_nodes_runs_beside_a_graph_and_looks_for_none(
    running: Any, started: list[str]
) -> None:
    assert cli.main(["up", "replay", "bag:=somewhere"]) == 0
    assert started == ["replay_node"]
