"""States of a recorded arm from its joint states, whichever of the known arms it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.state import JointStateReader, state_vector
from instructvla_ros.control.types import JointSample
from instructvla_ros.robots import arm_of, arms

from .episode import DataError

JOINT_STATE = "sensor_msgs/msg/JointState"


class Joints:
    """Collects joint states; messages of topics that are no whole arm's are passed over."""

    def __init__(self) -> None:
        self._samples: list[JointSample] = []
        self._arm: ArmModel | None = None
        self._reader: JointStateReader | None = None
        self._others: dict[str, tuple[str, ...]] = {}

    def add(self, message: Any, topic: str, received_ns: int) -> None:
        """Raises DataError on values that are not finite."""
        arm = arm_of(message.name)
        if arm is None:
            self._others[topic] = tuple(message.name)
            return
        if self._reader is None or arm is not self._arm:
            self._arm, self._reader = arm, JointStateReader(arm)
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        try:
            self._samples.append(self._reader.read(message.name, message.position, stamp_s, received_ns * 1e-9))
        except ValueError as error:
            raise DataError(f"{topic}: {error}") from error

    def stamps_s(self) -> np.ndarray:
        """(n,) header stamps. Raises DataError where no arm was recorded."""
        if not self._samples:
            raise DataError(
                f"found joint states {self._others or 'of no topic'}, expected all joints and the finger of one of "
                f"{sorted(arms())}; record the topic <robot_name>/joint_states"
            )
        return np.array([sample.stamp_s for sample in self._samples])

    def state(self, number: int) -> np.ndarray:
        """(8,) of the sample with this number."""
        assert self._arm is not None
        sample = self._samples[number]
        return state_vector(sample.arm_rad, sample.finger_m, self._arm)
