"""The Interbotix driver as the controller sees it: its services with time limits, and its two command
topics."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes, RobotInfo, TorqueEnable
from rclpy.callback_groups import ReentrantCallbackGroup

from instructvla_ros.control.kinematics import JOINT_NAMES
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.settings import DriverSettings


class DriverClient:
    """Calls block their thread until the answer or the time limit, so the node needs an executor of two
    threads.

    Only this class makes publishers to the robot; the controller node is its only user.
    """

    def __init__(self, node: Any, settings: DriverSettings) -> None:
        self._node, self._settings = node, settings
        self._namespace = f"/{settings.robot_name}"
        group = ReentrantCallbackGroup()
        self._clients = {
            name: node.create_client(kind, f"{self._namespace}/{name}", callback_group=group)
            for name, kind in (
                ("get_robot_info", RobotInfo),
                ("set_operating_modes", OperatingModes),
                ("torque_enable", TorqueEnable),
            )
        }
        self._joints = node.create_publisher(
            JointGroupCommand, f"{self._namespace}/commands/joint_group", qos.DRIVER_COMMANDS
        )
        self._single = node.create_publisher(
            JointSingleCommand, f"{self._namespace}/commands/joint_single", qos.DRIVER_COMMANDS
        )

    def close(self) -> None:
        """Destroy clients and publishers."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._node.destroy_publisher(self._joints)
        self._node.destroy_publisher(self._single)

    def check_robot(self) -> None:
        """Ask the driver who it is; raises SetupError when it is not there or not a wx250s."""
        request = RobotInfo.Request(cmd_type="group", name=self._settings.arm_group)
        info = self._call("get_robot_info", request)
        found = tuple(info.joint_names)[: info.num_joints]
        if found != JOINT_NAMES:
            raise SetupError(
                f"group {self._settings.arm_group!r} of {self._namespace} has the joints {found}; "
                f"this controller is for a wx250s with {JOINT_NAMES}"
            )

    def prepare(self) -> None:
        """Operating modes and profile once, then torque; raises SetupError when the driver does not
        answer."""
        settings = self._settings
        if settings.torque_on:
            for cmd_type, name in (("group", settings.arm_group), ("single", settings.gripper_joint)):
                self._call("torque_enable", TorqueEnable.Request(cmd_type=cmd_type, name=name, enable=True))
        arm = OperatingModes.Request(cmd_type="group", name=settings.arm_group, mode="position")
        arm.profile_type = "time"
        arm.profile_velocity, arm.profile_acceleration = (
            settings.profile_time_ms,
            settings.profile_acceleration_ms,
        )
        self._call("set_operating_modes", arm)
        gripper = OperatingModes.Request(cmd_type="single", name=settings.gripper_joint, mode="pwm")
        gripper.profile_type = "time"
        self._call("set_operating_modes", gripper)

    def send_joints(self, goal_rad: np.ndarray) -> None:
        """Publish one joint goal (6,) for the arm."""
        self._joints.publish(JointGroupCommand(name=self._settings.arm_group, cmd=goal_rad.tolist()))

    def send_gripper(self, pwm: float) -> None:
        """Publish the gripper's PWM."""
        self._single.publish(JointSingleCommand(name=self._settings.gripper_joint, cmd=float(pwm)))

    def other_publishers(self) -> int:
        """How many publishers besides this one command the arm's joints; two commanders fight."""
        return max(0, self._node.count_publishers(self._joints.topic_name) - 1)

    def _call(self, name: str, request: Any) -> Any:
        client, timeout_s = self._clients[name], self._settings.service_timeout_s
        service = f"{self._namespace}/{name}"
        if not client.wait_for_service(timeout_s):
            raise SetupError(
                f"no driver offers {service} within {timeout_s} s{self._hint()}; "
                "start the driver, or set robot_name"
            )
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout_s):
            client.remove_pending_request(future)
            raise SetupError(f"the driver did not answer {service} within {timeout_s} s; see its log")
        return future.result()

    def _hint(self) -> str:
        topics = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if "sensor_msgs/msg/JointState" in types and self._node.count_publishers(name) > 0
        ]
        return f" (joint states are published on: {', '.join(sorted(topics))})" if topics else ""
