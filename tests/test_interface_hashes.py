"""Stand-in interfaces equal the vendors': same RIHS01 type hash, so that our nodes and real drivers match.

data/vendor_type_hashes.json holds the hashes of the genuine packages: interbotix_xs_msgs for Humble, franka_msgs 2.5,
control_msgs 5.8 for Jazzy; those of controller_manager_msgs 4.31 and moveit_msgs 2.6 were computed from the vendors'
definitions.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")

REPOSITORY = Path(__file__).parents[1]
STAND_INS = REPOSITORY / "ros2_ws" / "src" / "interfaces"
VENDOR_HASHES: dict[str, str] = json.loads((Path(__file__).parent / "data" / "vendor_type_hashes.json").read_text())
USED: dict[str, set[str]] = {
    "interbotix_xs_msgs": {
        "msg/JointGroupCommand",
        "msg/JointSingleCommand",
        "msg/JointTrajectoryCommand",
        "srv/MotorGains",
        "srv/OperatingModes",
        "srv/Reboot",
        "srv/RegisterValues",
        "srv/RobotInfo",
        "srv/TorqueEnable",
    },
    "franka_msgs": {
        "msg/FrankaRobotState",
        "srv/SetCartesianStiffness",
        "srv/SetForceTorqueCollisionBehavior",
        "srv/SetFullCollisionBehavior",
        "srv/SetJointStiffness",
        "srv/SetLoad",
        "srv/SetStiffnessFrame",
        "srv/SetTCPFrame",
        "action/ErrorRecovery",
        "action/Grasp",
        "action/Homing",
        "action/Move",
    },
    "control_msgs": {"msg/GripperCommand", "action/FollowJointTrajectory", "action/GripperCommand"},
    "controller_manager_msgs": {"srv/SetHardwareComponentState", "srv/SwitchController"},
    "moveit_msgs": {"srv/ServoCommandType"},
}


def stand_in_types() -> list[str]:
    """Full names such as interbotix_xs_msgs/msg/JointGroupCommand, from the stand-ins' source files."""
    files = [file for kind in ("msg", "srv", "action") for file in STAND_INS.glob(f"*/{kind}/*.{kind}")]
    return sorted(f"{file.parts[-3]}/{file.parts[-2]}/{file.stem}" for file in files)


def installed_hash(type_name: str) -> str:
    """The type hash in the installed description of a type, searched as ROS does: overlays first."""
    package, kind, name = type_name.split("/")
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if prefix]
    for prefix in [*prefixes, sys.prefix]:
        description = Path(prefix, "share", package, kind, f"{name}.json")
        if description.is_file():
            entries = json.loads(description.read_text())["type_hashes"]
            return next(entry["hash_string"] for entry in entries if entry["type_name"] == type_name)
    raise AssertionError(f"{type_name} is not installed under {[*prefixes, sys.prefix]}; run tools/setup.sh")


@pytest.mark.parametrize("package", USED)
def test_a_stand_in_has_every_type_that_we_use(package: str) -> None:
    present = {name.split("/", 1)[1] for name in stand_in_types() if name.startswith(f"{package}/")}
    assert present >= USED[package]


@pytest.mark.parametrize("type_name", stand_in_types())
def test_a_stand_in_type_has_the_hash_of_the_genuine_one(type_name: str) -> None:
    assert installed_hash(type_name) == VENDOR_HASHES[type_name]


def test_the_hash_on_the_wire_is_the_vendors(new_ros_domain: Callable[[], int]) -> None:
    """The compiled type support, not only the installed description, carries the vendor's hash."""
    import rclpy
    from interbotix_xs_msgs.msg import JointGroupCommand

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_ros_domain())
    try:
        node = rclpy.create_node("hash_test", context=context)
        node.create_publisher(JointGroupCommand, "hash_test/joint_group", 1)
        (endpoint,) = node.get_publishers_info_by_topic("hash_test/joint_group")
        value = endpoint.topic_type_hash.value
        assert "RIHS01_" + bytes(value).hex() == VENDOR_HASHES["interbotix_xs_msgs/msg/JointGroupCommand"]
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
