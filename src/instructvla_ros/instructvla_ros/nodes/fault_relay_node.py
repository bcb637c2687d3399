"""fault_relay_node: hands the graph's streams on, with the faults that somebody wants to see. For tests only.

Topics: each `<stream>_topic` in, the same name behind `/faulty` out; with a `clock_rate_hz`, `/clock` out. One
parameter for each stream holds its fault, `none` or what `instructvla fault --help` lists; `ros2 param set` sets it
too.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock as TimeSource
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState

from instructvla_msgs.msg import ActionChunk, LatentAction
from instructvla_ros.faults.engine import Fault, FaultyStream
from instructvla_ros.faults.messages import CLOCK, SPOILS, handling
from instructvla_ros.graph.faults import NODE, PREFIX
from instructvla_ros.nodes import qos
from instructvla_ros.nodes.managed import main_of

STREAMS = {
    "image": (Image, qos.IMAGE),
    "joint_states": (JointState, qos.JOINT_STATES),
    "latent_action": (LatentAction, qos.LATENT_ACTION),
    "action_chunk": (ActionChunk, qos.ACTION_CHUNK),
}
_PERIOD_S = 0.005  # how late a delayed message comes at the most
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 128 * 1024  # of <malloc.h>; an image is larger


class FaultRelayNode(Node):
    """One thread: the executor's. Delayed messages are sent by a timer on the steady clock."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE, **options)
        self.failed = False
        self._wires: dict[str, FaultyStream[Any]] = {}
        self._outs: dict[str, Any] = {}
        for name, (kind, profile) in STREAMS.items():
            topic = self.declare_parameter(f"{name}_topic", "").value
            self.declare_parameter(name, "none")
            if topic:
                self._wires[name] = FaultyStream(handling(SPOILS[kind.__name__]))
                self._outs[name] = self.create_publisher(kind, PREFIX + topic, profile)
                self.create_subscription(kind, topic, partial(self._take, name), profile)
        steady = TimeSource(clock_type=ClockType.STEADY_TIME)
        rate_hz = self.declare_parameter("clock_rate_hz", 0.0).value
        self.declare_parameter("clock", "none")
        if rate_hz > 0.0:
            self._wires["clock"] = FaultyStream(CLOCK)
            self._outs["clock"] = self.create_publisher(Clock, "/clock", qos.CLOCK)
            self.create_timer(1.0 / rate_hz, self._strike, clock=steady)
        self.add_on_set_parameters_callback(self._on_set)
        self.create_timer(_PERIOD_S, self._send_all, clock=steady)

    def _strike(self) -> None:
        now = TimeSource(clock_type=ClockType.SYSTEM_TIME).now()
        self._take("clock", Clock(clock=now.to_msg()))

    def _take(self, name: str, message: Any) -> None:
        self._wires[name].take(message, time.monotonic())
        self._send(name)

    def _send(self, name: str) -> None:
        for message in self._wires[name].due(time.monotonic()):
            self._outs[name].publish(message)

    def _send_all(self) -> None:
        for name in self._wires:
            self._send(name)

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        try:
            faults = {p.name: Fault.parse(str(p.value)) for p in parameters if p.name in self._wires}
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name, fault in faults.items():
            self._wires[name].set(fault, time.monotonic())
            self.get_logger().warning(f"{name}: {fault}")
        return SetParametersResult(successful=True)


def give_back_large_blocks() -> None:
    """Images that were held for a fault go back to the system at once; by itself glibc keeps their memory (5 MB here)
    for the next ones. Elsewhere than in glibc nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def main() -> None:
    """Entry point."""
    give_back_large_blocks()
    main_of(FaultRelayNode)


if __name__ == "__main__":
    main()
