"""Pure control logic: imports neither rclpy nor torch, takes its clock from the caller."""

from instructvla_ros.control.types import ActionChunk, ActionStep, Command, ExecutedStep, JointSample, Mode
from instructvla_ros.control.widowx import WidowXController, WidowXControllerConfig

__all__ = [
    "ActionChunk",
    "ActionStep",
    "Command",
    "ExecutedStep",
    "JointSample",
    "Mode",
    "WidowXController",
    "WidowXControllerConfig",
]
