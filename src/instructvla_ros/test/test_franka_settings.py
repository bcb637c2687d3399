"""What of the Franka's parameters cannot go together, and what follows from others."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy")

from instructvla_ros.graph.description import resolve
from instructvla_ros.graph.franka import FRANKA as GRAPH
from instructvla_ros.nodes.settings_franka import FRANKA, franka_settings

DEFAULTS = {parameter.name: parameter.default for parameter in FRANKA}


@pytest.mark.parametrize("route", ["joint_trajectory", "servo_twist", "servo_pose"])
def test_a_reset_restarts_the_trajectory_controller_where_the_route_ends_in_it(route: str) -> None:
    assert franka_settings({**DEFAULTS, "route": route}).recovery.motion_controllers == ("fr3_arm_controller",)


def test_route_target_pose_needs_the_name_of_the_controller_that_a_reset_restarts() -> None:
    with pytest.raises(ValueError, match="cartesian_impedance_controller"):
        franka_settings({**DEFAULTS, "route": "target_pose"})
    named = {**DEFAULTS, "route": "target_pose", "recovery.motion_controllers": ["{arm}_pose"]}
    assert franka_settings(named).recovery.motion_controllers == ("fr3_pose",)


def test_the_robots_namespace_is_put_before_all_its_names() -> None:
    plain = franka_settings(DEFAULTS)
    left = franka_settings({**DEFAULTS, "robot_namespace": "/left/"})

    def names(settings: Any) -> list[str]:
        topics = [settings.joint_states_topic, settings.robot_state_topic, settings.trajectory_topic]
        recovery = [settings.recovery.action, settings.recovery.controller_manager]
        return [*topics, settings.pose_topic, settings.servo.node, settings.hand.name, *recovery]

    # Those are all that begin with /: no name of the robot is forgotten.
    assert len(names(plain)) == sum(str(default).startswith("/") for default in DEFAULTS.values())
    assert names(left) == [f"/left{name}" for name in names(plain)]
    assert left.base_frame == plain.base_frame
    with pytest.raises(ValueError, match="begins with /"):
        franka_settings({**DEFAULTS, "robot_namespace": "left"})


def test_the_graph_hears_a_robot_in_a_namespace_everywhere_and_passes_the_controllers_names_on() -> None:
    given = {"robot_namespace": "/left", "route": "target_pose", "motion_controllers": "pose,gravity", "record": "true"}
    nodes = {node.name: dict(node.parameters) for node in resolve(GRAPH, given)}
    settings = franka_settings({**DEFAULTS, **nodes["franka_controller_node"]})
    assert settings.recovery.motion_controllers == ("pose", "gravity")
    assert settings.joint_states_topic == "/left/joint_states"
    assert nodes["action_expert_node"]["joint_states_topic"] == settings.joint_states_topic
    assert nodes["recorder_node"]["joint_states_topic"] == settings.joint_states_topic


def test_the_graph_of_an_arm_without_a_hand_expects_its_fingers_nowhere() -> None:
    nodes = {node.name: dict(node.parameters) for node in resolve(GRAPH, {"gripper": "none"})}
    assert nodes["franka_controller_node"]["hand.interface"] == nodes["action_expert_node"]["gripper"] == "none"
