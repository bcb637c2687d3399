"""A second graph in the same place, or a simulation beside a driver, is refused before anything of it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")

from interbotix_xs_msgs.msg import JointGroupCommand  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

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
def make_node(domain: int) -> Iterator[Callable[..., Any]]:
    """Makes nodes of other processes, by name and namespace."""
    environment.apply_defaults(os.environ)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    made = []

    def make(name: str, namespace: str = "/") -> Any:
        made.append(rclpy.create_node(name, namespace=namespace, context=context))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def running(make_node: Callable[..., Any]) -> Any:
    """What another graph in /instructvla is known by."""
    return make_node("lifecycle_manager_node", "/instructvla")


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


STARTS = (["up", "widowx", "--sim"], ["demo"], ["bench", "graph"], ["bench", "soak"])


@pytest.mark.parametrize("words", STARTS, ids=" ".join)
def test_a_second_graph_of_the_same_namespace_and_domain_is_refused_with_the_way_out(
    words: list[str], running: Any, started: list[str], domain: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
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


@pytest.mark.parametrize("words", STARTS, ids=" ".join)
def test_a_simulation_beside_a_driver_of_the_same_names_is_refused(
    words: list[str], make_node: Callable[..., Any], started: list[str], domain: int, capsys: pytest.CaptureFixture[str]
) -> None:
    make_node("xs_sdk", "/wx250s").create_publisher(JointState, "joint_states", 10)
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert f"/wx250s/xs_sdk publishes /wx250s/joint_states in ROS domain {domain} already" in said
    assert "Stop the driver" in said and "ROS_DOMAIN_ID" in said
    assert started == []


@pytest.mark.parametrize(
    ("robot", "kind", "topic"),
    [
        ("widowx", JointGroupCommand, "/wx250s/commands/joint_group"),
        ("franka", JointTrajectory, "/fr3_arm_controller/joint_trajectory"),
    ],
)
def test_a_simulation_beside_who_takes_its_commands_is_refused(
    robot: str,
    kind: Any,
    topic: str,
    make_node: Callable[..., Any],
    started: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_node("driver").create_subscription(kind, topic, lambda _: None, 10)
    assert cli.main(["up", robot, "sim:=true"]) == 1
    assert f"/driver takes commands on {topic}" in capsys.readouterr().err
    assert started == []


def test_who_only_watches_the_commands_is_no_obstacle_to_a_simulation(
    make_node: Callable[..., Any], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = make_node("instructvla_cli_7", "/instructvla")
    watch.create_subscription(JointGroupCommand, "/wx250s/commands/joint_group", lambda _: None, 10)
    monkeypatch.setattr(up, "_LOOK_S", 0.5)
    assert cli.main(["up", "widowx", "--sim"]) == 0
    assert "sim_node" in started


def test_the_graph_of_the_real_arm_starts_beside_its_driver(
    make_node: Callable[..., Any], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_node("xs_sdk", "/wx250s").create_publisher(JointState, "joint_states", 10)
    monkeypatch.setattr(up, "_LOOK_S", 0.5)
    assert cli.main(["up", "widowx"]) == 0
    assert "widowx_controller_node" in started
