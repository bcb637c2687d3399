"""replay_node: a recording through the policy, from a launch file.

With the parameter `live` false it replays the bag offline, writes the report and ends; with `live` true it plays the
bag's observations into the policy's nodes, with /clock, and ends with it, or with an error where a controller runs.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from rclpy.node import Node

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.evaluate import evaluate, load_checkpoints
from instructvla_ros.bags.play import Player
from instructvla_ros.bags.replay import ReplayOptions
from instructvla_ros.nodes.managed import main_of
from instructvla_ros.nodes.parameters import declare, read
from instructvla_ros.nodes.settings import REPLAY


class ReplayNode(Node):
    """Works in a thread of its own and ends the process when done; `failed` makes the exit status 1."""

    def __init__(self) -> None:
        super().__init__("replay_node")
        declare(self, REPLAY)
        self._values = read(self, REPLAY)
        if not self._values["bag"]:
            raise ValueError("parameter bag is empty; give bag:=<folder of a recording>")
        self.failed = False
        self._ending = threading.Event()
        threading.Thread(target=self._run, name="replay", daemon=True).start()

    def destroy_node(self) -> None:
        self._ending.set()
        super().destroy_node()

    def _run(self) -> None:
        done = False
        try:
            (self._play if self._values["live"] else self._evaluate)()
            done = True
        except (OSError, ValueError) as error:
            self.get_logger().fatal(str(error))
        finally:  # whatever was raised: a node whose thread is gone must not spin on
            if done:
                os.kill(os.getpid(), signal.SIGINT)  # ends the node's loop with status 0
            else:
                self.failed = True

    def _options(self) -> ReplayOptions:
        values = self._values
        return ReplayOptions(seed=values["seed"], instruction=values["instruction"], actions=values["actions"])

    def _evaluate(self) -> None:
        values = self._values
        runtimes = load_checkpoints([values["checkpoint"]] if values["checkpoint"] else [], values["device"])
        output = Path(values["output"]) if values["output"] else None
        made = evaluate([Path(values["bag"])], runtimes, self._options(), output)
        self.get_logger().info(f"report in {made.folder / 'index.html'}, after {made.took_s:.0f} s")

    def _play(self) -> None:
        with Bag(self._values["bag"]) as bag:
            player = Player(self, bag, self._options(), rate=self._values["rate"], ended=self._ending.is_set)
            player.wait_for_graph(self._values["graph_timeout_s"])
            played = player.play()
            for problem in bag.problems:
                self.get_logger().warning(str(problem))
        self.get_logger().info(f"{played.messages} messages and {played.instructions} instructions played")


def main() -> None:
    """Entry point."""
    main_of(ReplayNode)


if __name__ == "__main__":
    main()
