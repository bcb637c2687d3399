"""arm_controller_node: action chunks in, neutral commands out, for any arm whose own controllers take one of them.

Topics and services of controller_node.py. Out, as the parameter `outputs` says and under names to choose or remap:
trajectory_msgs/JointTrajectory, geometry_msgs/PoseStamped (absolute target), geometry_msgs/TwistStamped, and the
gripper's width as control_msgs/GripperCommand (position is the width in m).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from instructvla_ros.control import Command, WidthArmController
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.nodes.controller_node import ControllerNode, ControllerParts
from instructvla_ros.nodes.driver_checks import wait_for_joint_states
from instructvla_ros.nodes.managed import main_of
from instructvla_ros.nodes.routes import JointTrajectoryRoute, PoseRoute, Route, TwistConfig, TwistRoute, WidthRoute
from instructvla_ros.nodes.settings import watch_config
from instructvla_ros.nodes.settings_arm import ARM, ArmSettings, arm_settings, width_arm_config
from instructvla_ros.robots import arm_named


class NeutralDriver:
    """Implements `Driver` for an arm of which only topics are known."""

    problem, problem_id, notice = "", "F22", ""

    def __init__(self, node: Any, settings: ArmSettings, timing: TrackerConfig, controller: WidthArmController) -> None:
        arm = controller.arm
        self._node, self._arm, self._settings = node, arm, settings
        self.joint_states_topic, self.base_frame = settings.joint_states_topic, settings.base_frame
        topics, frame = settings.topics, settings.base_frame
        twist = TwistConfig(gain_per_s=settings.twist_gain_per_s)

        def measured() -> np.ndarray | None:
            return controller.fresh_rad(node.get_clock().now().nanoseconds * 1e-9)

        makers: Mapping[str, Any] = {
            "joint_trajectory": lambda: JointTrajectoryRoute(node, topics.joint_trajectory, arm, timing),
            "target_pose": lambda: PoseRoute(node, topics.target_pose, arm, frame),
            "twist": lambda: TwistRoute(node, topics.twist, arm, frame, measured, twist),
            "gripper": lambda: WidthRoute(node, topics.gripper, settings.gripper_effort_n),
        }
        self._routes: list[Route] = [makers[name]() for name in settings.outputs]

    def check(self) -> None:
        """Joint states of this arm are heard; raises SetupError."""
        wait_for_joint_states(self._node, self._arm, self.joint_states_topic, self._settings.service_timeout_s)

    def prepare(self) -> None:
        """Nothing to set up: the arm's controllers are its owner's."""

    def recover(self, anew: bool) -> None:
        """Nothing is known of the arm's own faults; but its joint states must be heard again."""
        if anew:
            self.check()

    def send(self, command: Command) -> None:
        """Publish on all outputs."""
        for route in self._routes:
            route.send(command)

    def stopped(self) -> None:
        """The outputs repeat where to stay."""

    def rest(self) -> None:
        """No more speed; the last trajectory ends at rest."""
        for route in self._routes:
            route.rest()

    def other_publishers(self) -> int:
        """How many publishers besides these command the arm."""
        return sum(max(0, self._node.count_publishers(route.topic) - 1) for route in self._routes)

    def close(self) -> None:
        """Destroy the publishers."""
        for route in self._routes:
            route.close()


class ArmControllerNode(ControllerNode):
    """`ControllerNode` of any arm in `instructvla_ros.robots`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("arm_controller_node", ARM, **options)

    def make(self, values: Mapping[str, Any]) -> ControllerParts:
        settings = arm_settings(values)
        arm = arm_named(settings.arm)
        config = width_arm_config(values)
        controller = WidthArmController(arm, config)
        driver = NeutralDriver(self, settings, config.interpolator, controller)
        rates = settings.control_rate_hz, settings.state_rate_hz
        return ControllerParts(controller, driver, *rates, watch_config(values))


def main() -> None:
    """Entry point."""
    main_of(ArmControllerNode)


if __name__ == "__main__":
    main()
