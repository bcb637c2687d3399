"""The WidowX controller node against the simulated Interbotix driver, which fails, goes away and comes back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")
pytest.importorskip("interbotix_xs_msgs.msg")

from interbotix_xs_msgs.msg import JointGroupCommand  # noqa: E402
from over_dds import Spinner, ask, until  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from instructvla_msgs.msg import SafetyState  # noqa: E402
from instructvla_ros.graph import environment  # noqa: E402
from instructvla_ros.nodes import qos  # noqa: E402
from instructvla_ros.nodes.managed import SetupError  # noqa: E402
from instructvla_ros.nodes.widowx_controller_node import WidowXControllerNode  # noqa: E402
from instructvla_sim import RenderSpec, World, WorldConfig  # noqa: E402
from instructvla_sim.nodes.driver_server import OVERLOAD, DriverServer  # noqa: E402
from instructvla_sim.nodes.live_world import LiveWorld, Pacer  # noqa: E402
from instructvla_sim.nodes.messages import joint_state_message  # noqa: E402

# A test machine is busy: only the faults that a test makes should show.
PATIENT = {
    "safety.max_image_age_s": 60.0,
    "safety.max_joint_state_age_s": 1.0,
    "safety.max_joint_silence_s": 2.0,
    "watch.silence_s": 60.0,
    "watch.bond_s": 60.0,
    "watch.clock_stop_s": 60.0,
    "error_poll_period_s": 0.2,
    "service_timeout_s": 3.0,
}


class Bench:
    """A world, the driver in front of it while it runs, the controller, and somebody who listens and asks."""

    def __init__(self, domain: int) -> None:
        environment.apply_defaults(os.environ)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        world = World(RenderSpec(width=64, height=48, samples=0), WorldConfig())
        self.live = LiveWorld(world, Pacer(0.01, 0.05), time.monotonic)
        self.server: DriverServer | None = None
        self.ending = threading.Event()
        self.physics = threading.Thread(target=self._physics, daemon=True)
        self.client = rclpy.create_node("client", namespace="/instructvla", context=self.context)
        self.states: list[SafetyState] = []
        self.goals: list[JointGroupCommand] = []
        self.client.create_subscription(SafetyState, "safety_state", self.states.append, qos.SAFETY_STATE)
        topic = "/wx250s/commands/joint_group"
        self.client.create_subscription(JointGroupCommand, topic, self.goals.append, qos.OBSERVED_COMMANDS)
        names = ["--ros-args", "-r", "~/reset:=/instructvla/reset", "-r", "~/stop:=/instructvla/stop"]
        self.controller = WidowXControllerNode(
            namespace="/instructvla", context=self.context, cli_args=names,
            parameter_overrides=[Parameter(name, value=value) for name, value in PATIENT.items()],
        )  # fmt: skip
        self.start_driver()
        self.physics.start()
        assert self.controller.trigger_configure().name == "SUCCESS", self.controller.problem
        assert self.controller.trigger_activate().name == "SUCCESS", self.controller.problem
        self.spinners = [Spinner(self.context, node) for node in (self.client, self.controller)]
        assert until(lambda: self.goals)

    def _physics(self) -> None:
        while not self.ending.is_set():
            state, server = self.live.advance(), self.server
            if state is not None and server is not None:
                server.publish(joint_state_message(state, self.client.get_clock().now().to_msg()))
            self.ending.wait(self.live.wait_s())

    def start_driver(self) -> None:
        """As after power-on: the driver's own profile, torque on."""
        with self.live.locked() as world:
            world.arm.reset_settings()
        self.driver = rclpy.create_node("xs_sdk", context=self.context)
        self.server = DriverServer(self.driver, "wx250s", self.live)
        self.driving = Spinner(self.context, self.driver)

    def end_driver(self) -> None:
        self.server = None
        self.driving.end()
        self.driver.destroy_node()

    def close(self) -> None:
        for spinner in self.spinners:
            spinner.end()
        self.controller.halt()
        self.controller.teardown()
        self.end_driver()
        self.ending.set()
        self.physics.join(10.0)
        for node in (self.controller, self.client):
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def trigger(self, name: str) -> Any:
        return ask(self.client, Trigger, name)

    def latched(self, fault_id: str) -> str:
        """Waits for a latch by this fault; its reason."""
        latches = [(mode, fault_id) for mode in (SafetyState.MODE_STOPPED, SafetyState.MODE_FAULT)]
        states = self.states
        assert until(lambda: (states[-1].mode, states[-1].fault_id) in latches), states[-1]
        return str(states[-1].reason)

    def no_goal(self) -> bool:
        """Whether no goal is sent any more."""
        threading.Event().wait(0.3)  # what is on its way arrives
        seen = len(self.goals)
        threading.Event().wait(0.5)
        return len(self.goals) == seen

    def measured(self) -> np.ndarray:
        with self.live.locked() as world:
            return np.array(world.arm.joint_state().positions[:6])

    def anchored(self) -> bool:
        """Resets until that is accepted; whether goals are sent then, for where the arm is."""
        assert until(lambda: self.trigger("reset").success), self.trigger("reset").message
        seen = len(self.goals)
        assert until(lambda: len(self.goals) > seen + 5), self.states[-1]
        return bool(np.abs(np.array(self.goals[-1].cmd) - self.measured()).max() < 0.05)

    def motor(self, name: str) -> Any:
        with self.live.locked() as world:
            return world.arm._motors[name]


