"""A world that keeps up with the clock on the wall: bounded catching up, one lock, no ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from instructvla_sim.arm_types import JointState
from instructvla_sim.types import Task
from instructvla_sim.world import Snapshot, World


class Pacer:
    """How many periods of simulated time are due. Pure, one owner thread.

    A backlog of more than `max_catch_up_s` is dropped and counted in `lost_s`: simulated time then falls behind
    for good, instead of making the next round even longer.
    """

    def __init__(self, period_s: float, max_catch_up_s: float) -> None:
        self.period_s = period_s
        self._most = max(1, round(max_catch_up_s / period_s))
        self._due_s: float | None = None
        self.periods = 0
        self.lost_s = 0.0

    def restart(self, now_s: float) -> None:
        """The next period is due one period from now; no backlog."""
        self._due_s = now_s + self.period_s

    def take(self, now_s: float) -> int:
        """The number of periods to simulate now."""
        if self._due_s is None:
            self.restart(now_s)
        assert self._due_s is not None
        count = int((now_s - self._due_s) / self.period_s + 1e-9) + 1 if now_s >= self._due_s else 0
        excess = count - self._most
        if excess > 0:
            self.lost_s += excess * self.period_s
        self._due_s += count * self.period_s
        count = min(count, self._most)
        self.periods += count
        return count

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next period is due."""
        return 0.0 if self._due_s is None else max(0.0, self._due_s - now_s)


class LiveWorld:
    """`advance` is called by one thread again and again; everything else may be called from any thread.

    Commands act in the next period, as on a servo bus. The lock is held for less than a millisecond, except by `reset`.
    """

    def __init__(self, world: World, pacer: Pacer, clock: Callable[[], float]) -> None:
        self._world, self._pacer, self._clock = world, pacer, clock
        self._lock = threading.Lock()
        self._meter = (clock(), 0)

    def advance(self) -> JointState | None:
        """Simulate what is due; the joints afterwards, or None when nothing was due."""
        with self._lock:
            count = self._pacer.take(self._clock())
            if count == 0:
                return None
            for _ in range(count):
                self._world.step(self._pacer.period_s)
            return self._world.arm.joint_state()

    def wait_s(self) -> float:
        """Seconds until `advance` has something to do."""
        return self._pacer.wait_s(self._clock())

    def locked(self) -> AbstractContextManager[World]:
        """The world for short calls: `with live.locked() as world`."""
        return _Locked(self._lock, self._world)

    def snapshot(self) -> Snapshot:
        """A fork for another thread to look at."""
        with self._lock:
            return self._world.snapshot()

    def reset(self, seed: int, families: tuple[str, ...], n_distractors: int | None, task: Task | None) -> None:
        """A new scene. The motors keep their modes and profiles, a Franka its mode and errors: a scene change does not
        restart a driver, nor does it release a user stop."""
        with self._lock:
            arm = self._world.arm
            kept = arm.settings()
            self._world.reset(seed, families, n_distractors, task=task)
            arm.set_state({**arm.state(), **kept})
            self._pacer.restart(self._clock())

    def real_time_factor(self) -> float:
        """Simulated per real second since this was last asked."""
        now_s, periods = self._clock(), self._pacer.periods
        then_s, before = self._meter
        self._meter = (now_s, periods)
        return (periods - before) * self._pacer.period_s / max(now_s - then_s, 1e-9)

    @property
    def lost_s(self) -> float:
        """Simulated seconds given up because the machine was too slow."""
        return self._pacer.lost_s


class _Locked(AbstractContextManager[World]):
    def __init__(self, lock: threading.Lock, world: World) -> None:
        self._lock, self._world = lock, world

    def __enter__(self) -> World:
        self._lock.acquire()
        return self._world

    def __exit__(self, *_: object) -> None:
        self._lock.release()
