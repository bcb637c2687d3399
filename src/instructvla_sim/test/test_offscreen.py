"""Several worlds that render in one process, one of which ends."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from instructvla_sim import RenderSpec, World

SMALL = RenderSpec(width=160, height=120, samples=0)


def looking() -> World:
    """A world that has rendered, so that its OpenGL context is open."""
    made = World(SMALL)
    made.render("primary")
    return made


def test_closing_one_world_leaves_the_pictures_of_another_as_they_were(world: World) -> None:
    other = looking()
    before = world.render("primary")
    other.close()
    assert np.array_equal(before, world.render("primary"))


def test_dropping_a_world_that_rendered_in_another_thread_leaves_the_pictures_as_they_were(world: World) -> None:
    worlds: list[World] = []
    thread = threading.Thread(target=lambda: worlds.append(looking()))
    thread.start()
    thread.join()
    before = world.render("primary")
    worlds.clear()
    assert np.array_equal(before, world.render("primary"))


def test_a_closed_world_renders_again_when_asked(world: World) -> None:
    before = world.render("primary")
    world.close()
    assert np.array_equal(before, world.render("primary"))


_LEAVES_WORLDS_OPEN = """
import threading, weakref
class Thing: pass
thing = Thing()
weakref.finalize(thing, id, 0)  # installs weakref's exit hook before EGL's, so that it runs after EGL's
from instructvla_sim import RenderSpec, World
worlds = []
def look():
    worlds.append(World(RenderSpec(width=64, height=48, samples=0)))
    worlds[-1].render("primary")
look()
thread = threading.Thread(target=look)
thread.start()
thread.join()
"""


def test_a_process_that_ends_with_open_worlds_says_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVES_WORLDS_OPEN], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