@pytest.fixture(scope="module")
def bench(new_ros_domain: Callable[[], int]) -> Iterator[Bench]:
    made = Bench(new_ros_domain())
    yield made
    made.close()


def test_f24_a_bus_that_cannot_be_read_ends_all_goals_and_none_was_for_where_it_says_that_the_arm_is(
    bench: Bench,
) -> None:
    assert bench.server is not None
    seen = len(bench.goals)
    bench.server.inject("bus_failure")
    assert until(lambda: bench.states[-1].fault_id in ("F05", "F24"))
    bench.latched("F24")
    assert until(bench.no_goal)
    assert np.abs(np.array([goal.cmd for goal in bench.goals[seen:]]) - bench.measured()).max() < 0.05
    answer = bench.trigger("reset")
    assert not answer.success and "still stopped" in answer.message
    bench.server.inject("none")
    assert bench.anchored()


def test_f13_a_driver_that_ends_is_sent_nothing_and_is_set_up_anew_once_it_is_back(bench: Bench) -> None:
    bench.end_driver()
    assert "no usable joint state" in bench.latched("F24")
    assert until(bench.no_goal)
    answer = bench.trigger("reset")
    assert not answer.success and "no driver offers" in answer.message
    bench.start_driver()
    with bench.live.locked() as world:
        world.arm.torque_enable("group", "arm", False)
    assert bench.motor("shoulder").profile_velocity == 2000
    assert until(bench.no_goal), "it does not go on by itself"
    assert bench.anchored()
    for name in ("shoulder", "shoulder_shadow"):
        motor = bench.motor(name)
        assert motor.torque and (motor.profile_velocity, motor.profile_acceleration) == (250, 100)
    assert bench.motor("gripper").mode == "pwm"


def test_f24_an_overloaded_second_servo_latches_and_has_its_torque_again_after_reboot_and_reset(bench: Bench) -> None:
    with bench.live.locked() as world:
        world.arm.set_hardware_error("elbow_shadow", OVERLOAD)
    assert "overload" in bench.latched("F24")
    assert not bench.trigger("reset").success
    assert bench.trigger("widowx_controller_node/reboot_motors").success
    assert bench.anchored()
    assert bench.motor("elbow_shadow").torque


@pytest.mark.parametrize("fails", [True, False])
def test_f22_a_reset_that_takes_long_does_not_take_its_own_deafness_for_the_drivers_silence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def recover(anew: bool) -> None:
        time.sleep(PATIENT["safety.max_joint_silence_s"] + 1.0)
        if fails:
            raise SetupError("the robot stays in fault")

    bench.trigger("stop")
    bench.latched("F22")
    bench.states.clear()
    with monkeypatch.context() as patch:
        patch.setattr(bench.controller._driver, "recover", recover)
        assert bench.trigger("reset").success is not fails
    threading.Event().wait(0.5)
    assert not [state.reason for state in bench.states if "no usable joint state" in state.reason]
    assert bench.controller._controller is not None and not bench.controller._controller.ceased
    assert bench.anchored()


def test_f14_a_second_commander_is_not_fought_and_the_arm_is_anchored_where_it_left_it(bench: Bench) -> None:
    publisher = bench.client.create_publisher(JointGroupCommand, "/wx250s/commands/joint_group", qos.DRIVER_COMMANDS)
    assert until(lambda: bench.states[-1].fault_id == "F14")
    assert until(bench.no_goal)
    goal = bench.measured() + np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
    publisher.publish(JointGroupCommand(name="arm", cmd=goal.tolist()))
    assert until(lambda: np.abs(bench.measured() - goal).max() < 0.02)
    bench.goals.clear()
    bench.client.destroy_publisher(publisher)
    assert until(lambda: len(bench.goals) > 5)
    assert np.abs(np.array([message.cmd for message in bench.goals]) - goal).max() < 0.05
