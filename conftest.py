"""Fixtures for the tests of all packages."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

_DOMAINS = range(20, 101)
"""ROS domains for tests: above the ones people use, below the ports that Linux hands out by itself."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of processes, clocks and DDS can miss its time where others take the cores: it is run once more,
    and the closing line counts it as rerun. One that fails twice has failed."""
    for item in items:
        if item.get_closest_marker("ros") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def new_ros_domain() -> Iterator[Callable[[], int]]:
    """Gives ROS domains which no other test process on this machine is given until this one's tests are over."""
    with ExitStack() as held:

        def take() -> int:
            for domain in _DOMAINS:
                path = Path(tempfile.gettempdir(), f"instructvla-test-domain-{domain}.lock")
                with ExitStack() as trying:
                    lock = trying.enter_context(path.open("w"))
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    held.push(trying.pop_all())
                    return domain
            raise RuntimeError(f"all ROS domains of {_DOMAINS} are taken by other tests; let those end first")

        yield take
