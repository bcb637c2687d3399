"""With faults:=true the relay stands between the real topics and their listeners; without, nothing changes."""

from __future__ import annotations

import pytest

from instructvla_ros.graph.description import ArgumentError, Graph, resolve
from instructvla_ros.graph.faults import NODE, PREFIX
from instructvla_ros.graph.franka import FRANKA
from instructvla_ros.graph.widowx import WIDOWX

CAMERA = "/camera/camera/color/image_raw"


def test_without_faults_the_graph_has_no_relay_and_no_changed_name() -> None:
    nodes = resolve(WIDOWX, {})
    assert NODE not in [node.name for node in nodes]
    assert not any(new.startswith(PREFIX) for node in nodes for _, new in node.remappings)


def test_with_faults_every_listener_hears_through_the_relay_and_talks_as_before() -> None:
    plain = {node.name: node for node in resolve(WIDOWX, {"sim": "true"})}
    nodes = {node.name: node for node in resolve(WIDOWX, {"sim": "true", "faults": "true"})}
    assert set(nodes) - set(plain) == {NODE}
    assert nodes["sim_node"] == plain["sim_node"]
    assert dict(nodes["reasoning_node"].remappings)["camera/image_raw"] == PREFIX + CAMERA
    assert dict(nodes["reasoning_node"].remappings)["wrist/image_raw"] == "/wrist/image_raw"
    expert = dict(nodes["action_expert_node"].remappings)
    assert expert["latent_action"] == PREFIX + "/instructvla/latent_action"
    assert expert["wrist/image_raw"] == "/wrist/image_raw" and "action_chunk" not in expert
    controller = dict(nodes["widowx_controller_node"].remappings)
    assert controller["/wx250s/joint_states"] == PREFIX + "/wx250s/joint_states"
    assert controller["action_chunk"] == PREFIX + "/instructvla/action_chunk"
    assert controller["~/stop"] == "/instructvla/stop"


def test_with_a_faulty_clock_every_node_but_the_relay_keeps_the_relays_time() -> None:
    nodes = resolve(WIDOWX, {"sim": "true", "faults": "true", "faulty_clock": "true"})
    assert [node.name for node in nodes if ("use_sim_time", True) not in node.parameters] == [NODE]
    assert ("clock_rate_hz", 100.0) in nodes[0].parameters
    plain = resolve(WIDOWX, {"sim": "true", "faulty_clock": "true"})
    assert not any(("use_sim_time", True) in node.parameters for node in plain)


@pytest.mark.parametrize("graph", [WIDOWX, FRANKA], ids=["widowx", "franka"])
@pytest.mark.parametrize("argument", ["faults", "faulty_clock"])
def test_a_graph_with_a_real_arm_cannot_be_disturbed(graph: Graph, argument: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument}:=true .* simulated arm only"):
        resolve(graph, {argument: "true"})


def test_every_relayed_topic_is_heard_under_the_name_that_the_relay_gives_it() -> None:
    given = {"sim": "true", "faults": "true", "namespace": "/two", "robot_name": "arm2", "camera_topic": "/cam"}
    nodes = {node.name: node for node in resolve(WIDOWX, given)}
    taken = {PREFIX + str(topic) for name, topic in nodes[NODE].parameters if name.endswith("_topic")}
    heard = {new for node in nodes.values() for _, new in node.remappings if new.startswith(PREFIX)}
    assert (
        heard
        == taken
        == {PREFIX + topic for topic in ("/cam", "/arm2/joint_states", "/two/latent_action", "/two/action_chunk")}
    )
    assert nodes[NODE].namespace == "/two"


def test_f12_the_policys_nodes_are_started_again_when_they_crash_and_the_controller_is_not() -> None:
    tries = {node.name: node.respawns for node in resolve(WIDOWX, {})}
    assert tries["reasoning_node"] == tries["action_expert_node"] == 3
    assert tries["widowx_controller_node"] == tries["lifecycle_manager_node"] == 0
