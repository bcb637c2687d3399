"""sim_node: a simulated robot behind its driver's interface, its two cameras, and the task's verdict.

Stands where the driver (the Interbotix `xs_sdk`, or franka_ros2) and the camera nodes stand on a real robot; nothing
else of the graph changes. Topics, beside those of the driver: out the two camera topics with `camera_info` beside them,
`task_status` (std_msgs/String with JSON), `/diagnostics`; in the reasoning topic, which tells which task to judge.
Services, beside those of the driver: `reset` (std_srvs/Trigger): a new scene from the parameters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from instructvla_msgs.msg import Reasoning
from instructvla_ros.graph import environment
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.codecs import s_to_time
from instructvla_ros.nodes.managed import OwnerThread, main_of
from instructvla_ros.nodes.parameters import declare, read
from instructvla_ros.nodes.stats import LatencyStats, RateMeter
from instructvla_sim import RenderSpec, World, WorldConfig
from instructvla_sim.nodes.camera_rig import CameraRig, Picture, Shutter
from instructvla_sim.nodes.driver_server import DRIVER_QOS, DriverServer
from instructvla_sim.nodes.franka_server import FrankaServer
from instructvla_sim.nodes.live_world import LiveWorld, Pacer
from instructvla_sim.nodes.messages import camera_info_message, image_message, joint_state_message
from instructvla_sim.nodes.settings import LIVE_PARAMETERS, SIM, camera_info_topic, sim_settings
from instructvla_sim.nodes.task_monitor import TaskMonitor
from instructvla_sim.task_text import TaskTextError, task_of

_STATUS_PERIOD_S = 0.1
_DIAGNOSTICS_PERIOD_S = 1.0
_SLOW = 0.95  # a real-time factor below this is reported
_LOOK_S = 1.0  # for another arm of the same names: DDS finds what is on the network in a fraction of it
_POLL_S = 0.05


class SimNode(Node):
    """Thread rule: one thread steps physics and publishes joint states, one renders, the executor's does the rest."""

    def __init__(self, **options: Any) -> None:
        super().__init__("sim_node", **options)
        declare(self, SIM)
        self._settings = settings = sim_settings(read(self, SIM))
        self._fault = "none"
        self.failed = False
        self._refuse_second(f"/{settings.robot_name}/joint_states" if settings.robot == "wx250s" else "/joint_states")
        self._live = LiveWorld(
            World(RenderSpec(samples=settings.multisampling), WorldConfig(robot=settings.robot)),
            Pacer(1.0 / settings.joint_state_rate_hz, settings.max_catch_up_s),
            time.monotonic,
        )
        self._monitor = TaskMonitor(settings.success_hold_s)
        self._set_scene()
        self._driver: DriverServer | FrankaServer = (
            DriverServer(self, settings.robot_name, self._live)
            if settings.robot == "wx250s"
            else FrankaServer(self, self._live, from_desired_state=settings.interpolate_from_desired_state)
        )
        if problem := self._inject(settings.fault):
            raise ValueError(problem)
        self._joint_rate, self._image_rate = RateMeter(200), {"primary": RateMeter(), "wrist": RateMeter()}
        self._render_time = LatencyStats()
        self._cameras = {
            name: (frame_id, self.create_publisher(Image, topic, _CAMERA_QOS),
                   self.create_publisher(CameraInfo, camera_info_topic(topic), _CAMERA_QOS))
            for name, topic, frame_id in (
                ("primary", settings.primary_topic, settings.primary_frame_id),
                ("wrist", settings.wrist_topic, settings.wrist_frame_id),
            )
        }  # fmt: skip
        self._status = self.create_publisher(String, "task_status", qos.TASK_STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._instruction_id = 0
        if settings.follow_instructions:
            self.create_subscription(Reasoning, settings.reasoning_topic, self._on_reasoning, qos.REASONING)
        self.create_service(Trigger, "reset", self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(_STATUS_PERIOD_S, self._publish_status)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        self._physics = OwnerThread("physics", self._step, self._on_failure)
        self._rig: CameraRig | None = None
        self._rendering = OwnerThread("cameras", self._look, self._on_failure, self._put_cameras_away)

    def _refuse_second(self, joint_states_topic: str) -> None:
        """Raises ValueError where an arm is there already, before anything is published or taken: a controller would
        move both."""
        end_s = time.monotonic() + _LOOK_S
        while time.monotonic() < end_s:
            if self.count_publishers(joint_states_topic):
                raise ValueError(
                    f"another arm publishes {joint_states_topic}, where a simulated one expects to be alone; stop that "
                    "driver or graph, or set another ROS_DOMAIN_ID for the simulation"
                )
            time.sleep(_POLL_S)

    def destroy_node(self) -> None:
        """End the two threads before their publishers go."""
        for thread in (self._rendering, self._physics):
            thread.stop()
        super().destroy_node()

    # Scene and task: executor's thread.

    def _set_scene(self) -> None:
        settings, task, problem = self._settings, None, ""
        if settings.instruction:
            try:
                task = task_of(settings.instruction)
            except TaskTextError as error:
                problem = str(error)
                self.get_logger().error(problem)
        distractors = None if settings.n_distractors < 0 else settings.n_distractors
        self._live.reset(settings.seed, settings.families, distractors, task)
        self._monitor.restart(problem)
        with self._live.locked() as world:
            things = [item.name for item in world.scene.objects if item.visible]
        self.get_logger().info(f"scene {settings.seed}: {', '.join(things)}")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._settings = sim_settings(read(self, SIM))
        self._set_scene()
        response.success, response.message = not self._monitor.problem, f"scene {self._settings.seed}"
        if self._monitor.problem:
            response.message += f"; {self._monitor.problem}"
        return response

    def _on_reasoning(self, message: Reasoning) -> None:
        if message.instruction_id <= self._instruction_id:
            return
        self._instruction_id = message.instruction_id
        if not message.instruction:  # the arm rests; the verdict on what was asked for last stands
            return
        with self._live.locked() as world:
            self._monitor.follow(message.instruction, message.instruction_id, world)
        if self._monitor.problem:
            self.get_logger().info(f"no verdict: {self._monitor.problem}")

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        fixed = [p.name for p in parameters if p.name not in LIVE_PARAMETERS]
        if fixed:
            return SetParametersResult(
                successful=False, reason=f"{', '.join(fixed)} is read at start only; start sim_node with it"
            )
        try:
            settings = sim_settings(read(self, SIM) | {p.name: p.value for p in parameters})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        again = any(p.name == "fault" for p in parameters)  # the same too: a reflex may have been recovered from
        problem = self._inject(settings.fault) if again else ""
        return SetParametersResult(successful=not problem, reason=problem)

    def _inject(self, fault: str) -> str:
        """Makes something fail, or all work again; returns "" or why this robot cannot."""
        problem = self._driver.inject(fault)
        if not problem:
            if (fault, self._fault) != ("none", "none"):
                self.get_logger().warning(f"simulated fault: {fault}")
            self._fault = fault
        return problem

    def _publish_status(self) -> None:
        with self._live.locked() as world:
            progress = world.progress()
            self._monitor.look(world.success(), time.monotonic())
            text = self._monitor.text(world, progress)
        self._status.publish(String(data=text))

    # Physics thread.

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _step(self) -> float:
        state = self._live.advance()
        if state is not None and self._fault != "no_joint_states":
            message = joint_state_message(state, self.get_clock().now().to_msg())
            if self._fault == "nan_joint_states":
                message.position[0] = float("nan")
            self._driver.publish(message)
            self._joint_rate.note(time.monotonic())
        return self._live.wait_s()

    # Rendering thread.

    def _look(self) -> float:
        if self._rig is None:
            settings = self._settings
            shutters = (Shutter("primary", settings.primary_rate_hz), Shutter("wrist", settings.wrist_rate_hz))
            world = World(RenderSpec(samples=settings.multisampling), WorldConfig(robot=settings.robot))
            self._rig = CameraRig(
                world, shutters, self._live.snapshot, self._watched, self._on_picture, time.monotonic, self._now_s
            )
        return self._rig.step()

    def _put_cameras_away(self) -> None:
        if self._rig is not None:
            self._rig.close()

    def _watched(self, camera: str) -> bool:
        if self._fault == f"no_{camera}_images":
            return False
        return self._settings.render_unwatched or self._cameras[camera][1].get_subscription_count() > 0

    def _on_picture(self, picture: Picture) -> None:
        frame_id, images, infos = self._cameras[picture.camera]
        stamp = s_to_time(picture.stamp_s)
        images.publish(image_message(picture, stamp, frame_id))
        infos.publish(camera_info_message(picture, stamp, frame_id))
        self._image_rate[picture.camera].note(time.monotonic())
        self._render_time.note(self._now_s() - picture.stamp_s)

    # Health.

    def _on_failure(self, trace: str) -> None:
        self.get_logger().fatal(trace)
        self.failed = True

    def _shared_topics(self) -> list[str]:
        """Topics that another robot or camera publishes on as well."""
        mine = (self._driver.joint_states_topic, *(images.topic_name for _, images, _ in self._cameras.values()))
        return [topic for topic in mine if self.count_publishers(topic) > 1]

    def _publish_diagnostics(self) -> None:
        now_s, factor = time.monotonic(), self._live.real_time_factor()
        status = DiagnosticStatus(name=self.get_fully_qualified_name().lstrip("/"), hardware_id="instructvla")
        status.level, status.message = DiagnosticStatus.OK, "running"
        shared = self._shared_topics()
        if self._fault != "none":
            status.level, status.message = DiagnosticStatus.WARN, f"simulated fault: {self._fault}"
        elif shared:
            status.level = DiagnosticStatus.WARN
            status.message = f"others publish on {', '.join(shared)} too; give each robot its own names"
        elif factor < _SLOW:
            status.level = DiagnosticStatus.WARN
            status.message = f"slower than real time: {factor:.2f}; the machine is too busy"
        values = {
            "real_time_factor": f"{factor:.3f}",
            "lost_s": f"{self._live.lost_s:.2f}",
            "joint_state_rate_hz": f"{self._joint_rate.rate_hz(now_s):.1f}",
            "longest_joint_state_gap_ms": f"{self._joint_rate.longest_gap_s() * 1e3:.1f}",
            **{f"{name}_rate_hz": f"{meter.rate_hz(now_s):.1f}" for name, meter in self._image_rate.items()},
            "picture_latency": self._render_time.summary(),
            "commands": str(self._driver.commands),
            "commands_refused": str(self._driver.refused),
            "no_verdict": self._monitor.problem,
        }
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


_CAMERA_QOS = DRIVER_QOS
"""Cameras publish reliably, so that readers of either kind hear them; best-effort readers cost no acknowledgements."""


def main() -> None:
    """Entry point."""
    environment.use_camera_profile(os.environ)
    main_of(SimNode)


if __name__ == "__main__":
    main()
