"""Fixtures shared by this package's tests: chunks, a tracking plant and a controller that is fed from it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from instructvla_ros.control import ActionChunk, Command, WidowXController, WidowXControllerConfig
from instructvla_ros.control.kinematics import JOINT_NAMES

# Test modules are not a package: the helpers get names of their own that all of them can import.
for _name in ("fakes", "bag_factory"):
    _spec = importlib.util.spec_from_file_location(f"instructvla_ros_{_name}", Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None and _spec.loader is not None
    sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_spec.name])

DRIVER_NAMES = [*JOINT_NAMES, "gripper", "left_finger", "right_finger"]
READY_RAD = np.array([0.1, -0.4, 0.3, 0.05, 1.5, -0.1])


def make_chunk(
    stamp_s: float = 0.0,
    steps: int = 8,
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0),
    gripper: float = 1.0,
    instruction_id: int = 1,
    seq: int = 0,
) -> ActionChunk:
    """A chunk of equal steps."""
    return ActionChunk(
        np.tile(np.array(xyz, dtype=float), (steps, 1)),
        np.tile(np.array(rpy, dtype=float), (steps, 1)),
        np.full(steps, float(gripper)),
        0.2,
        stamp_s,
        instruction_id,
        seq,
    )


class Bench:
    """A controller on a fake clock with an arm that follows its goals by a first-order lag, 50 Hz."""

    def __init__(
        self, config: WidowXControllerConfig | None = None, start_rad: np.ndarray = READY_RAD
    ) -> None:
        self.controller = WidowXController(config)
        self.q = np.array(start_rad)
        self.finger_m = 0.037
        self.now_s = 10.0
        self.goals: list[np.ndarray] = []
        self.feed_joints = True
        self.feed_images = True
        self._image_seq = 0.0

    def joint_state(self, **changed: float) -> None:
        """Send the present joint state, with the named positions replaced."""
        values = dict(zip(DRIVER_NAMES, [*self.q, 0.0, self.finger_m, -self.finger_m], strict=True)) | changed
        self.controller.on_joint_state(list(values), list(values.values()), None, self.now_s, self.now_s)

    def image(self) -> None:
        """Send a new frame."""
        self.controller.on_image(self.now_s, self.now_s)

    def tick(self, count: int = 1) -> Command:
        """Run `count` control ticks and return the last command."""
        for _ in range(count):
            self.now_s = round(self.now_s + 0.02, 6)
            if self.feed_joints:
                self.joint_state()
            if self.feed_images:
                self.image()
            command = self.controller.tick(self.now_s)
            if command.joint_goal_rad is not None:
                self.goals.append(command.joint_goal_rad)
                self.q = self.q + 0.5 * (command.joint_goal_rad - self.q)
        return command

    def chunk(self, **fields: object) -> None:
        """Send a chunk stamped now unless `stamp_s` is given."""
        self.controller.on_chunk(make_chunk(**({"stamp_s": self.now_s} | fields)), self.now_s)  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    """An anchored controller with default configuration, instruction 1."""
    bench = Bench()
    bench.controller.on_instruction(1, bench.now_s)
    bench.tick()
    return bench


@pytest.fixture
def bench_factory() -> Callable[..., Bench]:
    """The Bench class, for tests that need their own configuration."""
    return Bench


@pytest.fixture
def chunk_factory() -> Callable[..., ActionChunk]:
    """`make_chunk`."""
    return make_chunk
