"""Watchdogs of the controller, on a steady clock: the time of the messages may jump, stop or be wrong.

Pure: what is heard goes in with the steady time of its arrival, reasons to hold come out by fault id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class WatchConfig:
    """Limits in seconds; `silence_s` is two policy steps at 5 Hz."""

    silence_s: float = 0.4
    bond_s: float = 4.0
    clock_stop_s: float = 0.5


class Holdable(Protocol):
    """The part of a controller that is used here."""

    def hold_for(self, fault_id: str, reason: str) -> None:
        """Hold until called with reason ""."""

    def reanchor(self, now_s: float) -> None:
        """Drop what was planned; nothing is sent before the target is anchored anew."""


class Yielding(Holdable, Protocol):
    """A controller that also leaves the arm to others."""

    def give_way(self, reason: str, now_s: float) -> None:
        """Send no goal until called with reason ""."""


class Bond:
    """Whether a peer lives, by its heartbeats. It begins with the first of them. One thread owns an object."""

    def __init__(self) -> None:
        self._began_s: dict[str, float] = {}  # by process, the newest last
        self._heard_s: dict[str, float] = {}
        self.restarted = False

    def heard(self, process_id: str, steady_s: float) -> None:
        """A heartbeat, and from which process."""
        if process_id not in self._began_s:
            self.restarted = self.restarted or bool(self._began_s)
            self._began_s[process_id] = steady_s
        self._heard_s[process_id] = steady_s

    @property
    def process_id(self) -> str:
        """The newest process; "" before the first heartbeat."""
        return next(reversed(self._began_s), "")

    def silent_s(self, steady_s: float) -> float:
        """Seconds since the last heartbeat; 0 before the first."""
        return steady_s - max(self._heard_s.values(), default=steady_s)

    def twins(self, steady_s: float, within_s: float) -> bool:
        """Whether the newest process and one that should have been replaced by it were both heard within the time."""
        newest = self.process_id
        alive = {process: heard_s for process, heard_s in self._heard_s.items() if steady_s - heard_s <= within_s}
        return alive.pop(newest, None) is not None and any(
            heard_s > self._began_s[newest] for heard_s in alive.values()
        )


class Watch:
    """Bonds with the nodes of the policy (F12), the stream of chunks and its commanders (F14), the clock (F16)."""

    def __init__(self, config: WatchConfig, policy_nodes: tuple[str, ...], planner: str) -> None:
        self._config, self._planner = config, planner
        self._bonds = {name: Bond() for name in policy_nodes}
        self._chunk_s: float | None = None
        self._commanders = self._planners = ""
        self._now_s: float | None = None
        self._changed_s = 0.0
        self._held: set[str] = set()

    def on_heartbeat(self, name: str, process_id: str, steady_s: float) -> None:
        """A peer lives."""
        if name in self._bonds:
            self._bonds[name].heard(process_id, steady_s)

    def on_chunk(self, steady_s: float) -> None:
        """A chunk arrived."""
        self._chunk_s = steady_s

    def on_others(self, commanders: str, planners: str = "") -> None:
        """Who else commands the arm, and who else plans for it, in words; "" for nobody."""
        self._commanders, self._planners = commanders, planners

    def apply(self, controller: Yielding, now_s: float, steady_s: float) -> None:
        """Call in every control tick, before the controller's own."""
        controller.give_way(self._commanders, now_s)  # repeated goals would fight with theirs
        holds = self.holds(now_s, steady_s)
        for fault_id in self._held | set(holds):
            controller.hold_for(fault_id, holds.get(fault_id, ""))
        restarted = [bond for bond in self._bonds.values() if bond.restarted]
        # Whatever was planned before a peer died or time stood still is void.
        if restarted or (self._held - set(holds)) & {"F12", "F16"}:
            controller.reanchor(now_s)
        for bond in restarted:
            bond.restarted = False
        self._held = set(holds)

    def holds(self, now_s: float, steady_s: float) -> Mapping[str, str]:
        """Reasons to hold by fault id, the most serious first."""
        if now_s != self._now_s:
            self._now_s, self._changed_s = now_s, steady_s
        found = {}
        limits = self._config
        if steady_s - self._changed_s > limits.clock_stop_s:
            found["F16"] = f"the clock has stood still for {steady_s - self._changed_s:.1f} s; is /clock published?"
        for name, bond in self._bonds.items():
            if bond.silent_s(steady_s) > limits.bond_s:
                found["F12"] = f"no heartbeat of {name} for {limits.bond_s:g} s"
        twins = [name for name, bond in self._bonds.items() if bond.twins(steady_s, limits.bond_s)]
        if others := self._commanders or self._planners:
            found["F14"] = others
        elif twins:
            found["F14"] = f"two processes say that they are {twins[0]}; stop one of them (F14)"
        elif self._planner_silent_s(steady_s) > limits.silence_s:
            found["F14"] = f"neither chunk nor heartbeat of {self._planner} for {limits.silence_s:g} s"
        return found

    def _planner_silent_s(self, steady_s: float) -> float:
        """Chunks stop for good reasons too, an old latent say: only without a heartbeat it is the network."""
        if self._chunk_s is None:
            return 0.0
        return min(steady_s - self._chunk_s, self._bonds[self._planner].silent_s(steady_s))
