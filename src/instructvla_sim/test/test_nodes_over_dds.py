"""sim_node over real DDS: what the driver's clients and the cameras' readers see, with the genuine types."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")

from builtin_interfaces.msg import Duration  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand, JointTrajectoryCommand  # noqa: E402
from interbotix_xs_msgs.srv import (  # noqa: E402
    MotorGains,
    OperatingModes,
    Reboot,
    RegisterValues,
    RobotInfo,
    TorqueEnable,
)
from over_dds import LIMIT_S, Spinner, ask, until  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from instructvla_msgs.msg import Reasoning  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402
from instructvla_sim.nodes import sim_node  # noqa: E402
from instructvla_sim.nodes.sim_node import SimNode  # noqa: E402

NAMES = [
    "waist",
    "shoulder",
    "elbow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "gripper",
    "left_finger",
    "right_finger",
]
JOINT_STATES = "/wx250s/joint_states"
IMAGE, INFO = "/camera/camera/color/image_raw", "/camera/camera/color/camera_info"


class Bench:
    """The node under test and a client of it, each with a thread of its own."""

    def __init__(self, domain: int) -> None:
        environment.apply_defaults(os.environ)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        overrides = {"seed": 4, "instruction": "put the lemon on the plate", "multisampling": 0, "primary_rate_hz": 4.0}
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        self.sim = SimNode(namespace="/instructvla/sim", context=self.context, parameter_overrides=given)
        self.client = rclpy.create_node("client", context=self.context)
        self.heard: dict[str, list[Any]] = {JOINT_STATES: [], "/instructvla/sim/task_status": [], "/diagnostics": []}
        self.client.create_subscription(DiagnosticArray, "/diagnostics", self.heard["/diagnostics"].append, 10)
        self.client.create_subscription(JointState, JOINT_STATES, self.heard[JOINT_STATES].append, 10)
        status = self.heard["/instructvla/sim/task_status"]
        self.client.create_subscription(String, "/instructvla/sim/task_status", status.append, qos.TASK_STATUS)
        self.group = self.client.create_publisher(JointGroupCommand, "/wx250s/commands/joint_group", 10)
        self.single = self.client.create_publisher(JointSingleCommand, "/wx250s/commands/joint_single", 10)
        self.path = self.client.create_publisher(JointTrajectoryCommand, "/wx250s/commands/joint_trajectory", 10)
        self.reasoning = self.client.create_publisher(Reasoning, "/instructvla/reasoning", qos.REASONING)
        self.spinners = [Spinner(self.context, node) for node in (self.sim, self.client)]
        publishers = (self.group, self.single, self.path, self.reasoning)
        assert until(lambda: all(publisher.get_subscription_count() for publisher in publishers))

    def close(self) -> None:
        for spinner in self.spinners:
            spinner.end()
        self.sim.destroy_node()
        self.client.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def call(self, kind: Any, service: str, **request: Any) -> Any:
        return ask(self.client, kind, service, **request)

    def set(self, **values: Any) -> list[Any]:
        wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        return list(self.call(SetParameters, "/instructvla/sim/sim_node/set_parameters", parameters=wanted).results)

    def state(self) -> JointState:
        """A joint state that arrives from now on."""
        seen = len(self.heard[JOINT_STATES])
        assert until(lambda: len(self.heard[JOINT_STATES]) > seen), "no joint state"
        return self.heard[JOINT_STATES][-1]

    def status(self) -> dict[str, Any]:
        """A task status that arrives from now on."""
        heard = self.heard["/instructvla/sim/task_status"]
        seen = len(heard)
        assert until(lambda: len(heard) > seen), "no task status"
        return dict(json.loads(heard[-1].data))

    def first(self, kind: Any, topic: str, count: int = 1) -> list[Any]:
        """The first messages of a topic for a new subscriber."""
        found: list[Any] = []
        subscription = self.client.create_subscription(kind, topic, found.append, 10)
        assert until(lambda: len(found) >= count), topic
        self.client.destroy_subscription(subscription)
        return found


@pytest.fixture(scope="module")
def bench(new_ros_domain: Callable[[], int]) -> Iterator[Bench]:
    made = Bench(new_ros_domain())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(bench: Bench) -> None:
    """Every test begins in the same scene, with the controller's profile and the motors on."""
    bench.set(fault="none", seed=4)
    bench.call(Reboot, "/wx250s/reboot_motors", cmd_type="group", name="all", enable=True, smart_reboot=False)
    profile = {"mode": "position", "profile_type": "time", "profile_velocity": 250, "profile_acceleration": 100}
    bench.call(OperatingModes, "/wx250s/set_operating_modes", cmd_type="group", name="arm", **profile)
    bench.call(Trigger, "/instructvla/sim/reset")


