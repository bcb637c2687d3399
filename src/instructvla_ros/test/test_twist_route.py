"""A twist route beside another commander: real controller and route, a fake node in place of topics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time

from instructvla_ros.control import FR3, Mode, WidthArmController
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.nodes.arm_controller_node import NeutralDriver
from instructvla_ros.nodes.settings_arm import ArmSettings

JOINTS = [*FR3.joint_names, FR3.fingers.joint]


class Bench:
    """Controller and driver, ticked by the test at 50 Hz; joint states come with every tick."""

    def __init__(self) -> None:
        self.now_s, self.published = 10.0, list[Any]()
        publisher = SimpleNamespace(publish=self.published.append)
        node = SimpleNamespace(create_publisher=lambda *_: publisher, get_clock=lambda: SimpleNamespace(now=self.now))
        self.controller = WidthArmController(FR3)
        settings = ArmSettings(outputs=("twist",))
        self.driver = NeutralDriver(node, settings, TrackerConfig(), self.controller)

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=int(self.now_s * 1e9), to_msg=Time)

    def tick(self, count: int = 1) -> list[Any]:
        """The twists that were sent in so many ticks."""
        self.published.clear()
        for _ in range(count):
            self.now_s = round(self.now_s + 0.02, 6)
            self.controller.on_joint_state(JOINTS, [*FR3.home_rad, 0.04], None, self.now_s, self.now_s)
            self.command = self.controller.tick(self.now_s)
            self.driver.send(self.command)
        return list(self.published)


def test_f14_beside_another_commander_one_zero_twist_is_sent_and_then_none_until_it_has_gone() -> None:
    bench = Bench()
    assert len(bench.tick(5)) == 5
    for _ in range(2):  # each time anew
        bench.controller.give_way("two commanders", bench.now_s)
        (last,) = bench.tick(10)
        assert bench.command.mode is Mode.HOLD and bench.command.fault_id == "F14"
        v, w = last.twist.linear, last.twist.angular
        assert not np.any([v.x, v.y, v.z, w.x, w.y, w.z])
        bench.controller.give_way("", bench.now_s)
        assert len(bench.tick(5)) == 5


def test_f14_an_arm_whose_policy_is_silent_is_still_drawn_to_its_goal_by_twists() -> None:
    bench = Bench()
    bench.tick(5)
    bench.controller.hold_for("F14", "neither chunk nor heartbeat of action_expert_node for 0.4 s")
    assert len(bench.tick(5)) == 5 and bench.command.fault_id == "F14"
