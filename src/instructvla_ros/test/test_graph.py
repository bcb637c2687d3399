"""The graph as data, its command lines and the parameter files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructvla_ros.cli import up
from instructvla_ros.graph import environment, files
from instructvla_ros.graph.command import node_command, node_process
from instructvla_ros.graph.description import ArgumentError, is_true, resolve
from instructvla_ros.graph.replay import REPLAY
from instructvla_ros.graph.widowx import WIDOWX
from instructvla_ros.robots import arm_named, arms, graphs

SHORT = [sys.executable, "-S", "-c", "pass"]
LAUNCH_FOLDER = Path(__file__).resolve().parents[3] / "launch"


def names(**given: str) -> list[str]:
    return [node.name for node in resolve(WIDOWX, given)]


def test_the_simulated_arm_is_only_there_when_asked_for() -> None:
    assert "sim_node" not in names()
    assert names(sim="true")[0] == "sim_node"
    assert names(sim="true")[1:] == names()


def test_arguments_reach_parameters_and_remappings() -> None:
    nodes = {n.name: n for n in resolve(WIDOWX, {"robot_name": "left", "camera_topic": "/cam", "namespace": "/two"})}
    controller = nodes["widowx_controller_node"]
    assert ("robot_name", "left") in controller.parameters
    assert ("camera/image_raw", "/cam") in controller.remappings
    assert ("~/stop", "/two/stop") in controller.remappings
    assert {node.namespace for node in nodes.values()} == {"/two"}


def test_an_unknown_argument_lists_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"unknown argument 'robotname'.*robot_name"):
        resolve(WIDOWX, {"robotname": "x"})


def test_an_argument_of_wrong_type_is_refused() -> None:
    with pytest.raises(ArgumentError, match="seed"):
        resolve(WIDOWX, {"sim": "true", "seed": "many"})
    with pytest.raises(ArgumentError, match="boolean"):
        is_true("perhaps")


def test_command_lines_quote_strings_so_that_yaml_keeps_their_type() -> None:
    nodes = {n.name: n for n in resolve(WIDOWX, {"sim": "true", "robot_name": "no", "task_instruction": "it's here"})}
    command = node_command(nodes["sim_node"])
    assert command[1:4] == ["-P", "-m", "instructvla_sim.nodes.sim_node"]
    given = dict(text.split(":=", 1) for text in command if ":=" in text)
    assert yaml.safe_load(given["robot_name"]) == "no"
    assert yaml.safe_load(given["instruction"]) == "it's here"
    assert yaml.safe_load(given["seed"]) == 0


def test_a_node_imports_nothing_from_the_folder_in_which_the_graph_is_started(tmp_path: Path) -> None:
    (tmp_path / "this.py").write_text("raise SystemExit('not this one')\n")
    node = next(node for node in resolve(WIDOWX, {}) if node.name == "widowx_controller_node")
    command = node_command(replace(node, module="this"))
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "Zen of Python" in result.stdout, result.stderr


def test_model_nodes_give_way_to_the_controller_and_text_to_the_expert() -> None:
    nodes = {n.name: n for n in resolve(WIDOWX, {})}
    assert nodes["reasoning_node"].nice > nodes["action_expert_node"].nice > nodes["widowx_controller_node"].nice
    assert node_command(nodes["reasoning_node"])[:3] == ["nice", "-n", "10"]


def test_a_spare_may_take_the_place_of_the_model_nodes_only_and_knows_their_arguments() -> None:
    processes = {n.name: node_process(n) for n in resolve(WIDOWX, {"sim": "true", "record": "true"})}
    orders = {name: process.order for name, process in processes.items() if process.order is not None}
    assert set(orders) == {"reasoning_node", "action_expert_node"}
    for name, order in orders.items():
        assert order.preload == ("instructvla_model.runtime",)
        wanted = ["nice", "-n", str(order.nice), sys.executable, "-P", "-m", order.module, *order.arguments]
        assert list(processes[name].argv) == wanted


def test_up_replay_ends_well_when_the_replay_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "node_process", lambda node: replace(node_process(node), argv=SHORT))
    supervisor = up.make_supervisor(REPLAY, {"bag": "x"}, "/instructvla")
    supervisor.start()
    ending = supervisor.wait(poll_s=0.01)
    assert (ending.status, ending.reason) == (0, "replay_node has finished")


@pytest.mark.parametrize("robot", sorted(graphs()))
def test_every_robots_graph_names_its_controller_to_the_manager_and_its_arm_to_the_expert(robot: str) -> None:
    nodes = {node.name: node for node in resolve(graphs()[robot], {})}
    (own,) = set(nodes) - {"reasoning_node", "action_expert_node", "lifecycle_manager_node"}
    managed = dict(nodes["lifecycle_manager_node"].parameters)["node_names"]
    assert managed[-1] == own
    assert set(managed) == set(nodes) - {"lifecycle_manager_node"}
    expert = dict(nodes["action_expert_node"].parameters)
    assert arm_named(expert.get("arm", "wx250s"))
    assert {"~/stop", "~/reset", "~/home", "~/sleep"} <= {old for old, _ in nodes[own].remappings}


def test_a_robot_is_a_module_of_its_own_and_needs_no_list() -> None:
    assert set(arms()) == {"wx250s", "fr3", "panda", "ur5e"}
    with pytest.raises(ValueError, match="ur5e"):
        arm_named("ur10")


def test_the_graph_of_a_franka_can_be_asked_for_any_route_and_for_a_panda() -> None:
    given = {"robot_type": "panda", "route": "servo_twist", "sim": "true"}
    nodes = {n.name: n for n in resolve(graphs()["franka"], given)}
    controller = dict(nodes["franka_controller_node"].parameters)
    assert (controller["arm"], controller["route"]) == ("panda", "servo_twist")
    assert dict(nodes["action_expert_node"].parameters)["base_frame"] == "panda_link0"
    assert dict(nodes["sim_node"].parameters)["robot"] == "panda"
    with pytest.raises(ArgumentError, match="route"):
        resolve(graphs()["franka"], {"route": "teleport"})


def test_every_node_has_its_parameter_file_and_an_importable_module() -> None:
    for node in resolve(WIDOWX, {"sim": "true", "record": "true"}) + resolve(REPLAY, {"live": "true"}):
        assert files.params_file(node.params_file).is_file()
        if node.package == "instructvla_ros":
            assert importlib.util.find_spec(node.module) is not None
            assert node.module == f"instructvla_ros.nodes.{node.executable}"  # as setup.py names it


@pytest.mark.parametrize("name", ["a b", "", "9", "left/wx250s", "/left", "möhre"])
def test_a_robot_name_that_is_no_part_of_a_topics_name_is_refused_before_anything_starts(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"robot_name '.*' is no part of a topic's name; expected letters"):
        resolve(WIDOWX, {"robot_name": name})


def test_a_recording_is_replayed_by_one_node_and_live_by_the_policy_without_a_controller() -> None:
    assert [n.name for n in resolve(REPLAY, {"bag": "x"})] == ["replay_node"]
    live = resolve(REPLAY, {"bag": "x", "live": "true"})
    assert [n.name for n in live] == ["replay_node", "reasoning_node", "action_expert_node", "lifecycle_manager_node"]
    assert dict(live[0].parameters)["live"] is True and dict(live[1].parameters)["use_sim_time"] is True
    manager = yaml.safe_load(files.params_file(live[-1].params_file).read_text(encoding="utf-8"))
    wanted = manager["/**/lifecycle_manager_node"]["ros__parameters"]["node_names"]
    assert wanted == ["reasoning_node", "action_expert_node"]


def test_the_recorder_joins_a_graph_when_asked_to_and_its_end_ends_nothing() -> None:
    assert "recorder_node" not in [n.name for n in resolve(WIDOWX, {})]
    node = next(n for n in resolve(WIDOWX, {"record": "true", "recording": "here"}) if n.name == "recorder_node")
    assert dict(node.parameters)["output"] == "here" and not node.required


def test_a_missing_parameter_file_says_where_it_was_looked_for() -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for .*launch/config/none\.yaml"):
        files.params_file("none.yaml")


def test_a_checkpoint_is_found_by_path_by_name_or_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nano-expert").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("INSTRUCTVLA_CHECKPOINTS", str(tmp_path))
    assert files.resolve_checkpoint("mine") == str(tmp_path / "mine")
    assert files.resolve_checkpoint(str(tmp_path / "mine")) == str(tmp_path / "mine")
    assert files.resolve_checkpoint("no_such") == "no_such"
    monkeypatch.setattr(files, "checkpoint_folders", lambda: [tmp_path])
    assert files.resolve_checkpoint("") == str(tmp_path / "nano-expert")


def test_a_checkpoint_that_is_not_found_is_told_apart_from_an_installation_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "repository_root", lambda: None)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert files.resolve_checkpoint("") == ""
    assert "none ships with this installation" in caplog.text and "INSTRUCTVLA_CHECKPOINTS" in caplog.text
    installed = tmp_path / "share" / "instructvla" / "checkpoints" / "nano-expert"
    installed.mkdir(parents=True)
    (installed / "manifest.json").touch()
    assert files.resolve_checkpoint("") == str(installed)
    caplog.clear()
    assert files.resolve_checkpoint("nano-exprt") == "nano-exprt"
    assert f"there is no checkpoint nano-exprt, but nano-expert in {installed.parent.resolve()}" in caplog.text


def test_the_environment_keeps_what_the_user_has_set() -> None:
    made = environment.apply_defaults({"ROS_DOMAIN_ID": "42"})
    assert made["ROS_DOMAIN_ID"] == "42"
    assert made["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_a_camera_publisher_gets_its_transport_unless_the_user_has_chosen_one() -> None:
    made: dict[str, str] = {}
    environment.use_camera_profile(made)
    assert Path(made["FASTRTPS_DEFAULT_PROFILES_FILE"]).read_text(encoding="utf-8").count("16777216") == 1
    chosen = {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}
    environment.use_camera_profile(chosen)
    assert chosen == {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}


# The parameter files against what the nodes declare.


def parameters_in(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= parameters_in(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def documented(node_name: str) -> tuple[dict[str, Any], str]:
    for path in sorted((LAUNCH_FOLDER / "config").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if f"/**/{node_name}" in content:
            return parameters_in(content[f"/**/{node_name}"]["ros__parameters"]), path.read_text(encoding="utf-8")
    raise AssertionError(f"{node_name} is in no parameter file")


def declared_by(node_name: str) -> list[Any]:
    if node_name == "sim_node":
        return list(pytest.importorskip("instructvla_sim.nodes.settings").SIM)
    return list(pytest.importorskip("instructvla_ros.nodes.node_parameters").NODE_PARAMETERS[node_name])


NODES = (
    "sim_node",
    "reasoning_node",
    "action_expert_node",
    "widowx_controller_node",
    "franka_controller_node",
    "arm_controller_node",
    "lifecycle_manager_node",
    "recorder_node",
    "replay_node",
)


@pytest.mark.parametrize("node_name", NODES)
def test_the_yaml_has_every_declared_parameter_with_its_default_and_no_other(node_name: str) -> None:
    declared = {p.name: p.default for p in declared_by(node_name)}
    assert documented(node_name)[0] == declared


@pytest.mark.parametrize("node_name", NODES)
def test_the_yaml_states_the_range_of_every_parameter_that_has_one(node_name: str) -> None:
    text = documented(node_name)[1]
    for parameter in declared_by(node_name):
        if parameter.minimum is not None:
            assert f"[{parameter.minimum:g}..{parameter.maximum:.10g}" in text, parameter.name