def test_joint_states_have_the_drivers_names_order_and_reliability(bench: Bench) -> None:
    message = bench.state()
    assert message.name == NAMES
    assert len(message.position) == len(message.velocity) == len(message.effort) == 9
    assert message.position[7] == -message.position[8] > 0.0
    publisher = bench.client.get_publishers_info_by_topic(JOINT_STATES)[0]
    assert publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    age_s = bench.client.get_clock().now().nanoseconds * 1e-9 - message.header.stamp.sec
    assert -1.0 < age_s < LIMIT_S


def test_a_group_command_moves_the_arm_and_a_single_one_the_gripper(bench: Bench) -> None:
    goal = list(bench.state().position[:6])
    goal[0] += 0.2
    bench.group.publish(JointGroupCommand(name="arm", cmd=goal))
    bench.single.publish(JointSingleCommand(name="gripper", cmd=-250.0))
    assert until(lambda: abs(bench.state().position[0] - goal[0]) < 0.02)
    assert until(lambda: bench.state().position[7] < 0.02), "the gripper did not close"


def test_a_joint_trajectory_is_played_point_by_point(bench: Bench) -> None:
    start = list(bench.state().position[:6])
    points = []
    for number, shift in enumerate((0.0, 0.1, 0.2)):
        positions = [start[0] + shift, *start[1:]]
        points.append(JointTrajectoryPoint(positions=positions, time_from_start=Duration(nanosec=number * 300_000_000)))
    bench.path.publish(JointTrajectoryCommand(cmd_type="group", name="arm", traj=JointTrajectory(points=points)))
    assert until(lambda: abs(bench.state().position[0] - start[0] - 0.2) < 0.02)


@pytest.mark.parametrize(
    "command",
    [
        JointGroupCommand(name="arm", cmd=[0.0] * 5),
        JointGroupCommand(name="leg", cmd=[0.0] * 6),
        JointGroupCommand(name="arm", cmd=[math.nan] * 6),
        JointGroupCommand(name="arm", cmd=[9.0] * 6),
    ],
)
def test_a_command_that_the_driver_or_the_servos_refuse_moves_nothing(bench: Bench, command: JointGroupCommand) -> None:
    before = np.array(bench.state().position[:6])
    commands = bench.sim._driver.commands
    bench.group.publish(command)
    assert until(lambda: bench.sim._driver.commands > commands)
    for _ in range(3):
        after = np.array(bench.state().position[:6])
        assert np.isfinite(after).all() and np.abs(after - before).max() < 0.01


def test_robot_info_tells_the_arm(bench: Bench) -> None:
    info = bench.call(RobotInfo, "/wx250s/get_robot_info", cmd_type="group", name="arm")
    assert list(info.joint_names) == NAMES[:6] and info.num_joints == 6
    assert info.mode == "position" and info.profile_type == "time"
    assert info.joint_lower_limits[1] == pytest.approx(-1.885, abs=1e-3)
    assert list(info.joint_state_indices) == [0, 1, 2, 3, 4, 5]
    assert list(info.joint_sleep_positions) == pytest.approx([0, -1.8, 1.55, 0, 0.8, 0])


def test_a_request_about_an_unknown_joint_gets_an_empty_answer(bench: Bench) -> None:
    info = bench.call(RobotInfo, "/wx250s/get_robot_info", cmd_type="single", name="tail")
    assert info.num_joints == 0 and not info.joint_names


