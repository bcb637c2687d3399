"""The Interbotix driver as the controller sees it: its services with time limits, and its two command
topics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes, RobotInfo, TorqueEnable
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from instructvla_ros.control.kinematics import JOINT_NAMES
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.settings import DriverSettings


class DriverServices:
    """Blocking service calls from within a transition, whose own executor is busy with that transition.

    They go through a node of their own, which lives only as long as the transition.
    """

    def __init__(self, node: Node, executor: SingleThreadedExecutor, settings: DriverSettings) -> None:
        self._node, self._executor = node, executor
        self._namespace, self._timeout_s = f"/{settings.robot_name}", settings.service_timeout_s

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The answer; raises SetupError when the service is not there or does not answer in time."""
        service = f"{self._namespace}/{name}"
        client = self._node.create_client(kind, service)
        if not client.wait_for_service(self._timeout_s):
            raise SetupError(
                f"no driver offers {service} within {self._timeout_s} s{self._hint()}; "
                "start the driver, or set robot_name"
            )
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, self._timeout_s)
        if not future.done():
            raise SetupError(f"the driver did not answer {service} within {self._timeout_s} s; see its log")
        return future.result()

    def _hint(self) -> str:
        topics = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if "sensor_msgs/msg/JointState" in types and self._node.count_publishers(name) > 0
        ]
        return f" (joint states are published on: {', '.join(sorted(topics))})" if topics else ""


class DriverClient:
    """Only this class makes publishers to the robot; the controller node is its only user."""

    def __init__(self, node: Any, settings: DriverSettings) -> None:
        self._node, self._settings = node, settings
        base = f"/{settings.robot_name}/commands"
        self._joints = node.create_publisher(JointGroupCommand, f"{base}/joint_group", qos.DRIVER_COMMANDS)
        self._single = node.create_publisher(JointSingleCommand, f"{base}/joint_single", qos.DRIVER_COMMANDS)

    def close(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._joints)
        self._node.destroy_publisher(self._single)

    @contextmanager
    def _services(self) -> Iterator[DriverServices]:
        context = self._node.context
        node = Node(
            f"{self._node.get_name()}_setup",
            namespace=self._node.get_namespace(),
            context=context,
            use_global_arguments=False,
            start_parameter_services=False,
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            yield DriverServices(node, executor, self._settings)
        finally:
            executor.shutdown()
            node.destroy_node()

    def check_robot(self) -> None:
        """Ask the driver who it is; raises SetupError when it is not there or not a wx250s."""
        request = RobotInfo.Request(cmd_type="group", name=self._settings.arm_group)
        with self._services() as services:
            info = services.call(RobotInfo, "get_robot_info", request)
        found = tuple(info.joint_names)[: info.num_joints]
        if found != JOINT_NAMES:
            raise SetupError(
                f"group {self._settings.arm_group!r} of /{self._settings.robot_name} has the joints {found}; "
                f"this controller is for a wx250s with {JOINT_NAMES}"
            )

    def prepare(self) -> None:
        """Operating modes and profile once, then torque; raises SetupError when the driver does not
        answer."""
        settings = self._settings
        arm = OperatingModes.Request(cmd_type="group", name=settings.arm_group, mode="position")
        arm.profile_type = "time"
        arm.profile_velocity, arm.profile_acceleration = settings.profile_time_ms, settings.profile_acceleration_ms
        gripper = OperatingModes.Request(cmd_type="single", name=settings.gripper_joint, mode="pwm")
        gripper.profile_type = "time"
        motors = (("group", settings.arm_group), ("single", settings.gripper_joint))
        with self._services() as services:
            if settings.torque_on:
                for cmd_type, name in motors:
                    torque = TorqueEnable.Request(cmd_type=cmd_type, name=name, enable=True)
                    services.call(TorqueEnable, "torque_enable", torque)
            for request in (arm, gripper):
                services.call(OperatingModes, "set_operating_modes", request)

    def send_joints(self, goal_rad: np.ndarray) -> None:
        """Publish one joint goal (6,) for the arm."""
        self._joints.publish(JointGroupCommand(name=self._settings.arm_group, cmd=goal_rad.tolist()))

    def send_gripper(self, pwm: float) -> None:
        """Publish the gripper's PWM."""
        self._single.publish(JointSingleCommand(name=self._settings.gripper_joint, cmd=float(pwm)))

    def other_publishers(self) -> int:
        """How many publishers besides this one command the arm's joints; two commanders fight."""
        return max(0, self._node.count_publishers(self._joints.topic_name) - 1)
