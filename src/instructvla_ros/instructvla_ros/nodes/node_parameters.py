"""The parameters of every node by its name, for the tests and the reference pages."""

from __future__ import annotations

from collections.abc import Mapping

from instructvla_ros.nodes.parameters import Parameter
from instructvla_ros.nodes.settings import CONTROLLER, EXPERT, MANAGER, REASONING, RECORDER, REPLAY
from instructvla_ros.nodes.settings_arm import ARM
from instructvla_ros.nodes.settings_franka import FRANKA

NODE_PARAMETERS: Mapping[str, list[Parameter]] = {
    "reasoning_node": REASONING,
    "action_expert_node": EXPERT,
    "widowx_controller_node": CONTROLLER,
    "franka_controller_node": FRANKA,
    "arm_controller_node": ARM,
    "lifecycle_manager_node": MANAGER,
    "recorder_node": RECORDER,
    "replay_node": REPLAY,
}