def test_modes_profiles_registers_and_gains_are_kept(bench: Bench) -> None:
    def read(name: str, reg: str) -> list[int]:
        kind = "group" if name == "arm" else "single"
        answer = bench.call(RegisterValues, "/wx250s/get_motor_registers", cmd_type=kind, name=name, reg=reg)
        return list(answer.values)

    assert read("arm", "Profile_Velocity") == [250] * 6
    write = {"cmd_type": "single", "name": "waist", "reg": "Profile_Acceleration", "value": 33}
    bench.call(RegisterValues, "/wx250s/set_motor_registers", **write)
    assert read("arm", "Profile_Acceleration") == [33, 100, 100, 100, 100, 100]
    gains = {"kp_pos": 801, "ki_pos": 2, "kd_pos": 3, "k1": 4, "k2": 5, "kp_vel": 6, "ki_vel": 7}
    bench.call(MotorGains, "/wx250s/set_motor_pid_gains", cmd_type="single", name="waist", **gains)
    assert read("waist", "Position_P_Gain") == [801] and read("waist", "Velocity_I_Gain") == [7]
    assert read("waist", "No_Such_Register") == []
    assert read("gripper", "Operating_Mode") == [16]


def test_without_torque_the_arm_sinks_and_with_it_it_stays(bench: Bench) -> None:
    before = np.array(bench.state().position[:6])
    bench.call(TorqueEnable, "/wx250s/torque_enable", cmd_type="group", name="arm", enable=False)
    assert until(lambda: np.abs(np.array(bench.state().position[:6]) - before).max() > 0.05)
    bench.call(TorqueEnable, "/wx250s/torque_enable", cmd_type="group", name="arm", enable=True)
    goal = bench.state().position[:6]
    assert until(lambda: np.abs(np.array(bench.state().velocity[:6])).max() < 0.02)
    assert np.abs(np.array(bench.state().position[:6]) - goal).max() < 0.3


def test_both_cameras_send_images_with_true_intrinsics(bench: Bench) -> None:
    image = bench.first(Image, IMAGE)[0]
    assert (image.width, image.height, image.encoding, image.step) == (640, 480, "rgb8", 1920)
    assert image.header.frame_id == "camera_color_optical_frame"
    pixels = np.frombuffer(image.data, np.uint8).reshape(480, 640, 3)
    assert pixels.std() > 10.0, "the image is blank"
    images: list[Image] = []
    infos: list[CameraInfo] = []
    subscriptions = [
        bench.client.create_subscription(kind, topic, found.append, 10)
        for kind, topic, found in ((Image, IMAGE, images), (CameraInfo, INFO, infos))
    ]
    assert until(lambda: _stamps(images) & _stamps(infos))
    for subscription in subscriptions:
        bench.client.destroy_subscription(subscription)
    with bench.sim._live.locked() as world:
        k = world.camera_info("primary").k
    assert np.allclose(np.array(infos[0].k).reshape(3, 3), k) and k[0, 2] == 320.0
    assert bench.first(Image, "/wrist/image_raw")[0].header.frame_id == "wrist_color_optical_frame"


def test_an_image_is_stamped_with_the_moment_it_shows(bench: Bench) -> None:
    images = bench.first(Image, IMAGE, 2)
    now_s = bench.client.get_clock().now().nanoseconds * 1e-9
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in images]
    assert stamps[0] < stamps[1] <= now_s
    assert now_s - stamps[0] < LIMIT_S


def test_the_status_tells_the_task_of_the_scene(bench: Bench) -> None:
    status = bench.status()
    assert status["success"] is False and status["scene"] == 4
    assert status["instruction"] == "put the lemon on the plate"


def test_a_new_instruction_is_judged_and_one_that_is_not_plain_says_why(bench: Bench) -> None:
    number = bench.sim._instruction_id + 1
    bench.reasoning.publish(Reasoning(instruction_id=number, instruction="Pick up the lemon"))
    assert until(lambda: bench.status()["instruction"] == "pick up the lemon")
    bench.reasoning.publish(Reasoning(instruction_id=number + 1, instruction="I am bored"))
    assert until(lambda: "bored" in bench.status()["problem"])


def test_reset_makes_the_scene_of_the_seed_and_instruction_that_were_set(bench: Bench) -> None:
    assert all(result.successful for result in bench.set(seed=11, instruction="pick up the carrot"))
    answer = bench.call(Trigger, "/instructvla/sim/reset")
    assert answer.success and "11" in answer.message
    assert until(lambda: bench.status()["scene"] == 11)
    assert bench.status()["instruction"] == "pick up the carrot"
    bench.set(seed=4, instruction="put the lemon on the plate")


