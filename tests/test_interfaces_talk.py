"""Our interfaces carry their content between two processes over DDS."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy")

PEER = Path(__file__).with_name("talk_peer.py")
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def node(new_ros_domain: Callable[[], int]) -> Iterator["rclpy.node.Node"]:
    """A node here and a peer in another process, on a ROS domain of their own."""
    domain = new_ros_domain()
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    peer = subprocess.Popen([sys.executable, str(PEER)], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout is not None and peer.stdout.readline() == "ready\n"
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("talk_test", context=context)
        node.executor_ = rclpy.executors.SingleThreadedExecutor(context=context)
        node.executor_.add_node(node)
        yield node
        node.destroy_node()
        rclpy.shutdown(context=context)
    finally:
        peer.terminate()
        status = peer.wait(timeout=10)
    assert status == 0


def spin_until(node: "rclpy.node.Node", done: "callable") -> None:
    """Spin until done() or the deadline; the caller asserts what arrived."""
    deadline = time.monotonic() + DEADLINE_S
    while not done() and time.monotonic() < deadline:
        node.executor_.spin_once(timeout_sec=0.05)


def test_a_latent_action_crosses_processes_and_comes_back_as_a_chunk(node: "rclpy.node.Node") -> None:
    from instructvla_msgs.msg import ActionChunk, LatentAction

    received: list[ActionChunk] = []
    node.create_subscription(ActionChunk, "talk/action_chunk", received.append, 10)
    latents = node.create_publisher(LatentAction, "talk/latent_action", 10)
    latent = LatentAction(instruction_id=3, seq=42, n_queries=1, latent_dim=3, dtype=LatentAction.FLOAT32)
    latent.header.frame_id = "camera"
    latent.data = bytes([1, 2, 250])
    spin_until(node, lambda: latents.get_subscription_count() > 0)
    # The peer's publisher may match later than its subscription: repeat until something comes back.
    deadline = time.monotonic() + DEADLINE_S
    while not received and time.monotonic() < deadline:
        latents.publish(latent)
        node.executor_.spin_once(timeout_sec=0.2)

    assert received, f"no chunk came back within {DEADLINE_S} s"
    chunk = received[0]
    assert (chunk.instruction_id, chunk.latent_seq, chunk.header.frame_id) == (3, 42, "camera")
    assert list(chunk.delta_xyz_m) == [1.0, 2.0, 250.0]


def test_set_instruction_crosses_processes_with_any_letters(node: "rclpy.node.Node") -> None:
    from instructvla_msgs.srv import SetInstruction

    client = node.create_client(SetInstruction, "talk/set_instruction")
    spin_until(node, client.service_is_ready)
    assert client.service_is_ready(), f"the service did not appear within {DEADLINE_S} s"
    future = client.call_async(SetInstruction.Request(instruction="légère « pomme » 苹果", think=True))
    spin_until(node, future.done)
    reply = future.result()
    assert reply is not None and reply.accepted
    assert (reply.instruction_id, reply.message) == (7, "légère « pomme » 苹果")
