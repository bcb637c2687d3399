"""The other process of test_interfaces_talk.py: turns latent actions into chunks, serves SetInstruction."""

import signal
import sys

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from instructvla_msgs.msg import ActionChunk, LatentAction
from instructvla_msgs.srv import SetInstruction


class Peer(Node):
    """Echo node: copies sequence numbers and the latent's values into a chunk."""

    def __init__(self) -> None:
        super().__init__("talk_peer")
        self.chunks = self.create_publisher(ActionChunk, "talk/action_chunk", 10)
        self.create_subscription(LatentAction, "talk/latent_action", self.on_latent, 10)
        self.create_service(SetInstruction, "talk/set_instruction", self.on_instruction)

    def on_latent(self, latent: LatentAction) -> None:
        """Publish a one-step chunk that names the latent it came from."""
        chunk = ActionChunk(header=latent.header, instruction_id=latent.instruction_id, seq=1, dt_s=0.2)
        chunk.latent_seq = latent.seq
        chunk.horizon = 1
        chunk.delta_xyz_m = [float(value) for value in latent.data[:3]]
        chunk.delta_rpy_rad = [0.0, 0.0, 0.0]
        chunk.gripper = [1.0]
        self.chunks.publish(chunk)

    def on_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        """Accept everything and repeat it."""
        response.accepted = True
        response.instruction_id = 7
        response.message = request.instruction
        return response


def main() -> int:
    """Spin until SIGTERM.

    rclpy's own signal handlers shut the context down under a spinning executor, which then now and then
    never returns; so they are left out, and the loop ends by itself.
    """
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Peer()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not stopped:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
