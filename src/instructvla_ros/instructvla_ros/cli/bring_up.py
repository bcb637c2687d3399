"""Waiting for a graph that was just started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from std_srvs.srv import Trigger

from instructvla_ros.cli.ros_client import RosClient

_POLL_S = 0.1
_HOPELESS = ("cannot configure: checkpoint", "cannot configure: parameter checkpoint")


def managers(client: RosClient) -> int:
    """How many lifecycle managers are in the client's namespace: more than one, and two graphs fight over the arm."""
    found = client.node.get_node_names_and_namespaces()
    return found.count(("lifecycle_manager_node", client.node.get_namespace()))


def wait_until_active(
    client: RosClient, check: Callable[[], None], limit_s: float, missing: Callable[[], str] = lambda: ""
) -> None:
    """Wait until the lifecycle manager says that all nodes are active, and `missing` that nothing else is.

    `check` raises when waiting is in vain because a process has ended. Raises TimeoutError with what the nodes said,
    at once if they say that the checkpoint is no good: no retry mends that.
    """
    end_s = time.monotonic() + limit_s
    said = "the lifecycle manager did not answer"
    while time.monotonic() < end_s:
        check()
        try:
            answer = client.call(Trigger, "lifecycle_manager_node/is_active", Trigger.Request(), 2.0)
        except TimeoutError:
            continue
        said = missing() if answer.success else answer.message
        if managers(client) > 1:
            raise ValueError(
                f"another graph runs in namespace {client.node.get_namespace()} of ROS domain "
                f"{os.environ.get('ROS_DOMAIN_ID', '0')}; end it, or set another ROS_DOMAIN_ID"
            )
        if not said:
            return
        if any(words in said for words in _HOPELESS):
            break
        time.sleep(_POLL_S)
    raise TimeoutError(f"the graph did not become active: {said}")
