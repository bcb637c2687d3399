"""One world per session: building it costs a quarter of a second, a reset a few milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from instructvla_sim import RenderSpec, World

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests


@pytest.fixture(scope="session")
def shared_world() -> World:
    """A small-image world; tests reset it before use."""
    return World(RenderSpec(width=160, height=120, samples=0))


@pytest.fixture
def world(shared_world: World) -> World:
    """The shared world, freshly reset."""
    shared_world.reset(0)
    return shared_world
