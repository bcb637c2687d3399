"""recorder_node: writes a bag of the graph that it runs in, until it is stopped or the disk is full (F25)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rclpy.node import Node

from instructvla_ros.bags.recorder import Recorder, RecordingPlan
from instructvla_ros.bags.writer import CLOSED, BagWriter
from instructvla_ros.nodes.managed import main_of
from instructvla_ros.nodes.parameters import declare, read
from instructvla_ros.nodes.settings import RECORDER

_WATCH_PERIOD_S = 1.0


class RecorderNode(Node):
    """The bag is closed when the node is destroyed. A recording that ended early leaves the graph running; that, and
    every message that is missing, makes the exit status 1."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        declare(self, RECORDER)
        values = read(self, RECORDER)
        self.failed = False
        folder = Path(values["output"] or f"recording_{datetime.now():%Y%m%d_%H%M%S}")
        plan = RecordingPlan(
            values["joint_states_topic"],
            values["camera_topic"],
            values["wrist_topic"],
            everything=values["everything"],
            jpeg_quality=values["jpeg_quality"],
        )
        self._writer = BagWriter(folder, storage=values["storage"])
        self._recorder = Recorder(self, self._writer, plan)
        self._told = False
        self.create_timer(_WATCH_PERIOD_S, self._watch)
        self.get_logger().info(f"recording to {folder}")

    def destroy_node(self) -> None:
        state = self._recorder.close()
        self._watch()  # what went wrong while it was closed
        log, lost = self.get_logger(), self._recorder.lost
        log.info(f"{state.messages} messages, {state.bytes / 1e6:.1f} MB in {self._writer.folder}")
        if state.dropped or lost:
            log.error(f"NOT COMPLETE: {state.dropped} messages were not written, DDS lost {lost}")
        self.failed = self.failed or state.ended != CLOSED or bool(state.dropped or lost)
        super().destroy_node()

    def _watch(self) -> None:
        ended = self._writer.state.ended
        if ended not in ("", CLOSED) and not self._told:
            self._told = True
            self.get_logger().error(f"recording ended: {ended}")


def main() -> None:
    """Entry point."""
    main_of(RecorderNode)


if __name__ == "__main__":
    main()
