"""A stand-in for the Interbotix driver and a camera over real DDS: the arm follows its goals by a first-order lag."""

from __future__ import annotations

from typing import Any

import numpy as np
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import OperatingModes, RegisterValues, RobotInfo, TorqueEnable
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from instructvla_ros.control.kinematics import JOINT_NAMES
from instructvla_ros.nodes import qos

NAMES = [*JOINT_NAMES, "gripper", "left_finger", "right_finger"]


class FakeRobot(Node):
    """Publishes joint states at 100 Hz and a camera at 20 Hz; records commands and service requests."""

    def __init__(self, driver: str, camera: str, joints: tuple[str, ...] = JOINT_NAMES, **options: Any) -> None:
        super().__init__("fake_robot", **options)
        self.q = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])
        self.finger_m = 0.037
        self.goal, self.pwm = self.q.copy(), 0.0
        self.goals: list[list[float]] = []
        self.requests: list[Any] = []
        self._modes: dict[str, tuple[str, str]] = {}
        self.camera_on = True
        self._pictures = 0
        self._joints = joints
        base = f"/{driver}"
        self._states = self.create_publisher(JointState, f"{base}/joint_states", 10)
        self._images = self.create_publisher(Image, camera, qos.IMAGE)
        self.create_subscription(JointGroupCommand, f"{base}/commands/joint_group", self._on_group, 10)
        self.create_subscription(JointSingleCommand, f"{base}/commands/joint_single", self._on_single, 10)
        self.create_service(RobotInfo, f"{base}/get_robot_info", self._on_info)
        self.create_service(OperatingModes, f"{base}/set_operating_modes", self._on_modes)
        self.create_service(RegisterValues, f"{base}/set_motor_registers", self._remember)
        self.create_service(TorqueEnable, f"{base}/torque_enable", self._remember)
        self.create_timer(0.01, self._publish_state)
        self.create_timer(0.05, self._publish_image)

    def _now(self) -> Any:
        return self.get_clock().now()

    def _publish_state(self) -> None:
        self.q = self.q + 0.2 * (self.goal - self.q)
        self.finger_m = float(np.clip(self.finger_m + 1e-6 * self.pwm, 0.015, 0.037))
        message = JointState(name=NAMES, position=[*self.q, 0.0, self.finger_m, -self.finger_m])
        message.header.stamp = self._now().to_msg()
        self._states.publish(message)

    def _publish_image(self) -> None:
        if self.camera_on:
            self._pictures += 1  # no two pictures of a real camera are alike
            level = 90 + self._pictures % 100
            message = Image(height=96, width=128, encoding="rgb8", step=384, data=bytes([level]) * (96 * 384))
            message.header.stamp, message.header.frame_id = self._now().to_msg(), "camera"
            self._images.publish(message)

    def _on_group(self, message: JointGroupCommand) -> None:
        self.goal = np.array(message.cmd)
        self.goals.append(list(message.cmd))

    def _on_single(self, message: JointSingleCommand) -> None:
        self.pwm = message.cmd

    def _on_info(self, request: RobotInfo.Request, response: RobotInfo.Response) -> RobotInfo.Response:
        response.joint_names, response.num_joints = list(self._joints), len(self._joints)
        response.mode, response.profile_type = self._modes.get(request.name, ("velocity", "velocity"))
        return response

    def _on_modes(self, request: OperatingModes.Request, response: Any) -> Any:
        self._modes[request.name] = request.mode, request.profile_type
        return self._remember(request, response)

    def _remember(self, request: Any, response: Any) -> Any:
        self.requests.append(request)
        return response
