"""The graph of the WidowX-250s: the policy's nodes, its controller, and optionally the simulated arm and
cameras."""

from __future__ import annotations

from instructvla_ros.graph import faults
from instructvla_ros.graph.description import Argument, Graph, NodeSpec

_MODEL = {"checkpoint": "{checkpoint}", "device": "{device}"}
_CAMERA = ("camera/image_raw", "{camera_topic}")

ARGUMENTS = (
    Argument("robot_name", "wx250s", "namespace of the Interbotix driver"),
    Argument("sim", "false", "true starts the simulated arm and cameras instead of expecting the real ones"),
    Argument(
        "checkpoint", "", "folder of the policy's checkpoint, or the name of one that ships with the project"
    ),
    Argument("camera_topic", "/camera/camera/color/image_raw", "third-person camera, sensor_msgs/Image"),
    Argument("wrist_topic", "/wrist/image_raw", "wrist camera, used by checkpoints with two views"),
    Argument("device", "auto", "where the model runs: auto, cpu, cuda, cuda:1"),
    Argument(
        "namespace", "/instructvla", "namespace of the project's topics; several robots run by namespace"
    ),
    faults.ARGUMENT,
    Argument("seed", "0", "simulation only: which random scene"),
    Argument("task_instruction", "", "simulation only: a plain instruction; the scene holds what it names"),
    Argument("follow_instructions", "true", "simulation only: judge each new instruction that is worded plainly"),
)

NODES = (
    NodeSpec(
        name="sim_node",
        package="instructvla_sim",
        executable="sim_node",
        module="instructvla_sim.nodes.sim_node",
        namespace="{namespace}/sim",
        params_file="sim.yaml",
        parameters={
            "robot_name": "{robot_name}",
            "seed": "{seed}",
            "instruction": "{task_instruction}",
            "primary_topic": "{camera_topic}",
            "wrist_topic": "{wrist_topic}",
            "reasoning_topic": "{namespace}/reasoning",
            "follow_instructions": "{follow_instructions}",
        },
        kinds={"seed": int, "follow_instructions": bool},
        when="sim",
    ),
    NodeSpec(
        name="reasoning_node",
        package="instructvla_ros",
        executable="reasoning_node",
        module="instructvla_ros.nodes.reasoning_node",
        params_file="policy.yaml",
        parameters=_MODEL,
        remappings=(_CAMERA,),
        respawns=3,
        nice=10,  # text must never starve the expert, nor the expert the controller
    ),
    NodeSpec(
        name="action_expert_node",
        package="instructvla_ros",
        executable="action_expert_node",
        module="instructvla_ros.nodes.action_expert_node",
        params_file="policy.yaml",
        parameters={**_MODEL, "robot_name": "{robot_name}"},
        remappings=(_CAMERA, ("wrist/image_raw", "{wrist_topic}")),
        respawns=3,
        nice=5,
    ),
    NodeSpec(
        name="widowx_controller_node",
        package="instructvla_ros",
        executable="widowx_controller_node",
        module="instructvla_ros.nodes.widowx_controller_node",
        params_file="widowx.yaml",
        parameters={"robot_name": "{robot_name}"},
        # The same names for every robot's controller, so that stop and reset do not depend on the robot.
        remappings=(_CAMERA, ("~/stop", "{namespace}/stop"), ("~/reset", "{namespace}/reset")),
    ),
    NodeSpec(
        name="lifecycle_manager_node",
        package="instructvla_ros",
        executable="lifecycle_manager_node",
        module="instructvla_ros.nodes.lifecycle_manager_node",
        params_file="lifecycle.yaml",
    ),
)

WIDOWX = Graph("widowx", ARGUMENTS, NODES, faults.with_relay)
GRAPHS = {"widowx": WIDOWX}
