"""The Interbotix driver's topics and services over a simulated arm: xs_sdk's names, types, qualities of service.

Like the driver it passes commands on without limits, NaN checks or a time limit; only wrong names and lengths are
refused. A service that refuses logs why and answers with an empty response: the vendor's types have no field for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand, JointTrajectoryCommand
from interbotix_xs_msgs.srv import MotorGains, OperatingModes, Reboot, RegisterValues, RobotInfo, TorqueEnable
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from instructvla_sim.arm import SimulatedArm
from instructvla_sim.nodes.live_world import LiveWorld
from instructvla_sim.nodes.messages import fill_robot_info, trajectory_times_s, unread

DRIVER_QOS = QoSProfile(depth=10)
"""Reliable, volatile, the last ten: what the driver uses on every topic."""
OVERLOAD = 1 << 5
"""Bit of Hardware_Error_Status."""
_GAINS = ("kp_pos", "ki_pos", "kd_pos", "k1", "k2", "kp_vel", "ki_vel")
_GAIN_REGISTERS = (
    "Position_P_Gain",
    "Position_I_Gain",
    "Position_D_Gain",
    "Feedforward_1st_Gain",
    "Feedforward_2nd_Gain",
    "Velocity_P_Gain",
    "Velocity_I_Gain",
)


class DriverServer:
    """Callbacks run in the node's executor and only take the world's lock."""

    def __init__(self, node: Any, robot_name: str, live: LiveWorld) -> None:
        self._live, self._log = live, node.get_logger()
        base = f"/{robot_name}"
        self._joint_states = node.create_publisher(JointState, f"{base}/joint_states", DRIVER_QOS)
        for name, kind, take in (
            ("joint_group", JointGroupCommand, self._on_group),
            ("joint_single", JointSingleCommand, self._on_single),
            ("joint_trajectory", JointTrajectoryCommand, self._on_trajectory),
        ):
            node.create_subscription(kind, f"{base}/commands/{name}", take, DRIVER_QOS)
        for name, kind, answer in (
            ("torque_enable", TorqueEnable, self._on_torque),
            ("reboot_motors", Reboot, self._on_reboot),
            ("get_robot_info", RobotInfo, self._on_info),
            ("set_operating_modes", OperatingModes, self._on_modes),
            ("set_motor_pid_gains", MotorGains, self._on_gains),
            ("set_motor_registers", RegisterValues, self._on_set_registers),
            ("get_motor_registers", RegisterValues, self._on_get_registers),
        ):
            node.create_service(kind, f"{base}/{name}", answer)
        self.commands = 0
        self.refused = 0
        self._bus_failed = False

    @property
    def joint_states_topic(self) -> str:
        """Absolute name of the topic."""
        return str(self._joint_states.topic_name)

    def publish(self, message: JointState) -> None:
        """Publish joint states; from any thread."""
        self._joint_states.publish(unread(message) if self._bus_failed else message)

    def inject(self, fault: str) -> str:
        """Make the hardware fail; returns "" or why this robot cannot. What is no fault of the arm changes nothing, but
        that its bus works again: commands had got through meanwhile, only nothing could be read."""
        if fault in ("reflex", "user_stop"):
            return f"{fault} is a fault of a Franka; this is a WidowX"
        self._bus_failed = fault == "bus_failure"
        if fault == "servo_overload":
            with self._live.locked() as world:
                world.arm.set_hardware_error("shoulder", OVERLOAD)
        return ""

    # Topics.

    def _on_group(self, message: JointGroupCommand) -> None:
        self._command(lambda arm: arm.command_group(message.name, message.cmd))

    def _on_single(self, message: JointSingleCommand) -> None:
        self._command(lambda arm: arm.command_single(message.name, message.cmd))

    def _on_trajectory(self, message: JointTrajectoryCommand) -> None:
        points = message.traj.points
        times_s, lossy = trajectory_times_s(points)
        if lossy:
            self._log.warning(
                "the driver reads only the nanosec half of time_from_start: points at 1 s or later come too early"
            )
        positions = [list(point.positions) for point in points]
        self._command(lambda arm: arm.command_trajectory(message.cmd_type, message.name, times_s, positions))

    def _command(self, give: Callable[[SimulatedArm], bool]) -> None:
        with self._live.locked() as world:
            accepted = give(world.arm)
        self.commands += 1
        self.refused += not accepted

    # Services.

    def _on_torque(self, request: TorqueEnable.Request, response: Any) -> Any:
        self._call(lambda arm: arm.torque_enable(request.cmd_type, request.name, request.enable))
        return response

    def _on_reboot(self, request: Reboot.Request, response: Any) -> Any:
        self._call(lambda arm: arm.reboot(request.cmd_type, request.name, request.enable, request.smart_reboot))
        return response

    def _on_info(self, request: RobotInfo.Request, response: RobotInfo.Response) -> RobotInfo.Response:
        info = self._call(lambda arm: arm.robot_info(request.cmd_type, request.name))
        return response if info is None else fill_robot_info(response, info)

    def _on_modes(self, request: OperatingModes.Request, response: Any) -> Any:
        r = request
        profile = (r.profile_type, r.profile_velocity, r.profile_acceleration)
        self._call(lambda arm: arm.set_operating_modes(r.cmd_type, r.name, r.mode, *profile))
        return response

    def _on_gains(self, request: MotorGains.Request, response: Any) -> Any:
        def write(arm: SimulatedArm) -> None:
            for field, register in zip(_GAINS, _GAIN_REGISTERS, strict=True):
                arm.set_registers(request.cmd_type, request.name, register, getattr(request, field))

        self._call(write)
        return response

    def _on_set_registers(self, request: RegisterValues.Request, response: Any) -> Any:
        self._call(lambda arm: arm.set_registers(request.cmd_type, request.name, request.reg, request.value))
        return response

    def _on_get_registers(self, request: RegisterValues.Request, response: Any) -> Any:
        if self._bus_failed:
            return response
        values = self._call(lambda arm: arm.get_registers(request.cmd_type, request.name, request.reg))
        response.values = list(values or ())
        return response

    def _call(self, ask: Callable[[SimulatedArm], Any]) -> Any:
        try:
            with self._live.locked() as world:
                return ask(world.arm)
        except ValueError as error:
            self._log.error(f"service refused: {error}")
            return None
