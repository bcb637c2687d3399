"""What every robot's graph shares: the policy's arguments and nodes, around the robot's own controller."""

from __future__ import annotations

from collections.abc import Mapping

from instructvla_ros.graph import faults, recorder
from instructvla_ros.graph.description import Argument, Graph, NodeSpec

_MODEL = {"checkpoint": "{checkpoint}", "device": "{device}"}
_CAMERA = ("camera/image_raw", "{camera_topic}")
_WRIST = ("wrist/image_raw", "{wrist_topic}")
_PRELOAD = ("instructvla_model.runtime",)  # torch and transformers: seconds of processor time
_SERVICES = ("stop", "reset", "home", "sleep")

ARGUMENTS = (
    Argument("checkpoint", "", "folder of the policy's checkpoint, or the name of one that ships with the project"),
    Argument("camera_topic", "/camera/camera/color/image_raw", "third-person camera, sensor_msgs/Image"),
    Argument("wrist_topic", "/wrist/image_raw", "wrist camera, used by checkpoints with two views"),
    Argument("device", "auto", "where the model runs: auto, cpu, cuda, cuda:1"),
    Argument("namespace", "/instructvla", "namespace of the project's topics; several robots run by namespace"),
    *recorder.ARGUMENTS,
)
SIM_ARGUMENTS = (
    Argument("sim", "false", "true starts the simulated arm and cameras instead of expecting the real ones"),
    faults.ARGUMENT,
    faults.CLOCK_ARGUMENT,
    Argument("seed", "0", "simulation only: which random scene"),
    Argument("task_instruction", "", "simulation only: a plain instruction; the scene holds what it names"),
    Argument("follow_instructions", "true", "simulation only: judge each new instruction that is worded plainly"),
)


def simulation(**parameters: str) -> NodeSpec:
    """The simulated arm and cameras, started by the argument `sim`."""
    return NodeSpec(
        name="sim_node",
        package="instructvla_sim",
        executable="sim_node",
        module="instructvla_sim.nodes.sim_node",
        namespace="{namespace}/sim",
        params_file="sim.yaml",
        parameters={
            **parameters,
            "seed": "{seed}",
            "instruction": "{task_instruction}",
            "primary_topic": "{camera_topic}",
            "wrist_topic": "{wrist_topic}",
            "reasoning_topic": "{namespace}/reasoning",
            "follow_instructions": "{follow_instructions}",
        },
        kinds={"seed": int, "follow_instructions": bool},
        when="sim",
    )


def controller(executable: str, params_file: str, parameters: Mapping[str, str], **more: type) -> NodeSpec:
    """A robot's controller node. Its services have the same names for every robot."""
    return NodeSpec(
        name=executable,
        package="instructvla_ros",
        executable=executable,
        module=f"instructvla_ros.nodes.{executable}",
        params_file=params_file,
        parameters=parameters,
        kinds=more,
        remappings=(_CAMERA, *((f"~/{name}", f"{{namespace}}/{name}") for name in _SERVICES)),
    )


def policy_graph(
    name: str,
    arguments: tuple[Argument, ...],
    robot: NodeSpec,
    expert: Mapping[str, str],
    sim: NodeSpec | None = None,
    checkpoint: str = "",
) -> Graph:
    """The graph of a robot: simulation if there is one, policy, controller, lifecycle manager, recorder if asked for.

    `expert` tells the action expert whose joint states mean what: arm, joint_states_topic, base_frame. `checkpoint` is
    the default of that argument.
    """
    reasoning = NodeSpec(
        name="reasoning_node",
        package="instructvla_ros",
        executable="reasoning_node",
        module="instructvla_ros.nodes.reasoning_node",
        params_file="policy.yaml",
        parameters=_MODEL,
        remappings=(_CAMERA, _WRIST),
        respawns=3,
        preload=_PRELOAD,
        nice=10,  # text must never starve the expert, nor the expert the controller
    )
    action_expert = NodeSpec(
        name="action_expert_node",
        package="instructvla_ros",
        executable="action_expert_node",
        module="instructvla_ros.nodes.action_expert_node",
        params_file="policy.yaml",
        parameters={**_MODEL, **expert},
        remappings=(_CAMERA, _WRIST),
        respawns=3,
        preload=_PRELOAD,
        nice=5,
    )
    names = ("reasoning_node", "action_expert_node", robot.name)
    manager = NodeSpec(
        name="lifecycle_manager_node",
        package="instructvla_ros",
        executable="lifecycle_manager_node",
        module="instructvla_ros.nodes.lifecycle_manager_node",
        params_file="lifecycle.yaml",
        parameters={"node_names": ",".join(names)},
        kinds={"node_names": list},
    )
    shared = tuple(Argument(a.name, checkpoint, a.description) if a.name == "checkpoint" else a for a in ARGUMENTS)
    everything = (*arguments, *shared, *(SIM_ARGUMENTS if sim is not None else ()))
    recording = recorder.node(expert["joint_states_topic"])
    nodes = (*(() if sim is None else (sim,)), reasoning, action_expert, robot, manager, recording)
    return Graph(name, everything, nodes, faults.with_relay)
