"""The graph as data, its command lines, the supervisor, the launch files and the parameter files."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import instructvla_ros_fakes as fakes  # registered by conftest.py
import pytest
import yaml

from instructvla_ros.cli import up
from instructvla_ros.graph import environment, files
from instructvla_ros.graph.command import node_command, node_process
from instructvla_ros.graph.description import ArgumentError, argument_values, is_true, resolve
from instructvla_ros.graph.replay import REPLAY
from instructvla_ros.graph.supervisor import Process, Supervisor
from instructvla_ros.graph.tries import WINDOW_S
from instructvla_ros.graph.widowx import WIDOWX
from instructvla_ros.robots import arm_named, arms, graphs

LAUNCH_FOLDER = Path(__file__).resolve().parents[3] / "launch"
SHORT = [sys.executable, "-S", "-c", "pass"]
SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


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
    nodes = {n.name: n for n in resolve(WIDOWX, {"sim": "true", "robot_name": "0", "task_instruction": "it's here"})}
    command = node_command(nodes["sim_node"])
    assert command[1:3] == ["-m", "instructvla_sim.nodes.sim_node"]
    given = dict(text.split(":=", 1) for text in command if ":=" in text)
    assert yaml.safe_load(given["robot_name"]) == "0"
    assert yaml.safe_load(given["instruction"]) == "it's here"
    assert yaml.safe_load(given["seed"]) == 0


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
        wanted = ["nice", "-n", str(order.nice), sys.executable, "-m", order.module, *order.arguments]
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
            script = Path(__file__).parents[1] / "scripts" / node.executable
            assert f"from {node.module} import main" in script.read_text(encoding="utf-8")
            assert os.access(script, os.X_OK)


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


# The supervisor.


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split(")")[1].split()[0] != "Z"


def wait_until(condition: Any, limit_s: float = 10.0) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_death_of_a_required_node_stops_the_others_and_gives_its_status() -> None:
    dying = [sys.executable, "-S", "-c", "import sys; sys.exit(3)"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("dies", dying)], os.environ)
    supervisor.start()
    pids = supervisor.pids
    ending = supervisor.wait(poll_s=0.01)
    assert (ending.status, ending.reason) == (3, "dies exited with status 3")
    assert not any(alive(pid) for pid in pids.values())


def test_the_good_end_of_a_node_that_finishes_is_the_end_of_the_work() -> None:
    short = [sys.executable, "-S", "-c", "pass"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("works", short, finishes=True)], os.environ)
    supervisor.start()
    ending = supervisor.wait(poll_s=0.01)
    assert (ending.status, ending.reason) == (0, "works has finished")


def test_the_death_of_a_node_that_is_not_required_changes_nothing() -> None:
    short = [sys.executable, "-S", "-c", "pass"]
    supervisor = Supervisor([Process("stays", SLEEPER), Process("ends", short, required=False)], os.environ)
    supervisor.start()
    assert wait_until(lambda: not alive(supervisor.pids["ends"]))
    assert supervisor.ended() is None
    supervisor.stop()
    assert supervisor.wait().status == 0


def test_a_node_that_ignores_signals_is_killed_after_the_grace_time() -> None:
    stubborn = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)];"
        "print('x', flush=True); time.sleep(60)"
    )
    read, write = os.pipe()
    supervisor = Supervisor(
        [Process("stubborn", [sys.executable, "-S", "-c", stubborn])], os.environ, grace_s=0.1, output=write
    )
    supervisor.start()
    assert os.read(read, 1) == b"x"
    pid = supervisor.pids["stubborn"]
    supervisor.shutdown()
    assert not alive(pid)
    os.close(read)
    os.close(write)


def ends_with_a_word(name: str, slow: bool = False) -> list[str]:
    """A process that says its name when it is up, again when it is told to end, and in capitals when it has ended."""
    code = (
        "import os, signal, time\n"
        "def end(*_):\n"
        f"    os.write(1, b'{name}')\n"
        f"    time.sleep({0.3 if slow else 0.0})\n"
        f"    os.write(1, b'{name.upper()}')\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"os.write(1, b'{name}')\n"
        "while True: signal.pause()\n"
    )
    return [sys.executable, "-S", "-c", code]


def words(processes: dict[str, bool], **options: float) -> str:
    """What such processes say while their graph is stopped; the value tells which takes long."""
    read, write = os.pipe()
    started = [Process(name, ends_with_a_word(name, slow)) for name, slow in processes.items()]
    supervisor = Supervisor(started, os.environ, output=write, **options)
    supervisor.start()
    up = ""
    while len(up) < len(processes):
        up += os.read(read, 1).decode()
    supervisor.shutdown()
    os.close(write)
    said = os.read(read, 100).decode()
    os.close(read)
    return said


def test_a_graph_is_stopped_one_by_one_in_reverse_order_so_that_the_driver_hears_its_controller_to_the_end() -> None:
    assert words({"d": False, "c": True, "m": True}) == "mMcCdD"


def test_a_node_that_takes_long_to_end_gets_its_share_of_the_grace_time_and_then_the_next_is_told() -> None:
    assert words({"d": False, "c": True}, grace_s=0.02) in ("cdDC", "cdCD")


def test_no_node_survives_a_supervisor_that_is_killed() -> None:
    code = (
        "import os, sys, time; from instructvla_ros.graph.supervisor import *;"
        f"s = Supervisor([Process('n', {SLEEPER!r})], os.environ); s.start();"
        "print(s.pids['n'], flush=True); s.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sigint_and_sigterm_end_the_graph_cleanly_even_when_started_in_the_background(number: int) -> None:
    code = (
        "import os, sys; from instructvla_ros.graph.supervisor import *;"
        f"s = Supervisor([Process('n', {SLEEPER!r})], os.environ); s.handle_signals(); s.start();"
        "print(s.pids['n'], flush=True); sys.exit(s.wait(0.02).status)"
    )
    # A shell starts background jobs with SIGINT ignored.
    ignoring = (
        "import signal, os, sys; signal.signal(2, signal.SIG_IGN);"
        f"os.execv(sys.executable, [sys.executable, '-c', {code!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(number)
    assert parent.wait(10) == 0
    parent.stdout.close()
    assert not alive(pid)


def test_a_program_that_does_not_exist_stops_what_was_started() -> None:
    supervisor = Supervisor([Process("a", SLEEPER), Process("b", ["/no/such/program"])], os.environ)
    with pytest.raises(FileNotFoundError):
        supervisor.start()
    assert wait_until(lambda: not alive(supervisor.pids["a"]))


# The launch files, with a stand-in for the launch system that records what was asked of it.


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
