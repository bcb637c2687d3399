"""The controller's watchdogs on an injected steady clock."""

from __future__ import annotations

from typing import Any

import pytest

from instructvla_ros.control import Mode
from instructvla_ros.control.watch import Bond, Watch, WatchConfig

NODES = ("reasoning_node", "action_expert_node")


class Held:
    """Notes what a controller is told."""

    def __init__(self) -> None:
        self.holds: dict[str, str] = {}
        self.reanchored = 0
        self.way = ""

    def give_way(self, reason: str, now_s: float) -> None:
        self.way = reason

    def hold_for(self, fault_id: str, reason: str) -> None:
        self.holds[fault_id] = reason

    def reanchor(self, now_s: float) -> None:
        self.reanchored += 1

    @property
    def why(self) -> list[str]:
        return [fault_id for fault_id, reason in self.holds.items() if reason]


@pytest.fixture
def watch() -> Watch:
    """Everybody was heard at 10 s."""
    watch = Watch(WatchConfig(), NODES, "action_expert_node")
    for name in NODES:
        watch.on_heartbeat(name, "1", 10.0)
    watch.on_chunk(10.0)
    return watch


def apply(watch: Watch, held: Held, steady_s: float) -> list[str]:
    watch.apply(held, steady_s, steady_s)
    return held.why


def test_a_node_that_was_never_heard_is_not_missed() -> None:
    assert not Watch(WatchConfig(), NODES, NODES[1]).holds(0.0, 1000.0)


def test_f12_a_bond_breaks_after_four_seconds_and_ends_in_an_anchor(watch: Watch) -> None:
    held = Held()
    watch.on_heartbeat("action_expert_node", "1", 13.9)
    assert apply(watch, held, 14.0) == []
    watch.on_heartbeat("action_expert_node", "1", 14.0)
    assert apply(watch, held, 14.001) == ["F12"] and "reasoning_node" in held.holds["F12"]
    assert held.reanchored == 0
    watch.on_heartbeat("reasoning_node", "1", 14.1)
    assert apply(watch, held, 14.1) == [] and held.reanchored == 1
    assert apply(watch, held, 14.12) == [] and held.reanchored == 1


def test_f12_a_node_that_came_back_as_another_process_means_an_anchor_too(watch: Watch) -> None:
    held = Held()
    watch.on_heartbeat("action_expert_node", "2", 10.2)
    watch.on_heartbeat("action_expert_node", "2", 10.3)
    assert apply(watch, held, 10.3) == [] and held.reanchored == 1
    assert apply(watch, held, 10.32) == [] and held.reanchored == 1


def test_f14_two_living_processes_of_one_name_hold_until_one_is_gone_and_anchor_once(watch: Watch) -> None:
    held = Held()
    for step in range(1, 41):
        watch.on_heartbeat("action_expert_node", "1" if step % 2 else "2", 10.0 + 0.1 * step)
        watch.on_heartbeat("reasoning_node", "1", 10.0 + 0.1 * step)
        apply(watch, held, 10.0 + 0.1 * step)
    assert held.why == ["F14"] and "two processes say that they are action_expert_node" in held.holds["F14"]
    assert held.reanchored == 1
    for step in range(41, 90):
        for name in NODES:
            watch.on_heartbeat(name, "1", 10.0 + 0.1 * step)
    assert apply(watch, held, 18.9) == []


def test_f14_neither_chunk_nor_heartbeat_for_two_periods_holds_and_the_next_chunk_ends_it(watch: Watch) -> None:
    held = Held()
    assert apply(watch, held, 10.39) == []
    assert apply(watch, held, 10.41) == ["F14"]
    watch.on_chunk(10.5)
    assert apply(watch, held, 10.5) == [] and held.reanchored == 0


def test_f14_without_chunks_the_heartbeat_shows_that_the_network_is_there(watch: Watch) -> None:
    for step in range(40):
        watch.on_heartbeat("action_expert_node", "1", 10.0 + 0.1 * step)
    assert not watch.holds(13.9, 13.9)


def test_f14_another_commander_holds_until_it_is_gone(watch: Watch) -> None:
    held = Held()
    watch.on_others("1 other publisher(s) command the same joints")
    assert apply(watch, held, 10.1) == ["F14"] and "command" in held.way
    watch.on_others("")
    assert apply(watch, held, 10.2) == [] and held.way == ""


def test_f14_another_planner_holds_too_but_the_arm_is_still_told_where_to_stay(watch: Watch) -> None:
    held = Held()
    watch.on_others("", "2 publishers of action_chunk")
    assert apply(watch, held, 10.1) == ["F14"] and held.way == ""


def test_f16_a_clock_that_stands_still_for_half_a_second_holds_and_ends_in_an_anchor(watch: Watch) -> None:
    held = Held()
    watch.apply(held, 10.0, 10.0)
    for steady_s in (10.1, 10.3, 10.5, 10.501):
        for name in NODES:
            watch.on_heartbeat(name, "1", steady_s)
        watch.apply(held, 10.0, steady_s)
        assert held.why == (["F16"] if steady_s > 10.5 else [])
    watch.apply(held, 10.02, 10.52)
    assert held.why == [] and held.reanchored == 1


def test_the_watch_makes_a_real_controller_hold_within_one_tick(bench: Any, watch: Watch) -> None:
    bench.chunk(xyz=(0.02, 0.0, 0.0))
    assert bench.tick(3).mode is Mode.MOVING
    watch.on_others("two commanders")
    watch.apply(bench.controller, bench.now_s, 10.1)
    command = bench.tick()
    assert (command.mode, command.fault_id, command.joint_goal_rad) == (Mode.HOLD, "F14", None)


def test_a_bond_begins_with_the_first_heartbeat() -> None:
    bond = Bond()
    assert bond.silent_s(100.0) == 0.0
    bond.heard("7", 100.0)
    assert bond.silent_s(103.0) == 3.0 and not bond.restarted
