"""What drivers look for before they trust a robot."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import JointState

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.state import JointStateReader
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.service_calls import service_calls


def wait_for_joint_states(node: Any, arm: ArmModel, topic: str, timeout_s: float) -> None:
    """A joint state with all joints of the arm and its gripper comes in time; raises SetupError with what came."""
    reader, said = JointStateReader(arm), ["nothing is heard"]

    def fits(message: JointState) -> bool:
        try:
            reader.read(message.name, message.position, 0.0, 0.0)
        except ValueError as error:
            said[0] = str(error)
            return False
        return True

    with service_calls(node, timeout_s) as services:
        if services.hear(JointState, topic, qos.JOINT_STATES, fits) is None:
            said_last = f"joint states on {topic} within {timeout_s} s: {said[0]}"
            raise SetupError(f"{said_last}; start the robot, or set the topic")
