"""The launch files, with a stand-in for the launch system that records what was asked of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import pytest

from instructvla_ros.graph import environment, files
from instructvla_ros.graph.description import argument_values, resolve
from instructvla_ros.graph.tries import WINDOW_S
from instructvla_ros.graph.widowx import WIDOWX
from instructvla_ros.robots import graphs

LAUNCH_FOLDER = Path(__file__).resolve().parents[3] / "launch"


class Recorded:
    """Any launch action: keeps its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class FakeLaunch:
    """The modules `launch` and `launch_ros` as far as the launch files use them."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        kinds = (
            "LaunchDescription",
            "DeclareLaunchArgument",
            "OpaqueFunction",
            "SetEnvironmentVariable",
            "Shutdown",
        )
        made = {name: type(name, (Recorded,), {}) for name in (*kinds, "EnvironmentVariable", "Node")}
        configuration = type(
            "LaunchConfiguration",
            (Recorded,),
            {"perform": lambda this, context: context.values[this.args[0]]},
        )
        self.Node = made["Node"]
        self.modules = {
            "launch": self._module("launch", LaunchDescription=made["LaunchDescription"]),
            "launch.actions": self._module("launch.actions", **{k: made[k] for k in kinds[1:]}),
            "launch.substitutions": self._module(
                "launch.substitutions",
                EnvironmentVariable=made["EnvironmentVariable"],
                LaunchConfiguration=configuration,
            ),
            "launch_ros": self._module("launch_ros"),
            "launch_ros.actions": self._module("launch_ros.actions", Node=made["Node"]),
        }

    @staticmethod
    def _module(name: str, **content: Any) -> ModuleType:
        module = ModuleType(name)
        module.__dict__.update(content)
        return module


def run_launch_file(monkeypatch: pytest.MonkeyPatch, name: str, **given: str) -> list[Recorded]:
    """The Node actions that a launch file creates for these arguments."""
    fake = FakeLaunch()
    for module_name, module in fake.modules.items():
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.delitem(sys.modules, "instructvla_ros.graph.launch_actions", raising=False)
    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH_FOLDER / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entities = module.generate_launch_description().args[0]
    declared = {e.args[0]: e.kwargs["default_value"] for e in entities if type(e).__name__ == "DeclareLaunchArgument"}
    assert set(given) <= set(declared)
    set_variables = {e.args[0] for e in entities if type(e).__name__ == "SetEnvironmentVariable"}
    assert set_variables == set(environment.DEFAULTS)
    opaque = next(e for e in entities if type(e).__name__ == "OpaqueFunction")
    monkeypatch.delitem(sys.modules, "instructvla_ros.graph.launch_actions", raising=False)
    nodes: list[Recorded] = opaque.kwargs["function"](SimpleNamespace(values={**declared, **given}))
    return nodes


@pytest.mark.parametrize(
    ("name", "robot", "given"),
    [
        ("widowx.launch.py", "widowx", {}),
        ("sim.launch.py", "widowx", {"sim": "true"}),
        ("franka.launch.py", "franka", {}),
        ("ur5e.launch.py", "ur5e", {}),
    ],
)
def test_the_launch_files_create_the_nodes_of_the_graph(
    monkeypatch: pytest.MonkeyPatch, name: str, robot: str, given: dict[str, str]
) -> None:
    graph = graphs()[robot]
    nodes = run_launch_file(monkeypatch, name)
    checkpoint = files.resolve_checkpoint(argument_values(graph, {})["checkpoint"])
    expected = resolve(graph, {**given, "checkpoint": checkpoint})
    assert [n.kwargs["name"] for n in nodes] == [n.name for n in expected]
    for action, node in zip(nodes, expected, strict=True):
        assert (action.kwargs["package"], action.kwargs["executable"]) == (node.package, node.executable)
        assert action.kwargs["parameters"][-1] == dict(node.parameters)
        assert action.kwargs["remappings"] == list(node.remappings)
        assert Path(action.kwargs["parameters"][0]).is_file()
        assert action.kwargs["on_exit"] is not None


def test_launch_arguments_reach_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = run_launch_file(
        monkeypatch,
        "widowx.launch.py",
        robot_name="left",
        sim="true",
        checkpoint="/some/folder",
        camera_topic="/cam",
        device="cpu",
    )
    by_name = {n.kwargs["name"]: n.kwargs for n in nodes}
    assert "sim_node" in by_name
    assert by_name["reasoning_node"]["parameters"][-1] == {"checkpoint": "/some/folder", "device": "cpu"}
    assert ("camera/image_raw", "/cam") in by_name["action_expert_node"]["remappings"]
    assert by_name["widowx_controller_node"]["parameters"][-1]["robot_name"] == "left"


def test_the_declared_launch_arguments_are_those_of_the_graph() -> None:
    wanted = {"robot_name", "sim", "checkpoint", "camera_topic", "device"}
    assert wanted <= set(argument_values(WIDOWX, {}))


def test_f12_a_launch_file_ends_the_graph_after_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {n.kwargs["name"]: n.kwargs for n in run_launch_file(monkeypatch, "widowx.launch.py")}
    expert = nodes["action_expert_node"]
    assert expert["respawn"] and expert["respawn_max_retries"] == -1
    crash, leave = SimpleNamespace(returncode=-9), SimpleNamespace(returncode=0)
    assert [expert["on_exit"](crash, None) for _ in range(3)] == [None] * 3
    assert expert["on_exit"](crash, None) is not None
    assert nodes["reasoning_node"]["on_exit"](leave, None) is not None
    assert not nodes["widowx_controller_node"]["respawn"]


def test_f12_a_launch_file_too_counts_the_tries_of_the_last_minute_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in FakeLaunch().modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "instructvla_ros.graph.launch_actions", raising=False)
    actions = importlib.import_module("instructvla_ros.graph.launch_actions")
    monkeypatch.delitem(sys.modules, "instructvla_ros.graph.launch_actions")
    clock = fakes.FakeClock()
    expert = next(n for n in resolve(WIDOWX, {}) if n.name == "action_expert_node")
    on_exit, crash = actions._when_it_ends(expert, clock), SimpleNamespace(returncode=-9)
    for _ in range(2):
        assert [on_exit(crash, None) for _ in range(3)] == [None] * 3
        clock.advance(WINDOW_S + 1.0)
    assert [on_exit(crash, None) is None for _ in range(4)] == [True] * 3 + [False]
