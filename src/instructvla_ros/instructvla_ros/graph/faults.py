"""The fault relay in the graph: with faults:=true it stands between the real topics and those who listen to them.

The product's nodes know nothing of it: they are only told other names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instructvla_ros.graph.description import Argument, ArgumentError, ResolvedNode, is_true

ARGUMENT = Argument(
    "faults", "false", "simulation only: true lets `instructvla fault` disturb the images, states, latents and chunks"
)
CLOCK_ARGUMENT = Argument(
    "faulty_clock", "false", "simulation only: true, with faults:=true, gives all nodes the relay's clock to disturb"
)
PREFIX = "/faulty"
NODE = "fault_relay_node"
CLOCK_RATE_HZ = 100.0


@dataclass(frozen=True)
class Relayed:
    """A stream: its name on the command line, its full topic, and the name by which nodes ask for it."""

    name: str
    topic: str
    asked: str


def streams(values: Mapping[str, str]) -> tuple[Relayed, ...]:
    """What is relayed, with the graph's arguments filled in."""
    namespace = values["namespace"].rstrip("/")
    states = values.get("joint_states_topic") or f"/{values['robot_name']}/joint_states"
    return (
        Relayed("image", values["camera_topic"], "camera/image_raw"),
        Relayed("joint_states", states, states),
        Relayed("latent_action", f"{namespace}/latent_action", "latent_action"),
        Relayed("action_chunk", f"{namespace}/action_chunk", "action_chunk"),
    )


LISTENERS: Mapping[str, tuple[str, ...]] = {
    "reasoning_node": ("image",),
    "action_expert_node": ("image", "joint_states", "latent_action"),
    "controller_node": ("image", "joint_states", "action_chunk"),
}
"""Which streams a node hears through the relay, by the end of its name."""


def with_relay(nodes: Sequence[ResolvedNode], values: Mapping[str, str]) -> list[ResolvedNode]:
    """The nodes of a graph, and the relay first, if the arguments ask for it; raises ArgumentError where they do for an
    arm that is not simulated."""
    asked = [name for name in (ARGUMENT.name, CLOCK_ARGUMENT.name) if is_true(values.get(name, "false"))]
    if asked and not is_true(values.get("sim", "false")):
        raise ArgumentError(
            f"{asked[0]}:=true disturbs the graph on purpose, which is for the simulated arm only; "
            "add sim:=true (--sim), or leave it out"
        )
    if ARGUMENT.name not in asked:
        return list(nodes)
    relayed = {stream.name: stream for stream in streams(values)}
    clock = CLOCK_ARGUMENT.name in asked
    found = [_relay(values, clock)]
    for node in nodes:
        names = next((heard for end, heard in LISTENERS.items() if node.name.endswith(end)), ())
        rules = tuple((relayed[name].asked, PREFIX + relayed[name].topic) for name in names)
        kept = tuple(rule for rule in node.remappings if rule[0] not in dict(rules))
        parameters = (*node.parameters, ("use_sim_time", True)) if clock else node.parameters
        found.append(replace(node, parameters=parameters, remappings=kept + rules))
    return found


def _relay(values: Mapping[str, str], clock: bool) -> ResolvedNode:
    topics: tuple[tuple[str, object], ...] = tuple((f"{stream.name}_topic", stream.topic) for stream in streams(values))
    return ResolvedNode(
        name=NODE,
        package="instructvla_ros",
        executable=NODE,
        module=f"instructvla_ros.nodes.{NODE}",
        namespace=values["namespace"],
        params_file="",
        parameters=(*topics, ("clock_rate_hz", CLOCK_RATE_HZ)) if clock else topics,
        remappings=(),
        required=True,
        nice=0,
    )
