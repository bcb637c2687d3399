"""The simulated cameras: they render forks of the live world in a thread of their own, so that physics never waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from instructvla_sim.types import CameraInfo
from instructvla_sim.world import Snapshot, World


@dataclass(frozen=True)
class Shutter:
    """One camera: its name in the world and its rate; 0 Hz is off."""

    camera: str
    rate_hz: float


@dataclass(frozen=True)
class Picture:
    """An image (H, W, 3) uint8 RGB with its intrinsics and the time (s) of the state that it shows."""

    camera: str
    image: np.ndarray
    info: CameraInfo
    stamp_s: float


class CameraRig:
    """All calls of `step` come from one thread, which owns the OpenGL context of `world`.

    `fork` gives a snapshot of the live world, `stamp` the present time for stamps, `clock` the time for the rates.
    A camera for which `wanted` is false is not rendered. A late picture is taken once, not made up for.
    """

    def __init__(
        self,
        world: World,
        shutters: tuple[Shutter, ...],
        fork: Callable[[], Snapshot],
        wanted: Callable[[str], bool],
        on_picture: Callable[[Picture], None],
        clock: Callable[[], float],
        stamp: Callable[[], float],
    ) -> None:
        self._world, self._fork, self._wanted, self._on_picture = world, fork, wanted, on_picture
        self._clock, self._stamp = clock, stamp
        now_s = clock()
        self._period_s = {s.camera: 1.0 / s.rate_hz for s in shutters if s.rate_hz > 0.0}
        self._next_s = dict.fromkeys(self._period_s, now_s)

    def step(self) -> float:
        """Take the pictures that are due, from one fork; returns the seconds until the next one is."""
        now_s = self._clock()
        due = [camera for camera, next_s in self._next_s.items() if next_s <= now_s]
        for camera in due:
            period_s = self._period_s[camera]
            self._next_s[camera] = max(self._next_s[camera] + period_s, now_s)
        watched = [camera for camera in due if self._wanted(camera)]
        if watched:
            snapshot, stamp_s = self._fork(), self._stamp()
            self._world.restore(snapshot)
            for camera in watched:
                image = self._world.render(camera)
                self._on_picture(Picture(camera, image, self._world.camera_info(camera), stamp_s))
        if not self._next_s:
            return 1.0
        return max(0.0, min(self._next_s.values()) - self._clock())

    def close(self) -> None:
        """Free the OpenGL context; from the thread that called `step`."""
        self._world.close()
