"""franka_controller_node: action chunks in, commands for franka_ros2 (FR3, Panda) out.

Topics and services of controller_node.py. In: joint states, the robot state (mode and errors). Out, by the parameter
`route`: trajectories for the joint trajectory controller, poses for crisp's `target_pose`, poses or twists for MoveIt
Servo; the hand by its actions. The reset service leads out of a reflex.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from instructvla_ros.control import ArmModel, Command, FrankaController, WidthArmConfig, without_gripper
from instructvla_ros.nodes.controller_node import ControllerNode, ControllerParts
from instructvla_ros.nodes.franka_driver import FrankaDriver
from instructvla_ros.nodes.franka_state import RobotWatch
from instructvla_ros.nodes.managed import main_of
from instructvla_ros.nodes.settings import watch_config
from instructvla_ros.nodes.settings_arm import width_arm_config
from instructvla_ros.nodes.settings_franka import ARMS, FRANKA, franka_settings


class WatchedFrankaController(FrankaController):
    """`FrankaController` that holds while the robot's mode is not MOVE or not known, and is then anchored anew. A robot
    that has not said it for long has ceased (F24)."""

    def __init__(
        self, config: WidthArmConfig, arm: ArmModel, robot: RobotWatch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config, arm)
        self._robot, self._steady = robot, clock

    def tick(self, now_s: float) -> Command:
        """As of every controller."""
        self._robot.apply(self, now_s, self._steady())
        return super().tick(now_s)

    def excuse_silence(self) -> None:
        """As of every controller; the robot's mode too was not listened to."""
        super().excuse_silence()
        self._robot.forgive()


class FrankaControllerNode(ControllerNode):
    """`ControllerNode` of an FR3 or Panda."""

    def __init__(self, **options: Any) -> None:
        super().__init__("franka_controller_node", FRANKA, **options)

    def make(self, values: Mapping[str, Any]) -> ControllerParts:
        settings = franka_settings(values)
        config = width_arm_config(values)
        robot = RobotWatch(settings.robot_state_topic, settings.max_robot_state_age_s)
        arm = ARMS[settings.arm]
        arm = without_gripper(arm) if settings.hand.interface == "none" else arm
        controller = WatchedFrankaController(config, arm, robot)
        driver = FrankaDriver(
            self,
            controller.arm,
            settings,
            config.interpolator,
            lambda: controller.fresh_rad(self._now_s()),
            robot,
        )
        rates = settings.control_rate_hz, settings.state_rate_hz
        return ControllerParts(controller, driver, *rates, watch_config(values))


def main() -> None:
    """Entry point."""
    main_of(FrankaControllerNode)


if __name__ == "__main__":
    main()
