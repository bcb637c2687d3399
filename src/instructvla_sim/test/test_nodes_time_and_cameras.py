"""Real time and cameras of the simulated robot, without ROS and on clocks that only move when told to."""

from __future__ import annotations

import numpy as np
import pytest

from instructvla_sim import World
from instructvla_sim.nodes.camera_rig import CameraRig, Picture, Shutter
from instructvla_sim.nodes.live_world import LiveWorld, Pacer

HOME = [0.0] * 6


class Clock:
    """A clock to be moved by hand."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(world: World, clock: Clock) -> LiveWorld:
    return LiveWorld(world, Pacer(0.01, 0.05), clock)


def test_a_pacer_gives_one_period_per_period() -> None:
    pacer = Pacer(0.01, 0.05)
    pacer.restart(1.0)
    assert [pacer.take(1.0 + 0.005 * k) for k in range(7)] == [0, 0, 1, 0, 1, 0, 1]
    assert pacer.wait_s(1.034) == pytest.approx(0.006)


def test_a_pacer_catches_up_at_most_the_limit_and_counts_what_it_gives_up() -> None:
    pacer = Pacer(0.01, 0.05)
    pacer.restart(0.0)
    assert pacer.take(0.035) == 3
    assert pacer.lost_s == 0.0
    assert pacer.take(1.035) == 5
    assert pacer.lost_s == pytest.approx(0.95)
    assert pacer.take(1.036) == 0
    assert pacer.take(1.045) == 1
    assert pacer.periods == 9


def test_simulated_time_follows_the_clock(live: LiveWorld, clock: Clock) -> None:
    with live.locked() as world:
        world.reset(0)
    assert live.advance() is None
    live.real_time_factor()
    for _ in range(20):
        clock.now_s += 0.01
        state = live.advance()
        assert state is not None and len(state.positions) == 9
    with live.locked() as world:
        assert world.time_s == pytest.approx(0.2, abs=0.011)
    assert live.real_time_factor() == pytest.approx(1.0, abs=0.06)


def test_a_machine_that_is_too_slow_shows_in_the_real_time_factor(live: LiveWorld, clock: Clock) -> None:
    live.advance()
    live.real_time_factor()
    for _ in range(10):
        clock.now_s += 0.1
        live.advance()
    assert live.real_time_factor() == pytest.approx(0.5, abs=0.05)
    assert live.lost_s == pytest.approx(0.5, abs=0.05)


def test_commands_act_in_the_next_periods(live: LiveWorld, clock: Clock) -> None:
    live.advance()
    with live.locked() as world:
        world.arm.set_operating_modes("group", "arm", "position", "time", 200, 50)
        before = world.arm.joint_state().positions[0]
        assert world.arm.command_group("arm", [before + 0.1, *world.arm.joint_state().positions[1:6]])
    for _ in range(60):
        clock.now_s += 0.01
        state = live.advance()
    assert state is not None
    assert state.positions[0] - before == pytest.approx(0.1, abs=0.02)


def test_a_new_scene_keeps_the_modes_and_profiles_of_the_motors(live: LiveWorld, clock: Clock) -> None:
    with live.locked() as world:
        world.arm.set_operating_modes("group", "arm", "position", "time", 250, 100)
        world.arm.set_registers("single", "waist", "Position_P_Gain", 700)
    clock.now_s += 30.0
    live.reset(7, ("pick",), None, None)
    assert live.advance() is None, "the time of the reset must not be caught up"
    with live.locked() as world:
        assert world.scene.seed == 7 and world.task.family == "pick"
        assert world.arm.get_registers("group", "arm", "Profile_Velocity") == (250,) * 6
        assert world.arm.get_registers("single", "waist", "Position_P_Gain") == (700,)


def test_a_new_scene_does_not_let_the_arm_fall(live: LiveWorld, clock: Clock) -> None:
    live.reset(3, ("place",), None, None)
    with live.locked() as world:
        start = world.arm.joint_state().positions[:6]
    for _ in range(50):
        clock.now_s += 0.01
        state = live.advance()
    assert state is not None
    assert np.abs(state.positions[:6] - start).max() < 0.01


def rig(world: World, clock: Clock, live: LiveWorld, wanted: set[str], *shutters: Shutter) -> tuple[CameraRig, list]:
    pictures: list[Picture] = []
    made = CameraRig(
        world, shutters, live.snapshot, lambda camera: camera in wanted, pictures.append, clock, lambda: clock() + 1e6
    )
    return made, pictures


def test_cameras_render_the_live_world_at_their_rates(
    shared_world: World, live: LiveWorld, clock: Clock, eye: World
) -> None:
    cameras, pictures = rig(eye, clock, live, {"primary", "wrist"}, Shutter("primary", 10.0), Shutter("wrist", 5.0))
    for _ in range(50):
        cameras.step()
        clock.now_s += 0.02
    assert [p.camera for p in pictures].count("primary") == 10
    assert [p.camera for p in pictures].count("wrist") == 5
    first = pictures[0]
    assert first.stamp_s == pytest.approx(1e6 + 50.0)
    assert np.array_equal(first.image, shared_world.render("primary"))
    assert first.info.k[0, 2] == first.image.shape[1] / 2


def test_a_camera_that_nobody_watches_or_that_is_off_costs_nothing(live: LiveWorld, clock: Clock, eye: World) -> None:
    cameras, pictures = rig(eye, clock, live, {"primary"}, Shutter("primary", 0.0), Shutter("wrist", 5.0))
    for _ in range(10):
        assert cameras.step() > 0.0
        clock.now_s += 0.1
    assert pictures == []


def test_a_delay_is_followed_by_one_picture_at_once_not_by_all_that_were_missed(
    live: LiveWorld, clock: Clock, eye: World
) -> None:
    cameras, pictures = rig(eye, clock, live, {"primary"}, Shutter("primary", 10.0))
    cameras.step()
    clock.now_s += 1.0
    for _ in range(5):
        cameras.step()
    assert len(pictures) == 3
    clock.now_s += 0.1
    cameras.step()
    assert len(pictures) == 4


@pytest.fixture(scope="module")
def eye() -> World:
    """The world that cameras render in, apart from the live one."""
    from instructvla_sim import RenderSpec

    return World(RenderSpec(width=160, height=120, samples=0))