def test_bad_parameters_are_refused_while_it_runs(bench: Bench) -> None:
    for values, said in (
        ({"families": ["juggle"]}, "juggle"),
        ({"fault": "earthquake"}, "nan_joint_states"),
        ({"robot_name": "other"}, "start only"),
    ):
        result = bench.set(**values)[0]
        assert not result.successful and said in result.reason


def test_the_simulated_hardware_can_fail(bench: Bench) -> None:
    bench.set(fault="nan_joint_states")
    assert until(lambda: math.isnan(bench.state().position[0]))
    bench.set(fault="no_joint_states")
    time_of_last = bench.heard[JOINT_STATES]
    assert until(lambda: _quiet(time_of_last))
    bench.set(fault="none")
    assert math.isfinite(bench.state().position[0])
    about = {"cmd_type": "group", "name": "arm", "reg": "Hardware_Error_Status"}
    for fault, count in (("bus_failure", 0), ("none", 6)):
        bench.set(fault=fault)
        unread = fault != "none"
        assert until(lambda u=unread: (list(bench.state().position[:7]) == [-math.pi] * 7) == u)
        assert len(bench.call(RegisterValues, "/wx250s/get_motor_registers", **about).values) == count
    bench.set(fault="no_primary_images")
    subscriptions = [
        bench.client.create_subscription(Image, topic, lambda _: None, 10) for topic in (IMAGE, "/wrist/image_raw")
    ]
    assert until(lambda: bench.sim._watched("wrist"))
    assert not bench.sim._watched("primary")
    bench.set(fault="none")
    assert until(lambda: bench.sim._watched("primary"))
    for subscription in subscriptions:
        bench.client.destroy_subscription(subscription)


def test_a_fault_that_is_set_again_acts_again(bench: Bench) -> None:
    def error() -> list[int]:
        about = {"cmd_type": "single", "name": "shoulder", "reg": "Hardware_Error_Status"}
        return list(bench.call(RegisterValues, "/wx250s/get_motor_registers", **about).values)

    for _ in range(2):
        assert bench.set(fault="servo_overload")[0].successful
        assert error() == [32]
        bench.call(Reboot, "/wx250s/reboot_motors", cmd_type="group", name="all", enable=True, smart_reboot=False)
        assert error() == [0]
    bench.set(fault="none")


def test_another_publisher_on_the_robots_topics_is_noticed(bench: Bench) -> None:
    def said() -> str:
        heard = bench.heard["/diagnostics"]
        return str(heard[-1].status[0].message) if heard else ""

    stranger = bench.client.create_publisher(JointState, JOINT_STATES, 10)
    assert until(lambda: f"others publish on {JOINT_STATES}" in said())
    bench.client.destroy_publisher(stranger)
    assert until(lambda: said() and "others" not in said())


def test_a_second_arm_of_the_same_names_does_not_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_node, "_LOOK_S", LIMIT_S)
    with pytest.raises(ValueError, match=f"another arm publishes {JOINT_STATES}.*ROS_DOMAIN_ID"):
        SimNode(namespace="/second/sim", context=bench.context)


def test_a_fault_given_at_the_start_is_there_from_the_start(bench: Bench) -> None:
    def start(fault: str) -> SimNode:
        given = {"robot_name": "other", "fault": fault, "multisampling": 0}
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        return SimNode(namespace="/second/sim", context=bench.context, parameter_overrides=overrides)

    with pytest.raises(ValueError, match="reflex is a fault of a Franka"):
        start("reflex")
    node = start("servo_overload")
    try:
        with node._live.locked() as world:
            assert world.arm.get_registers("single", "shoulder", "Hardware_Error_Status") == (32,)
    finally:
        node.destroy_node()


def _stamps(messages: list[Any]) -> set[tuple[int, int]]:
    return {(m.header.stamp.sec, m.header.stamp.nanosec) for m in tuple(messages)}


def _quiet(heard: list[Any]) -> bool:
    count = len(heard)
    time.sleep(0.3)
    return len(heard) == count
