"""Blocking service and action calls from within a callback, whose own executor is busy with that callback.

They go through a node of their own, which lives only as long as the transition or service that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from instructvla_ros.nodes.managed import SetupError

_ENDINGS = {GoalStatus.STATUS_CANCELED: "was cancelled", GoalStatus.STATUS_ABORTED: "was aborted"}


class ServiceCalls:
    """Use through `service_calls`. Every call has the same time limit for its start and for its answer."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor, timeout_s: float) -> None:
        self._node, self._executor, self._timeout_s = node, executor, timeout_s

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The answer; raises SetupError when the service is not there or does not answer in time."""
        client = self._node.create_client(kind, name)
        if not client.wait_for_service(self._timeout_s):
            raise SetupError(
                f"no driver offers {name} within {self._timeout_s} s{self._hint()}; start the driver, or set its name"
            )
        return self._wait(client.call_async(request), name)

    def act(self, kind: Any, name: str, goal: Any) -> Any:
        """The result of an action; raises SetupError when it is not there, refuses the goal, takes too long or does not
        succeed."""
        client = ActionClient(self._node, kind, name)
        try:
            if not client.wait_for_server(self._timeout_s):
                raise SetupError(
                    f"no driver offers the action {name} within {self._timeout_s} s; start it, or set its name"
                )
            handle = self._wait(client.send_goal_async(goal), name)
            if not handle.accepted:
                raise SetupError(f"the driver refused the goal of {name}; see its log")
            ended = self._wait(handle.get_result_async(), name)
            if ended.status != GoalStatus.STATUS_SUCCEEDED:
                how = _ENDINGS.get(ended.status, f"ended with status {ended.status}")
                why = getattr(ended.result, "error", "") or getattr(ended.result, "error_string", "")
                raise SetupError(f"{name} {how}, expected success{f': {why}' if why else ''}; see the driver's log")
            return ended.result
        finally:
            client.destroy()

    def hear(self, kind: Any, topic: str, profile: Any, enough: Callable[[Any], bool]) -> Any:
        """The first message for which `enough` holds, or None in time."""
        heard: list[Any] = []
        subscription = self._node.create_subscription(kind, topic, heard.append, profile)
        clock = self._node.get_clock()
        end = clock.now().nanoseconds + int(self._timeout_s * 1e9)
        try:
            while clock.now().nanoseconds < end:
                self._executor.spin_once(timeout_sec=0.1)
                for message in heard:
                    if enough(message):
                        return message
                heard.clear()
        finally:
            self._node.destroy_subscription(subscription)
        return None

    def _wait(self, future: Any, name: str) -> Any:
        self._executor.spin_until_future_complete(future, self._timeout_s)
        if not future.done():
            raise SetupError(f"the driver did not answer {name} within {self._timeout_s} s; see its log")
        return future.result()

    def _hint(self) -> str:
        topics = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if "sensor_msgs/msg/JointState" in types and self._node.count_publishers(name) > 0
        ]
        return f" (joint states are published on: {', '.join(sorted(topics))})" if topics else ""


@contextmanager
def service_calls(node: Any, timeout_s: float) -> Iterator[ServiceCalls]:
    """`with service_calls(node, 5.0) as services`: in the namespace and context of `node`."""
    helper = Node(
        f"{node.get_name()}_setup",
        namespace=node.get_namespace(),
        context=node.context,
        use_global_arguments=False,
        start_parameter_services=False,
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(helper)
    try:
        yield ServiceCalls(helper, executor, timeout_s)
    finally:
        executor.shutdown()
        helper.destroy_node()
