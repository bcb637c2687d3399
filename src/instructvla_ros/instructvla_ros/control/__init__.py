"""Pure control logic: imports neither rclpy nor torch, takes its clock from the caller."""

from instructvla_ros.control.arm import ArmModel, Fingers, without_gripper
from instructvla_ros.control.controller import ArmController, ControllerConfig
from instructvla_ros.control.franka import FR3, PANDA, FrankaController
from instructvla_ros.control.types import ActionChunk, ActionStep, Command, ExecutedStep, JointSample, Mode
from instructvla_ros.control.widowx import WidowXController, WidowXControllerConfig
from instructvla_ros.control.width_arm import WidthArmConfig, WidthArmController
from instructvla_ros.control.wx250s import WX250S

__all__ = [
    "FR3",
    "PANDA",
    "WX250S",
    "ActionChunk",
    "ActionStep",
    "ArmController",
    "ArmModel",
    "Command",
    "ControllerConfig",
    "ExecutedStep",
    "Fingers",
    "FrankaController",
    "JointSample",
    "Mode",
    "WidowXController",
    "WidowXControllerConfig",
    "WidthArmConfig",
    "WidthArmController",
    "without_gripper",
]
