"""A short-lived ROS 2 participant for the command line: services with time limits, subscriptions, clean
exit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from instructvla_ros.graph import environment
from instructvla_ros.nodes.managed import make_executor

NODE_PREFIX = "instructvla_cli_"
"""With it begin the names of nodes that last for one command."""
_SPIN_S = 0.2  # how soon the end is noticed at the latest


class RosClient:
    """Use with `with`. Callbacks run in a background thread, which is joined on exit (else DDS aborts the
    process). `message_info`: callbacks may take it too, of which the events executor of rclpy 7.1 dies."""

    def __init__(self, namespace: str = "/instructvla", *, message_info: bool = False) -> None:
        environment.apply_defaults(os.environ)
        self._context = Context()
        # Ctrl-C stays with the command line: it must be able to say goodbye to the graph.
        # The command line's own name:=value arguments are none of rcl's.
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"{NODE_PREFIX}{os.getpid()}", namespace=namespace, context=self._context)
        context = self._context
        self._executor = SingleThreadedExecutor(context=context) if message_info else make_executor(context)
        self._ending = threading.Event()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="ros", daemon=True)

    def __enter__(self) -> RosClient:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=_SPIN_S)

    def subscribe(self, kind: Any, topic: str, callback: Callable[..., None], qos: Any, *, raw: bool = False) -> Any:
        """Subscribe; the callback runs in the background thread. It takes the message; its info too, if that was asked
        for."""
        return self.node.create_subscription(kind, topic, callback, qos, raw=raw)

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = 10.0) -> Any:
        """Call a service. Raises TimeoutError when nobody offers it or nobody answers in time."""
        client = self.node.create_client(kind, service)
        try:
            name = self.node.resolve_service_name(service)
            if not client.wait_for_service(timeout_s):
                raise TimeoutError(f"nobody offers {name}; is the graph up? (instructvla up widowx)")
            answered = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: answered.set())
            if not answered.wait(timeout_s):
                raise TimeoutError(f"{name} did not answer within {timeout_s} s")
            return future.result()
        finally:
            self.node.destroy_client(client)
